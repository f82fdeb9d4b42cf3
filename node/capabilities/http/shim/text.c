// Texts: compared, taken apart, put together.

#include "shim.h"

result_area result;

static uint8_t lower(uint8_t byte) { return byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte; }

bool equals(bytes a, bytes b) {
  if (a.length != b.length) return false;
  for (size_t i = 0; i < a.length; i++)
    if (a.data[i] != b.data[i]) return false;
  return true;
}

bool equals_caseless(bytes a, bytes b) {
  if (a.length != b.length) return false;
  for (size_t i = 0; i < a.length; i++)
    if (lower(a.data[i]) != lower(b.data[i])) return false;
  return true;
}

bytes kept(bytes text) {
  uint8_t *copy = arena_allocate(text.length);
  COPY(copy, text.data, text.length);
  return (bytes){copy, text.length};
}

uint64_t parse_number(bytes text) {
  uint64_t number = 0;
  for (size_t i = 0; i < text.length; i++) number = number * 10 + (text.data[i] - '0');
  return number;
}

bytes next_part(bytes *text, uint8_t separator) {
  size_t length = 0;
  while (length < text->length && text->data[length] != separator) length++;
  bytes part = {text->data, length};
  size_t taken = length < text->length ? length + 1 : length;
  text->data += taken;
  text->length -= taken;
  return part;
}

bytes next_line(bytes *text) { return next_part(text, '\n'); }

static size_t sequence_length(const uint8_t *start, size_t left) {
  uint8_t first = start[0];
  size_t length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  if (length == 0 || length > left) return 0;
  for (size_t i = 1; i < length; i++)
    if ((start[i] & 0xc0) != 0x80) return 0;
  bool is_overlong = (first == 0xe0 && start[1] < 0xa0) || (first == 0xf0 && start[1] < 0x90);
  bool is_outside = (first == 0xed && start[1] > 0x9f) || (first == 0xf4 && start[1] > 0x8f);
  return is_overlong || is_outside ? 0 : length;
}

bool is_utf8(bytes text) {
  const uint64_t high_bits = 0x8080808080808080;
  size_t i = 0;
  while (i < text.length) {
    uint64_t eight;
    if (text.length - i >= 8) {
      COPY(&eight, text.data + i, 8);
      if ((eight & high_bits) == 0) {
        i += 8;
        continue;
      }
    }
    size_t length = sequence_length(text.data + i, text.length - i);
    if (length == 0) return false;
    i += length;
  }
  return true;
}

// Where no adapter of the component model has looked at what the guest gave.
EXPORT("lattice:shim/control", "check-text") void check_text(const uint8_t *data, size_t length) {
  if (!is_utf8((bytes){data, length})) fault("a text that it gave is not UTF-8");
}

writer write_text(size_t most) {
  uint8_t *start = scratch_allocate(most);
  return (writer){start, start};
}

void put(writer *to, bytes text) {
  COPY(to->end, text.data, text.length);
  to->end += text.length;
}

void put_byte(writer *to, uint8_t byte) { *to->end++ = byte; }

void put_number(writer *to, uint64_t number) {
  uint8_t digits[NUMBER_SIZE];
  size_t first = NUMBER_SIZE;
  do digits[--first] = '0' + number % 10;
  while (number /= 10);
  put(to, (bytes){digits + first, NUMBER_SIZE - first});
}

bytes written(const writer *to) { return (bytes){to->start, to->end - to->start}; }

// Results, as the canonical ABI lays them out

result_area *give_bytes(bytes data) {
  result.word[0] = (uint32_t)data.data;
  result.word[1] = data.length;
  return &result;
}

result_area *give_optional(bool is_some, bytes data) {
  result.word[0] = is_some;
  result.word[1] = (uint32_t)data.data;
  result.word[2] = data.length;
  return &result;
}

result_area *give_handle(bool is_error, handle handle) {
  result.word[0] = is_error;
  result.word[1] = handle;
  return &result;
}
