// A command in C, without a libc: adds the lines of its input to a number in wasi:keyvalue, and prints the sum.

#include "keyvalue.h"

typedef int32_t handle;

typedef struct {
  uint8_t tag;
  handle failure;
} stream_error;

enum { LAST_OPERATION_FAILED = 0, CHUNK = 65536, MOST_OF_A_KEY = 200 };

// A `result<list<u8>, stream-error>`; as `result<_, stream-error>` without the data.
typedef struct {
  bool is_error;
  union {
    bytes data;
    stream_error error;
  };
} stream_result;

// A `result<option<string>, error>`.
typedef struct {
  bool is_error;
  union {
    optional_bytes value;
    struct {
      uint8_t tag;
      bytes text;
    } error;
  };
} config_result;

IMPORT("wasi:cli/stdin@0.2.6", "get-stdin") handle get_stdin(void);
IMPORT("wasi:cli/stdout@0.2.6", "get-stdout") handle get_stdout(void);
IMPORT("wasi:io/streams@0.2.6", "[method]input-stream.blocking-read")
void read_some(handle stream, uint64_t most, stream_result *result);
IMPORT("wasi:io/streams@0.2.6", "[method]output-stream.blocking-write-and-flush")
void write_and_flush(handle stream, const uint8_t *data, size_t length, stream_result *result);
IMPORT("wasi:io/streams@0.2.6", "[resource-drop]input-stream") void drop_input(handle stream);
IMPORT("wasi:io/streams@0.2.6", "[resource-drop]output-stream") void drop_output(handle stream);
IMPORT("wasi:io/error@0.2.6", "[resource-drop]error") void drop_error(handle error);
IMPORT("wasi:config/store@0.2.0-rc.1", "get")
void config_get(const uint8_t *key, size_t length, config_result *result);

static uint8_t key_text[MOST_OF_A_KEY];
static bytes key = {key_text, 0};

static bool is_done(stream_result *result) {
  if (result->is_error && result->error.tag == LAST_OPERATION_FAILED) drop_error(result->error.failure);
  return !result->is_error;
}

static bool print(handle output, bytes text) {
  stream_result result;
  write_and_flush(output, text.data, text.length, &result);
  return is_done(&result);
}

static bool failed(handle output, bytes reason) {
  print(output, CONCATENATE(TEXT("failed: "), reason, TEXT("\n")));
  return false;
}

// The configuration `key` says under which key to count; outlives the arena.
static bool choose_key(handle output) {
  config_result found;
  config_get(TEXT("key").data, TEXT("key").length, &found);
  if (found.is_error) return failed(output, found.error.text);
  bytes name = found.value.is_some ? found.value.value : TEXT("lines");
  if (name.length > MOST_OF_A_KEY) return failed(output, TEXT("the key is too long"));
  __builtin_memcpy(key_text, name.data, name.length);
  key.length = name.length;
  return true;
}

static bool add(handle output, handle bucket, uint64_t lines) {
  keyvalue_number sum;
  keyvalue_increment(bucket, key.data, key.length, lines, &sum);
  if (sum.is_error) return failed(output, keyvalue_reason(sum.error));
  return print(output, CONCATENATE(key, TEXT(": "), decimal(sum.number), TEXT("\n")));
}

static bool tally(handle input, handle output, handle bucket) {
  for (;;) {
    stream_result chunk;
    uint64_t lines = 0;
    arena_reset();
    read_some(input, CHUNK, &chunk);
    if (!is_done(&chunk)) return true;
    for (size_t i = 0; i < chunk.data.length; i++) lines += chunk.data.data[i] == '\n';
    if (lines && !add(output, bucket, lines)) return false;
  }
}

EXPORT("wasi:cli/run@0.2.6#run")
int32_t run(void) {
  handle input = get_stdin(), output = get_stdout();
  keyvalue_result opened;
  bool is_good = choose_key(output);
  if (is_good) {
    keyvalue_open(TEXT("").data, 0, &opened);
    is_good = opened.is_error ? failed(output, keyvalue_reason(opened.error)) : tally(input, output, opened.bucket);
    if (!opened.is_error) keyvalue_drop(opened.bucket);
  }
  drop_input(input);
  drop_output(output);
  return !is_good;
}
