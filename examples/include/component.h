// What a component in plain C needs of the component model's canonical ABI; no libc, no generated code.
//
// Memory: everything that a call allocates, the host's arguments included, comes from one arena that grows
// upwards from the end of the static data. The `cabi_post_...` twin of each exported function, which the host
// calls after it has read the result, empties it.

#ifndef COMPONENT_H
#define COMPONENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(name)))
#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))

// A `string` or `list<u8>`. As a result it is returned by address.
typedef struct {
  uint8_t *data;
  size_t length;
} bytes;

// An `option<string>`.
typedef struct {
  bool is_some;
  bytes value;
} optional_bytes;

#define TEXT(literal) ((bytes){(uint8_t *)(literal), sizeof(literal) - 1})

enum { PAGE_SIZE = 65536 };

extern uint8_t __heap_base; // the linker's: the first byte after static data and stack
static uint8_t *arena_end = &__heap_base;

static inline void arena_reset(void) { arena_end = &__heap_base; }

static inline void *arena_allocate(size_t alignment, size_t size) {
  uintptr_t start = ((uintptr_t)arena_end + alignment - 1) & -alignment;
  uintptr_t end = start + size;
  uintptr_t available = __builtin_wasm_memory_size(0) * PAGE_SIZE;
  if (end < start) __builtin_trap();
  if (end > available) {
    size_t pages = (end - available + PAGE_SIZE - 1) / PAGE_SIZE;
    if (__builtin_wasm_memory_grow(0, pages) == (size_t)-1) __builtin_trap();
  }
  arena_end = (uint8_t *)end;
  return (void *)start;
}

// The host allocates here whatever it passes in.
EXPORT("cabi_realloc")
void *cabi_realloc(void *old, size_t old_size, size_t alignment, size_t size) {
  void *block = arena_allocate(alignment, size);
  if (old_size > 0) __builtin_memcpy(block, old, old_size < size ? old_size : size);
  return block;
}

static inline bytes concatenate(const bytes *parts, size_t count) {
  size_t length = 0;
  for (size_t i = 0; i < count; i++) length += parts[i].length;
  bytes whole = {arena_allocate(1, length), length};
  uint8_t *end = whole.data;
  for (size_t i = 0; i < count; i++) {
    __builtin_memcpy(end, parts[i].data, parts[i].length);
    end += parts[i].length;
  }
  return whole;
}

// The parts, one after the other, in the arena.
#define CONCATENATE(...) \
  concatenate((bytes[]){__VA_ARGS__}, sizeof((bytes[]){__VA_ARGS__}) / sizeof(bytes))

// In digits, in the arena.
static inline bytes decimal(uint64_t number) {
  enum { MOST_DIGITS = 20 };
  uint8_t *end = (uint8_t *)arena_allocate(1, MOST_DIGITS) + MOST_DIGITS, *start = end;
  do *--start = '0' + number % 10;
  while (number /= 10);
  return (bytes){start, end - start};
}

static inline bool is_equal(bytes a, bytes b) {
  if (a.length != b.length) return false;
  for (size_t i = 0; i < a.length; i++)
    if (a.data[i] != b.data[i]) return false;
  return true;
}

#endif
