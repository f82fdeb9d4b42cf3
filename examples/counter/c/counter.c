// demo:counter/visits in C, over wasi:keyvalue.

#include "keyvalue.h"

// A `result<u64, string>`.
typedef struct {
  bool is_error;
  union {
    uint64_t number;
    bytes error;
  };
} number_result;

// A `result<option<string>, string>`; as `result<_, string>` without the value.
typedef struct {
  bool is_error;
  union {
    optional_bytes value;
    bytes error;
  };
} text_result;

typedef struct {
  bool is_error;
  bytes error;
} empty_result;

static number_result *add(bytes bucket_name, bytes page, uint64_t count) {
  static number_result result;
  keyvalue_result opened;
  keyvalue_open(bucket_name.data, bucket_name.length, &opened);
  if (opened.is_error) {
    result.is_error = true, result.error = keyvalue_reason(opened.error);
    return &result;
  }
  keyvalue_number sum;
  keyvalue_increment(opened.bucket, page.data, page.length, count, &sum);
  keyvalue_drop(opened.bucket);
  result.is_error = sum.is_error;
  if (sum.is_error) result.error = keyvalue_reason(sum.error);
  else result.number = sum.number;
  return &result;
}

EXPORT("demo:counter/visits#visit")
number_result *visit(uint8_t *page, size_t length) {
  return add(TEXT("default"), (bytes){page, length}, 1);
}

EXPORT("demo:counter/visits#visit-in")
number_result *visit_in(uint8_t *name, size_t name_length, uint8_t *page, size_t length) {
  return add((bytes){name, name_length}, (bytes){page, length}, 1);
}

EXPORT("demo:counter/visits#seen")
text_result *seen(uint8_t *page, size_t length) {
  static text_result result;
  keyvalue_result opened, found;
  keyvalue_open(TEXT("default").data, TEXT("default").length, &opened);
  if (!opened.is_error) {
    keyvalue_get(opened.bucket, page, length, &found);
    keyvalue_drop(opened.bucket);
  }
  keyvalue_result *last = opened.is_error ? &opened : &found;
  result.is_error = last->is_error;
  if (last->is_error) result.error = keyvalue_reason(last->error);
  else result.value = last->value;
  return &result;
}

EXPORT("demo:counter/visits#forget")
empty_result *forget(uint8_t *page, size_t length) {
  static empty_result result;
  keyvalue_result opened, done;
  keyvalue_open(TEXT("default").data, TEXT("default").length, &opened);
  if (!opened.is_error) {
    keyvalue_delete(opened.bucket, page, length, &done);
    keyvalue_drop(opened.bucket);
  }
  keyvalue_result *last = opened.is_error ? &opened : &done;
  result.is_error = last->is_error;
  if (last->is_error) result.error = keyvalue_reason(last->error);
  return &result;
}

EXPORT("cabi_post_demo:counter/visits#visit")
void visit_done(number_result *result) { (void)result, arena_reset(); }

EXPORT("cabi_post_demo:counter/visits#visit-in")
void visit_in_done(number_result *result) { (void)result, arena_reset(); }

EXPORT("cabi_post_demo:counter/visits#seen")
void seen_done(text_result *result) { (void)result, arena_reset(); }

EXPORT("cabi_post_demo:counter/visits#forget")
void forget_done(empty_result *result) { (void)result, arena_reset(); }
