// demo:loop/keyvalue in C: operations of wasi:keyvalue in a loop.

#include "keyvalue.h"

// A `result<u32, string>`.
typedef struct {
  bool is_error;
  union {
    uint32_t number;
    bytes error;
  };
} count_result;

static count_result result;

static count_result *failed(keyvalue_error error) {
  result.is_error = true, result.error = keyvalue_reason(error);
  return &result;
}

static count_result *done(int32_t bucket, uint32_t number) {
  keyvalue_drop(bucket);
  result.is_error = false, result.number = number;
  return &result;
}

EXPORT("demo:loop/keyvalue#get")
count_result *get(uint8_t *key, size_t length, uint32_t times) {
  keyvalue_result opened, found = {0};
  keyvalue_open(TEXT("default").data, TEXT("default").length, &opened);
  if (opened.is_error) return failed(opened.error);
  uint8_t *start = arena_end;
  for (uint32_t i = 0; i < times; i++) {
    arena_end = start; // what the last one returned
    keyvalue_get(opened.bucket, key, length, &found);
    if (found.is_error) return failed(found.error);
  }
  return done(opened.bucket, found.value.is_some ? found.value.value.length : 0);
}

EXPORT("demo:loop/keyvalue#set")
count_result *set(uint8_t *key, size_t length, uint32_t value_length, uint32_t times) {
  keyvalue_result opened, stored;
  keyvalue_open(TEXT("default").data, TEXT("default").length, &opened);
  if (opened.is_error) return failed(opened.error);
  uint8_t *value = arena_allocate(1, value_length);
  for (uint32_t i = 0; i < times; i++) {
    keyvalue_set(opened.bucket, key, length, value, value_length, &stored);
    if (stored.is_error) return failed(stored.error);
  }
  return done(opened.bucket, times);
}

EXPORT("cabi_post_demo:loop/keyvalue#get")
void get_done(count_result *count) { (void)count, arena_reset(); }

EXPORT("cabi_post_demo:loop/keyvalue#set")
void set_done(count_result *count) { (void)count, arena_reset(); }
