// Packing: how bytes cross the border, which is made of text. Of n bytes in seven rows, each as long as the others but
// for the last ones, first come the lower seven bits of all, in their order; then a byte for each column, with the
// eighth bit of the first row's byte lowest. So n bytes become n + n/7 characters of ASCII, whatever they are, in a few
// operations for sixteen of them. (The host's end: node/engine/driver/packing.c.)

#include "shim.h"

#include <wasm_simd128.h>

enum { ROWS = 7, LANES = 16 };

static size_t columns_of(size_t length) { return (length + ROWS - 1) / ROWS; }

size_t packed_size(size_t length) { return length + columns_of(length); }

// How many columns have a byte in each row.
static size_t full_columns(size_t length) {
  size_t others = (ROWS - 1) * columns_of(length);
  return length > others ? length - others : 0;
}

void put_packed(writer *to, bytes data) {
  const uint8_t *source = data.data;
  size_t length = data.length, columns = columns_of(length), full = full_columns(length), column = 0;
  uint8_t *target = to->end, *high = target + length;
  for (; column + LANES <= full; column += LANES) {
    v128_t bits = wasm_i8x16_const_splat(0);
    for (uint8_t row = 0; row < ROWS; row++) {
      v128_t sixteen = wasm_v128_load(source + row * columns + column);
      v128_t highest = wasm_v128_and(sixteen, wasm_i8x16_const_splat((int8_t)0x80));
      bits = wasm_v128_or(bits, wasm_u16x8_shr(highest, ROWS - row));
      wasm_v128_store(target + row * columns + column, wasm_v128_and(sixteen, wasm_i8x16_const_splat(0x7f)));
    }
    wasm_v128_store(high + column, bits);
  }
  for (; column < columns; column++) {
    uint8_t bits = 0, row = 0;
    for (size_t i = column; i < length; i += columns, row++) {
      bits |= (source[i] >> 7) << row;
      target[i] = source[i] & 0x7f;
    }
    high[column] = bits;
  }
  to->end = high + columns;
}

// `target` may be where the packed bytes are.
size_t unpack(const uint8_t *source, size_t size, uint8_t *target) {
  size_t length = size * ROWS / (ROWS + 1), columns = columns_of(length), full = full_columns(length), column = 0;
  const uint8_t *high = source + length;
  for (; column + LANES <= full; column += LANES) {
    v128_t bits = wasm_v128_load(high + column);
    for (uint8_t row = 0; row < ROWS; row++) {
      size_t place = row * columns + column;
      v128_t highest = wasm_v128_and(wasm_i16x8_shl(bits, 7 - row), wasm_i8x16_const_splat((int8_t)0x80));
      wasm_v128_store(target + place, wasm_v128_or(wasm_v128_load(source + place), highest));
    }
  }
  for (; column < columns; column++) {
    uint8_t bits = high[column];
    for (size_t i = column; i < length; i += columns, bits >>= 1) target[i] = source[i] | (uint8_t)(bits << 7);
  }
  return length;
}
