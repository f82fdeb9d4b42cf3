// demo:flood/output in C, printing through WASI without a libc.

#include "component.h"

typedef int32_t handle;

// A `result<_, stream-error>`.
typedef struct {
  bool is_error;
  struct {
    uint8_t which;
    handle failure;
  } error;
} write_result;

enum { LAST_OPERATION_FAILED = 0 };

IMPORT("wasi:cli/stdout@0.2.0", "get-stdout") handle get_stdout(void);
IMPORT("wasi:io/streams@0.2.0", "[method]output-stream.blocking-write-and-flush")
void write_and_flush(handle stream, const uint8_t *data, size_t length, write_result *result);
IMPORT("wasi:io/streams@0.2.0", "[resource-drop]output-stream") void drop_stream(handle stream);
IMPORT("wasi:io/error@0.2.0", "[resource-drop]error") void drop_error(handle error);

static const bytes LINE = TEXT("Is anybody reading this? A line of text is always 64 bytes long\n");

static bool print_line(handle stream) {
  write_result result;
  write_and_flush(stream, LINE.data, LINE.length, &result);
  if (result.is_error && result.error.which == LAST_OPERATION_FAILED) drop_error(result.error.failure);
  return !result.is_error;
}

EXPORT("demo:flood/output#lines")
uint32_t lines(uint32_t count) {
  handle stream = get_stdout();
  uint32_t printed = 0;
  while (printed < count && print_line(stream)) printed++;
  drop_stream(stream);
  return printed;
}

EXPORT("demo:flood/output#forever")
void forever(void) {
  handle stream = get_stdout();
  for (;;) print_line(stream);
}
