// demo:changes in C: called with each change of a key, it sends a message.

#include "component.h"

#define WATCHER(function) "wasi:keyvalue/watcher@0.2.0-draft#" function

// `result<_, string>`
typedef struct {
  uint8_t is_error;
  bytes error;
} result;

IMPORT("wasi:keyvalue/store@0.2.0-draft", "[resource-drop]bucket") void drop_bucket(int32_t);
IMPORT("wasmcloud:messaging/consumer@0.2.0", "publish")
void publish(const uint8_t *, size_t, const uint8_t *, size_t, int32_t, const uint8_t *, size_t, result *);

static void tell(bytes subject, bytes body) {
  result done;
  publish(subject.data, subject.length, body.data, body.length, 0, 0, 0, &done);
  if (done.is_error) __builtin_trap(); // the change is lost; the node's log says so
  arena_reset();
}

EXPORT(WATCHER("on-set"))
void on_set(int32_t bucket, uint8_t *key, size_t key_length, uint8_t *value, size_t value_length) {
  drop_bucket(bucket);
  bytes name = {key, key_length};
  tell(CONCATENATE(TEXT("changes.set."), name), (bytes){value, value_length});
}

EXPORT(WATCHER("on-delete"))
void on_delete(int32_t bucket, uint8_t *key, size_t key_length) {
  drop_bucket(bucket);
  bytes name = {key, key_length};
  tell(CONCATENATE(TEXT("changes.deleted."), name), TEXT(""));
}
