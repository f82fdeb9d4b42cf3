// Packing: how bytes cross the border of a sandbox, which is made of text; the same code at both of its ends, here and
// in node/capabilities/http/shim. Of n bytes in seven rows, each as long as the others but for the last ones, first come
// the lower seven bits of all, in their order; then a byte for each column, with the eighth bit of the first row's byte
// lowest. So n bytes become n + n/7 characters of ASCII, whatever they are, in a few operations for all of some lanes.

#ifndef PACKING_H
#define PACKING_H

#include <stddef.h>
#include <stdint.h>

enum { ROWS = 7, LANES = PACKING_LANES };

typedef uint8_t lanes __attribute__((vector_size(LANES)));
typedef uint16_t wide_lanes __attribute__((vector_size(LANES))); // which most processors shift at once

static inline size_t columns_of(size_t length) { return (length + ROWS - 1) / ROWS; }

static inline size_t size_packed(size_t length) { return length + columns_of(length); }

static inline size_t size_unpacked(size_t size) {
  return size / (ROWS + 1) * ROWS + size % (ROWS + 1) * ROWS / (ROWS + 1);
}

// How many columns have a byte in each row.
static inline size_t full_columns(size_t length) {
  size_t others = (ROWS - 1) * columns_of(length);
  return length > others ? length - others : 0;
}

static inline lanes load(const uint8_t *from) {
  lanes loaded;
  __builtin_memcpy(&loaded, from, sizeof loaded);
  return loaded;
}

static inline void store(uint8_t *to, lanes stored) { __builtin_memcpy(to, &stored, sizeof stored); }

static inline void pack_bytes(const uint8_t *source, size_t length, uint8_t *target) {
  size_t columns = columns_of(length), full = full_columns(length), column = 0;
  uint8_t *high = target + length;
  for (; column + LANES <= full; column += LANES) {
    lanes bits = {0};
    for (int row = 0; row < ROWS; row++) {
      lanes some = load(source + row * columns + column);
      bits |= (lanes)((wide_lanes)(some & 0x80) >> (ROWS - row));
      store(target + row * columns + column, some & 0x7f);
    }
    store(high + column, bits);
  }
  for (; column < columns; column++) {
    uint8_t bits = 0, row = 0;
    for (size_t i = column; i < length; i += columns, row++) {
      bits |= (source[i] >> 7) << row;
      target[i] = source[i] & 0x7f;
    }
    high[column] = bits;
  }
}

// `length` is `size_unpacked` of the text's; `target` may be where the text is. No text is wrong: of what a guest may
// have made up come some bytes.
static inline void unpack_bytes(const uint8_t *source, size_t length, uint8_t *target) {
  size_t columns = columns_of(length), full = full_columns(length), column = 0;
  const uint8_t *high = source + length;
  for (; column + LANES <= full; column += LANES) {
    lanes bits = load(high + column);
    for (int row = 0; row < ROWS; row++) {
      size_t place = row * columns + column;
      lanes highest = (lanes)((wide_lanes)bits << (ROWS - row)) & 0x80;
      store(target + place, load(source + place) | highest);
    }
  }
  for (; column < columns; column++) {
    uint8_t bits = high[column];
    for (size_t i = column; i < length; i += columns, bits >>= 1) target[i] = source[i] | (uint8_t)(bits << 7);
  }
}

#endif
