// demo:bytes/echo in C.

#include "component.h"

EXPORT("demo:bytes/echo#echo")
bytes *echo(uint8_t *data, size_t length) {
  static bytes same;
  same = (bytes){data, length};
  return &same;
}

EXPORT("cabi_post_demo:bytes/echo#echo")
void echo_done(bytes *same) { (void)same, arena_reset(); }

EXPORT("demo:bytes/echo#checksum")
uint32_t checksum(const uint8_t *data, size_t length) {
  uint32_t sum = 0;
  for (size_t i = 0; i < length; i++) sum += data[i];
  return sum;
}

EXPORT("cabi_post_demo:bytes/echo#checksum")
void checksum_done(uint32_t sum) { (void)sum, arena_reset(); }
