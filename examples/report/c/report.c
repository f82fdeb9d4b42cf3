// wasmcloud:cron/scheduler in C: says at each tick what it would send, and with which key.

#include "component.h"

// A `result` of a handle, an `option<string>`, or an error with a text (none for `not-found`).
typedef struct {
  bool is_error;
  union {
    int32_t handle;
    optional_bytes value;
    struct {
      uint8_t tag;
      bytes text;
    } error;
  };
} answer;

// A `secret-value`: text and bytes are laid out alike.
typedef struct {
  uint8_t tag;
  bytes value;
} secret_value;

typedef struct {
  bool is_error;
  bytes error;
} outcome;

enum { INFO = 2, WARN = 3, NOT_FOUND = 2 };

IMPORT("wasi:config/store@0.2.0-rc.1", "get")
void config_get(const uint8_t *key, size_t length, answer *result);

IMPORT("wasmcloud:secrets/store@0.1.0-draft", "get")
void secret_get(const uint8_t *key, size_t length, answer *result);

IMPORT("wasmcloud:secrets/store@0.1.0-draft", "[resource-drop]secret")
void secret_drop(int32_t secret);

IMPORT("wasmcloud:secrets/reveal@0.1.0-draft", "reveal")
void secret_reveal(int32_t secret, secret_value *result);

IMPORT("wasi:logging/logging@0.1.0-draft", "log")
void log_message(int32_t level, const uint8_t *context, size_t context_length, const uint8_t *message, size_t length);

static outcome result;

static void say(int32_t level, bytes message) {
  log_message(level, TEXT("report").data, TEXT("report").length, message.data, message.length);
}

static outcome *failed(bytes reason) {
  result.is_error = true, result.error = reason;
  return &result;
}

EXPORT("wasmcloud:cron/scheduler@0.1.0#invoke")
outcome *invoke(uint8_t *payload, size_t length) {
  answer title, found;
  secret_value key;
  result.is_error = false;
  config_get(TEXT("title").data, TEXT("title").length, &title);
  if (title.is_error) return failed(title.error.text);
  secret_get(TEXT("key").data, TEXT("key").length, &found);
  if (found.is_error) return failed(found.error.tag == NOT_FOUND ? TEXT("no key was granted") : found.error.text);
  secret_reveal(found.handle, &key);
  secret_drop(found.handle);
  if (!title.value.is_some) say(WARN, TEXT("there is no title"));
  say(INFO, CONCATENATE(title.value.is_some ? title.value.value : TEXT("Report"), TEXT(" for "),
                        (bytes){payload, length}, TEXT(", with a key of "), decimal(key.value.length), TEXT(" bytes")));
  return &result;
}

EXPORT("cabi_post_wasmcloud:cron/scheduler@0.1.0#invoke")
void invoke_done(outcome *sent) { (void)sent, arena_reset(); }
