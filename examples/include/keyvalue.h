// `wasi:keyvalue` 0.2.0-draft for components in plain C: the imports as the canonical ABI lays them out.

#ifndef KEYVALUE_H
#define KEYVALUE_H

#include "component.h"

typedef struct {
  uint8_t tag; // 0 no-such-store, 1 access-denied, 2 other
  bytes other;
} keyvalue_error;

typedef struct {
  bool is_error;
  union {
    int32_t bucket;
    optional_bytes value;
    keyvalue_error error;
  };
} keyvalue_result;

typedef struct {
  bool is_error;
  union {
    uint64_t number;
    keyvalue_error error;
  };
} keyvalue_number;

#define KEYVALUE_STORE "wasi:keyvalue/store@0.2.0-draft"
#define KEYVALUE_ATOMICS "wasi:keyvalue/atomics@0.2.0-draft"

IMPORT(KEYVALUE_STORE, "open")
void keyvalue_open(const uint8_t *name, size_t length, keyvalue_result *result);

IMPORT(KEYVALUE_STORE, "[method]bucket.get")
void keyvalue_get(int32_t bucket, const uint8_t *key, size_t length, keyvalue_result *result);

IMPORT(KEYVALUE_STORE, "[method]bucket.set")
void keyvalue_set(int32_t bucket, const uint8_t *key, size_t length, const uint8_t *value, size_t value_length,
                  keyvalue_result *result);

IMPORT(KEYVALUE_STORE, "[method]bucket.delete")
void keyvalue_delete(int32_t bucket, const uint8_t *key, size_t length, keyvalue_result *result);

IMPORT(KEYVALUE_STORE, "[resource-drop]bucket")
void keyvalue_drop(int32_t bucket);

IMPORT(KEYVALUE_ATOMICS, "increment")
void keyvalue_increment(int32_t bucket, const uint8_t *key, size_t length, uint64_t delta, keyvalue_number *result);

static inline bytes keyvalue_reason(keyvalue_error error) {
  if (error.tag == 0) return TEXT("no-such-store");
  return error.tag == 1 ? TEXT("access-denied") : error.other;
}

#endif
