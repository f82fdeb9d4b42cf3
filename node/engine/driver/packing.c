// Bytes as text, at the host's end; packing.h says how.

#define PACKING_LANES 32
#include "packing.h"

#include "driver.h"

size_t packed_size(size_t length) { return size_packed(length); }

size_t unpacked_size(size_t size) { return size_unpacked(size); }

EXPORT void driver_pack(const uint8_t *source, size_t length, uint8_t *target) { pack_bytes(source, length, target); }

EXPORT void driver_unpack(const uint8_t *source, size_t length, uint8_t *target) {
  unpack_bytes(source, length, target);
}
