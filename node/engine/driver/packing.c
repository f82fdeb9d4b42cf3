// Packing: how bytes cross the border of a sandbox, which is made of text. The other end, which says how it is done,
// is node/capabilities/http/shim/packing.c.

#include "driver.h"

#include <string.h>

enum { ROWS = 7, LANES = 32 };

typedef uint8_t lanes __attribute__((vector_size(LANES)));

static size_t columns_of(size_t length) { return (length + ROWS - 1) / ROWS; }

size_t packed_size(size_t length) { return length + columns_of(length); }

size_t unpacked_size(size_t size) { return size / (ROWS + 1) * ROWS + size % (ROWS + 1) * ROWS / (ROWS + 1); }

static size_t full_columns(size_t length) {
  size_t others = (ROWS - 1) * columns_of(length);
  return length > others ? length - others : 0;
}

static lanes load(const uint8_t *from) {
  lanes loaded;
  memcpy(&loaded, from, sizeof loaded);
  return loaded;
}

static void store(uint8_t *to, lanes stored) { memcpy(to, &stored, sizeof stored); }

EXPORT void driver_pack(const uint8_t *source, size_t length, uint8_t *target) {
  size_t columns = columns_of(length), full = full_columns(length), column = 0;
  uint8_t *high = target + length;
  for (; column + LANES <= full; column += LANES) {
    lanes bits = {0};
    for (int row = 0; row < ROWS; row++) {
      lanes some = load(source + row * columns + column);
      bits |= (some & 0x80) >> (ROWS - row);
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

// `length` is `unpacked_size` of the text's. No text is wrong: of what a guest may have made up come some bytes.
EXPORT void driver_unpack(const uint8_t *source, size_t length, uint8_t *target) {
  size_t columns = columns_of(length), full = full_columns(length), column = 0;
  const uint8_t *high = source + length;
  for (; column + LANES <= full; column += LANES) {
    lanes bits = load(high + column);
    for (int row = 0; row < ROWS; row++) {
      size_t place = row * columns + column;
      store(target + place, load(source + place) | (bits << (ROWS - row) & 0x80));
    }
  }
  for (; column < columns; column++) {
    uint8_t bits = high[column];
    for (size_t i = column; i < length; i += columns, bits >>= 1) target[i] = source[i] | (uint8_t)(bits << 7);
  }
}
