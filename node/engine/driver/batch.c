// Batches: calls of one function that wait in numbers, made one after the other on the maker's thread, which makes a
// sandbox for each and ends it. So nothing of a sandbox, nor of wasmtime's and libc's bookkeeping, passes from core to
// core. Where two cores share no cache that passage costs more than all the rest: a sandbox that is made on one core
// and called on another, while that makes some, too, takes 30 us instead of 6.

#include "driver.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

struct batch {
  // What it came to, to be read when it is over. Of the calls that have begun one or two may not be DONE: the last
  // one, and, if `may_overlap` let others follow it, one before.
  uint64_t begun;
  uint64_t left;       // the outcome of the last call, or of the start of a sandbox for the next one
  head *given;         // its sandbox, if it is not DONE or its result has parts
  head *waiting;       // that of one before, which is UNDER_WAY
  uint64_t waiting_at; // which one that is
  uint64_t computed;   // nanoseconds, of all
  _Atomic uint64_t is_over;
  // What it is to do, to be kept until then:
  const batch *before; // unless each call of this one has begun, none of ours may: they keep their order
  uint64_t may_overlap;
  uint64_t most_nanoseconds; // after which no further call begins: others wait for the thread
  ticker *clock;
  const recipe *of;
  void *shelf; // of the component
  void *export;
  uint64_t count, has_result; // of each call: arguments, and 0 or 1
  uint64_t calls;
  const uint8_t *arguments; // of all calls, one after the other
  uint8_t *results;         // likewise
  int64_t bell;             // the descriptor of an event that is raised at the end
};

static bool may_begin(const batch *self) { return self->before == NULL || self->before->begun == self->before->calls; }

static uint64_t nanoseconds(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

// Whether a result may refer to more than itself: all do but a `result` that carries nothing.
static bool has_parts(const uint8_t *value) {
  void *part;
  memcpy(&part, value + at.result_part, sizeof part);
  return value[0] != at.result_kind || part != NULL;
}

static outcome make_call(const batch *self, head *cells) {
  const uint8_t *arguments = self->arguments + self->begun * self->count * at.value_size;
  note(self->clock); // its start may run code of the guest, too
  make_anew(cells, self->of);
  if (!is_clean(cells)) return BADLY_MADE;
  note(self->clock);
  bool is_over = driver_call(cells, self->export, arguments, self->count, self->has_result, self->of->ticks);
  return is_over && is_clean(cells) ? DONE : UNDER_WAY;
}

// Whether the result of the last call is all in its place: then its sandbox may go.
static bool copy_result(const batch *self, head *cells) {
  if (!self->has_result) return true;
  uint8_t *result = self->results + (self->begun - 1) * at.value_size;
  memcpy(result, place(cells, at.result), at.value_size);
  return !has_parts(result);
}

// Whether another call may follow the last one. Keeps its sandbox, if it is still needed.
static bool go_on(batch *self, head **cells) {
  if (self->left != BADLY_MADE) self->begun++;
  if (self->left == DONE && copy_result(self, *cells)) return true;
  if (self->left != UNDER_WAY || !self->may_overlap || self->waiting != NULL || self->begun == self->calls) {
    self->given = *cells;
    return false;
  }
  self->waiting = *cells;
  self->waiting_at = self->begun - 1;
  *cells = driver_new_cells();
  if (*cells == NULL) return false;
  (*cells)->shelf = self->shelf;
  self->left = DONE;
  return true;
}

static void make_calls(batch *self) {
  uint64_t end = nanoseconds(CLOCK_MONOTONIC) + self->most_nanoseconds;
  head *cells = driver_new_cells();
  self->left = cells == NULL ? NONE : DONE;
  if (cells == NULL) return;
  cells->shelf = self->shelf;
  do self->left = make_call(self, cells);
  while (go_on(self, &cells) && self->begun < self->calls && nanoseconds(CLOCK_MONOTONIC) < end);
  if (cells != NULL && self->given == NULL) end_and_free(cells);
}

void batch_run(batch *self) {
  uint64_t computed = nanoseconds(CLOCK_THREAD_CPUTIME_ID), one = 1;
  int bell = (int)self->bell;
  if (may_begin(self))
    make_calls(self);
  else
    self->left = NONE;
  self->computed = nanoseconds(CLOCK_THREAD_CPUTIME_ID) - computed;
  atomic_store(&self->is_over, 1); // from here on it may be freed
  if (write(bell, &one, sizeof one) < 0) return; // it has been raised often already, then
}
