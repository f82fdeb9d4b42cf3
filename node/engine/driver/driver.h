// What the parts of the driver share. Its theory of operation is in driver.c.

#ifndef DRIVER_H
#define DRIVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define EXPORT __attribute__((visibility("default")))

typedef struct {
  uint64_t size;
  uint8_t *data;
} byte_vector;

typedef struct {
  void *(*store_new)(void *engine, void *data, void (*finalizer)(void *));
  void *(*store_context)(void *store);
  void *(*context_data)(void *context);
  void (*store_limiter)(void *store, int64_t, int64_t, int64_t, int64_t, int64_t);
  void (*store_delete)(void *store);
  void *(*yield_at_deadline)(void *context, uint64_t delta);
  void (*set_epoch_deadline)(void *context, uint64_t ticks);
  void *(*instantiate_async)(void *linker, void *context, void *component, void *instance, void **error);
  bool (*get_func)(void *instance, void *context, void *index, void *function);
  void *(*call_async)(void *function, void *context, const void *arguments, size_t count, void *results,
                      size_t result_count, void **error);
  bool (*poll)(void *fiber);
  void (*future_delete)(void *fiber);
  void (*value_delete)(void *value);
  void (*error_delete)(void *error);
  void (*increment_epoch)(void *engine);
  void (*new_bytes)(byte_vector *bytes, size_t size);
} api;

typedef struct {
  uint32_t instance, function, error, result, argument, size, value_size, text_kind, result_kind, result_part;
} layout;

extern api wasmtime;
extern layout at;

typedef struct {
  uint64_t kind;
  byte_vector text;
} text_value; // the beginning of a value that is a text

// With this the cells of a sandbox begin, which are where wasmtime writes to.
typedef struct {
  void *store, *context, *fiber;
  void *shelf; // which it was made for, if any
  struct channel *channels;
  _Atomic uint32_t state;
  uint32_t has_result;
  uint32_t is_taken; // Python has an object for it: it serves one call at the most
  uint32_t may_wait; // its guest runs on a thread that may be kept
  text_value answer;   // what the guest has answered early, before its call is over; no data if nothing
} head;

// driver.c: a sandbox, and the epoch clock
typedef struct {
  void *engine, *linker, *component;
  int64_t limits[5];
  uint64_t ticks; // of the epoch clock: how long one poll may take
} recipe; // what all sandboxes of a component are made of

typedef struct ticker ticker;

typedef enum { DONE, UNDER_WAY, BADLY_MADE, NONE } outcome; // of a call

head *driver_new_cells(void);
bool driver_call(head *cells, void *export, const void *arguments, size_t count, size_t results, uint64_t ticks);
void make_anew(head *cells, const recipe *of);
void end_and_free(head *cells);
bool is_clean(head *cells);
void note(ticker *self);
static inline void *place(head *cells, uint32_t offset) { return (uint8_t *)cells + offset; }

// batch.c
typedef struct batch batch;
void batch_run(batch *self);

// packing.c: bytes as text, of n bytes n and n/7 characters
size_t packed_size(size_t length);
size_t unpacked_size(size_t size);
void driver_pack(const uint8_t *source, size_t length, uint8_t *target);
void driver_unpack(const uint8_t *source, size_t length, uint8_t *target);

// loan.c: a socket that a channel has for a while; `descriptor` is -1 while it has none
typedef struct {
  int descriptor;
  bool is_chunked; // what is written goes out in chunks of HTTP/1.1
  bool is_over;    // the peer has ended it, or it is broken
  uint64_t left;   // bytes that may be moved
  uint64_t moved, chunk_left;
  uint64_t lines_size; // of what must be sent before any data: lines that end or begin a chunk
  uint8_t lines[32]; // more than those around a chunk take
} loan;

void loan_begin(loan *self, int descriptor, uint64_t length, bool is_chunked);
void loan_end(loan *self);
size_t loan_read(loan *self, uint8_t *target, size_t room);
size_t loan_write(loan *self, struct iovec *parts, size_t count);
bool loan_wait(int descriptor, bool is_input, int milliseconds);

#endif
