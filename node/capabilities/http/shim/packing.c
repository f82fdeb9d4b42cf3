// Bytes as text, at the guest's end.

#include "shim.h"

#define PACKING_LANES 16
#include "../../../engine/driver/packing.h"

size_t packed_size(size_t length) { return size_packed(length); }

void put_packed(writer *to, bytes data) {
  pack_bytes(data.data, data.length, to->end);
  to->end += size_packed(data.length);
}

// `target` may be where the packed bytes are.
size_t unpack(const uint8_t *source, size_t size, uint8_t *target) {
  size_t length = size_unpacked(size);
  unpack_bytes(source, length, target);
  return length;
}
