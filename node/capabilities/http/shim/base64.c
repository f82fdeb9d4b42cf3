// Base64 with padding (RFC 4648): how bytes that are not UTF-8 cross the border. Sixteen digits at a time, after
// Wojciech Muła and Daniel Lemire, "Faster Base64 Encoding and Decoding Using AVX2 Instructions", 2018.

#include "shim.h"

#include <wasm_simd128.h>

enum { BYTES_AT_ONCE = 12, DIGITS_AT_ONCE = 16 };

static const uint8_t DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t base64_size(size_t length) { return (length + 2) / 3 * 4; }

// Encoding

// Of each four bytes three are used, the first of them lowest: their digits' values, in the order of the digits.
static v128_t values_of_bytes(v128_t bytes) {
  v128_t number = wasm_i8x16_shuffle(bytes, bytes, 2, 1, 0, 0, 5, 4, 3, 3, 8, 7, 6, 6, 11, 10, 9, 9);
  v128_t first = wasm_v128_and(wasm_u32x4_shr(number, 18), wasm_u32x4_const_splat(0x3f));
  v128_t second = wasm_v128_and(wasm_u32x4_shr(number, 4), wasm_u32x4_const_splat(0x3f00));
  v128_t third = wasm_v128_and(wasm_i32x4_shl(number, 10), wasm_u32x4_const_splat(0x3f0000));
  v128_t fourth = wasm_v128_and(wasm_i32x4_shl(number, 24), wasm_u32x4_const_splat(0x3f000000));
  return wasm_v128_or(wasm_v128_or(first, second), wasm_v128_or(third, fourth));
}

static v128_t digits_of_values(v128_t values) {
  // From 26 on by what is above 51: 0 are lower letters, 1 to 10 figures, 11 and 12 the rest; 13 are capitals.
  v128_t kind = wasm_u8x16_sub_sat(values, wasm_u8x16_const_splat(51));
  v128_t is_capital = wasm_u8x16_lt(values, wasm_u8x16_const_splat(26));
  kind = wasm_v128_or(kind, wasm_v128_and(is_capital, wasm_u8x16_const_splat(13)));
  const v128_t distance = wasm_i8x16_const('a' - 26, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52,
                                           '0' - 52, '0' - 52, '0' - 52, '0' - 52, '+' - 62, '/' - 63, 'A', 0, 0);
  return wasm_i8x16_add(values, wasm_i8x16_swizzle(distance, kind));
}

static void encode_three(const uint8_t *source, size_t length, uint8_t *target) {
  uint32_t number = (uint32_t)source[0] << 16;
  if (length > 1) number |= (uint32_t)source[1] << 8;
  if (length > 2) number |= source[2];
  target[0] = DIGITS[number >> 18];
  target[1] = DIGITS[number >> 12 & 63];
  target[2] = length > 1 ? DIGITS[number >> 6 & 63] : '=';
  target[3] = length > 2 ? DIGITS[number & 63] : '=';
}

void put_base64(writer *to, bytes data) {
  const uint8_t *source = data.data, *end = data.data + data.length;
  uint8_t *target = to->end;
  for (; end - source >= DIGITS_AT_ONCE; source += BYTES_AT_ONCE, target += DIGITS_AT_ONCE)
    wasm_v128_store(target, digits_of_values(values_of_bytes(wasm_v128_load(source))));
  for (; source < end; source += 3, target += 4) encode_three(source, end - source < 3 ? end - source : 3, target);
  to->end = target;
}

// Decoding, of what the host has encoded: digits are not checked

static v128_t values_of_digits(v128_t digits) {
  v128_t high = wasm_u8x16_shr(digits, 4);
  v128_t is_slash = wasm_i8x16_eq(digits, wasm_u8x16_const_splat('/'));
  const v128_t distance =
      wasm_i8x16_const(0, 63 - '/', 62 - '+', 52 - '0', -'A', -'A', 26 - 'a', 26 - 'a', 0, 0, 0, 0, 0, 0, 0, 0);
  return wasm_i8x16_add(digits, wasm_i8x16_swizzle(distance, wasm_i8x16_add(high, is_slash)));
}

static v128_t bytes_of_values(v128_t values) {
  v128_t first = wasm_i32x4_shl(wasm_v128_and(values, wasm_u32x4_const_splat(0x3f)), 18);
  v128_t second = wasm_i32x4_shl(wasm_v128_and(values, wasm_u32x4_const_splat(0x3f00)), 4);
  v128_t third = wasm_u32x4_shr(wasm_v128_and(values, wasm_u32x4_const_splat(0x3f0000)), 10);
  v128_t number = wasm_v128_or(wasm_v128_or(first, second), wasm_v128_or(third, wasm_u32x4_shr(values, 24)));
  return wasm_i8x16_shuffle(number, number, 2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, 3, 7, 11, 15);
}

static uint32_t value_of(uint8_t digit) {
  if (digit >= 'a') return digit - 'a' + 26;
  if (digit >= 'A') return digit - 'A';
  if (digit >= '0') return digit - '0' + 52;
  return digit == '+' ? 62 : 63;
}

static void decode_four(const uint8_t *source, uint8_t *target, size_t length) {
  uint32_t number = 0;
  for (size_t i = 0; i < 4; i++) number = number << 6 | (source[i] == '=' ? 0 : value_of(source[i]));
  for (size_t i = 0; i < length; i++) target[i] = number >> (16 - 8 * i);
}

// May decode in place: what is written ends before what is still to be read.
size_t decode_base64(const uint8_t *source, size_t length, uint8_t *target) {
  if (length < 4) return 0;
  size_t size = length / 4 * 3 - (source[length - 1] == '=') - (source[length - 2] == '=');
  size_t read = 0, done = 0;
  for (; length - read > DIGITS_AT_ONCE; read += DIGITS_AT_ONCE, done += BYTES_AT_ONCE)
    wasm_v128_store(target + done, bytes_of_values(values_of_digits(wasm_v128_load(source + read))));
  for (; done < size; read += 4, done += 3) decode_four(source + read, target + done, size - done < 3 ? size - done : 3);
  return size;
}
