// The engine's native helper: what Python would ask of wasmtime's C API call by call, in one call; a thread that
// makes and ends sandboxes beside the one on which Python runs; and the epoch clock, which never asks for the GIL.
//
// It holds no state but that of the threads that it was asked to start, knows nothing of Python and links with
// nothing but libc: the functions of wasmtime that it calls are handed to it by their addresses, the layout of what
// both sides write to by its offsets (`driver_begin`).
//
// The cells of a sandbox are Python's memory. They begin with a `head`; while its `state` is QUEUED or MAKING they
// are the maker's.

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))

typedef struct {
  void *(*store_new)(void *engine, void *data, void (*finalizer)(void *));
  void *(*store_context)(void *store);
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
  void (*increment_epoch)(void *engine);
} api;

typedef struct {
  uint32_t instance, function, error, result, value_size;
} layout;

static api wasmtime;
static layout at;

typedef enum { IDLE, QUEUED, MAKING, MADE } sandbox_state;

typedef struct {
  void *store, *context, *fiber;
  _Atomic uint32_t state;
  uint32_t has_result;
} head;

// What all sandboxes of a component are made of.
typedef struct {
  void *engine, *linker, *component;
  int64_t limits[5];
  uint64_t ticks; // of the epoch clock: how long one poll may take
} recipe;

static void *place(head *cells, uint32_t offset) { return (uint8_t *)cells + offset; }

EXPORT void driver_begin(const api *functions, const layout *offsets) {
  wasmtime = *functions;
  at = *offsets;
}

// One sandbox. What returns a bool has run the fiber until it ended (true: then it is freed), or until it waits for
// the host or has used up its ticks (false). Errors are left in the cells.

static bool run(head *cells, uint64_t ticks) {
  wasmtime.set_epoch_deadline(cells->context, ticks);
  if (!wasmtime.poll(cells->fiber)) return false;
  wasmtime.future_delete(cells->fiber);
  cells->fiber = NULL;
  return true;
}

EXPORT void driver_open(head *cells, const recipe *of) {
  const int64_t *most = of->limits;
  cells->store = wasmtime.store_new(of->engine, cells, NULL);
  cells->context = wasmtime.store_context(cells->store);
  wasmtime.store_limiter(cells->store, most[0], most[1], most[2], most[3], most[4]);
  wasmtime.yield_at_deadline(cells->context, 1);
}

EXPORT bool driver_make(head *cells, const recipe *of) {
  driver_open(cells, of);
  cells->fiber = wasmtime.instantiate_async(of->linker, cells->context, of->component, place(cells, at.instance),
                                            place(cells, at.error));
  return run(cells, of->ticks);
}

EXPORT void driver_free_result(head *cells) {
  if (!cells->has_result) return;
  cells->has_result = false;
  wasmtime.value_delete(place(cells, at.result));
  memset(place(cells, at.result), 0, at.value_size); // the next call drops what it overwrites
}

// `results` is 0 or 1.
EXPORT bool driver_call(head *cells, void *export, const void *arguments, size_t count, size_t results,
                        uint64_t ticks) {
  void *function = place(cells, at.function);
  driver_free_result(cells);
  if (!wasmtime.get_func(place(cells, at.instance), cells->context, export, function)) abort();
  cells->fiber = wasmtime.call_async(function, cells->context, arguments, count, place(cells, at.result), results,
                                     place(cells, at.error));
  return run(cells, ticks);
}

// The maker: a thread that makes sandboxes and ends them, in the order in which it was asked to.

typedef struct {
  head *cells; // one to be made,
  const recipe *of;
  void *store; // or a store to be ended; neither: somebody else has done it
} job;

enum { MOST_JOBS = 1 << 12, SPINS = 2000 };

typedef struct {
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t asked, made;
  bool is_closing, is_asleep;
  uint32_t waiting;
  size_t first, count;
  job jobs[MOST_JOBS];
} maker;

static bool next_job(maker *self, job *task) {
  pthread_mutex_lock(&self->lock);
  while (self->count == 0 && !self->is_closing) {
    self->is_asleep = true;
    pthread_cond_wait(&self->asked, &self->lock);
  }
  self->is_asleep = false;
  bool is_there = self->count > 0;
  if (is_there) {
    *task = self->jobs[self->first];
    self->first = (self->first + 1) % MOST_JOBS;
    self->count--;
    if (task->cells != NULL) atomic_store(&task->cells->state, MAKING);
  }
  pthread_mutex_unlock(&self->lock);
  return is_there;
}

static void say_made(maker *self, head *cells) {
  pthread_mutex_lock(&self->lock);
  atomic_store(&cells->state, MADE);
  if (self->waiting) pthread_cond_broadcast(&self->made);
  pthread_mutex_unlock(&self->lock);
}

static void *work(void *argument) {
  job task;
  while (next_job(argument, &task)) {
    if (task.store != NULL) wasmtime.store_delete(task.store);
    if (task.cells == NULL) continue;
    driver_make(task.cells, task.of);
    say_made(argument, task.cells);
  }
  return NULL;
}

EXPORT maker *driver_start_maker(void) {
  maker *self = calloc(1, sizeof *self);
  if (self == NULL) return NULL;
  pthread_mutex_init(&self->lock, NULL);
  pthread_cond_init(&self->asked, NULL);
  pthread_cond_init(&self->made, NULL);
  if (pthread_create(&self->thread, NULL, work, self) == 0) return self;
  free(self);
  return NULL;
}

// Does all that it was asked to, and ends.
EXPORT void driver_stop_maker(maker *self) {
  pthread_mutex_lock(&self->lock);
  self->is_closing = true;
  pthread_cond_signal(&self->asked);
  pthread_mutex_unlock(&self->lock);
  pthread_join(self->thread, NULL);
  free(self);
}

static bool ask(maker *self, job task) {
  pthread_mutex_lock(&self->lock);
  bool has_room = self->count < MOST_JOBS;
  if (has_room) {
    if (task.cells != NULL) atomic_store(&task.cells->state, QUEUED);
    self->jobs[(self->first + self->count++) % MOST_JOBS] = task;
  }
  bool is_asleep = self->is_asleep;
  self->is_asleep = false; // one signal wakes it
  pthread_mutex_unlock(&self->lock);
  if (is_asleep) pthread_cond_signal(&self->asked);
  return has_room;
}

// False if it has too much to do already. The recipe must outlive the making, and the cells, too.
EXPORT bool driver_ask_to_make(maker *self, head *cells, const recipe *of) {
  return ask(self, (job){.cells = cells, .of = of});
}

// Whether a sandbox that was asked for is made: then its cells may be read.
EXPORT bool driver_is_made(const head *cells) { return atomic_load(&cells->state) == MADE; }

EXPORT bool driver_ask_to_end(maker *self, void *store) { return ask(self, (job){.store = store}); }

static bool take_back(maker *self, const head *cells) {
  bool is_found = false;
  pthread_mutex_lock(&self->lock);
  for (size_t i = 0; i < self->count && !is_found; i++) {
    job *task = &self->jobs[(self->first + i) % MOST_JOBS];
    is_found = task->cells == cells;
    if (is_found) *task = (job){0};
  }
  pthread_mutex_unlock(&self->lock);
  return is_found;
}

// Whether a sandbox that was asked for is made. What has not been begun is made here; what has is not waited for, as
// the maker may stand still on a busy machine.
EXPORT bool driver_hurry(maker *self, head *cells, const recipe *of) {
  if (atomic_load(&cells->state) == QUEUED && take_back(self, cells)) {
    driver_make(cells, of);
    atomic_store(&cells->state, MADE);
  }
  return atomic_load(&cells->state) == MADE;
}

// Returns when it is made.
EXPORT void driver_await(maker *self, head *cells, const recipe *of) {
  if (driver_hurry(self, cells, of)) return;
  for (int i = 0; i < SPINS; i++)
    if (atomic_load(&cells->state) == MADE) return;
  pthread_mutex_lock(&self->lock);
  self->waiting++;
  while (atomic_load(&cells->state) != MADE) pthread_cond_wait(&self->made, &self->lock);
  self->waiting--;
  pthread_mutex_unlock(&self->lock);
}

// The epoch clock: a thread that ticks while guests run, and sleeps otherwise.

enum { IDLE_TICKS = 20 };

typedef struct {
  _Atomic uint32_t is_wanted; // written by Python, before every poll
  _Atomic uint32_t is_idle;   // read by Python, after that
  _Atomic uint32_t ticks;     // so far
  void *engine;
  int64_t tick_nanoseconds;
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  bool is_closing, is_woken;
} ticker;

static void rest(ticker *self) {
  // Python's stores are not ordered before its loads, but each is seen long before another tick has passed: who
  // has read that the clock runs, has it see in the second look that it is wanted.
  struct timespec tick = {.tv_nsec = self->tick_nanoseconds};
  atomic_store(&self->is_idle, 1);
  nanosleep(&tick, NULL);
  pthread_mutex_lock(&self->lock);
  while (!self->is_woken && !self->is_closing && !atomic_load(&self->is_wanted))
    pthread_cond_wait(&self->wake, &self->lock);
  self->is_woken = false;
  pthread_mutex_unlock(&self->lock);
  atomic_store(&self->is_idle, 0);
}

static bool is_closing(ticker *self) {
  pthread_mutex_lock(&self->lock);
  bool is_closing = self->is_closing;
  pthread_mutex_unlock(&self->lock);
  return is_closing;
}

static void *tick(void *argument) {
  ticker *self = argument;
  struct timespec tick = {.tv_nsec = self->tick_nanoseconds};
  for (int quiet = 0; !is_closing(self);) {
    nanosleep(&tick, NULL);
    wasmtime.increment_epoch(self->engine);
    atomic_fetch_add(&self->ticks, 1);
    quiet = atomic_exchange(&self->is_wanted, 0) ? 0 : quiet + 1;
    if (quiet < IDLE_TICKS) continue;
    rest(self);
    quiet = 0;
  }
  return NULL;
}

EXPORT ticker *driver_start_ticker(void *engine, int64_t tick_nanoseconds) {
  ticker *self = calloc(1, sizeof *self);
  if (self == NULL) return NULL;
  self->engine = engine;
  self->tick_nanoseconds = tick_nanoseconds;
  pthread_mutex_init(&self->lock, NULL);
  pthread_cond_init(&self->wake, NULL);
  if (pthread_create(&self->thread, NULL, tick, self) == 0) return self;
  free(self);
  return NULL;
}

static void wake(ticker *self, bool closing) {
  pthread_mutex_lock(&self->lock);
  self->is_woken = true;
  self->is_closing |= closing;
  pthread_cond_signal(&self->wake);
  pthread_mutex_unlock(&self->lock);
}

EXPORT void driver_wake_ticker(ticker *self) { wake(self, false); }

// Returns when its thread has ended, a tick or two later.
EXPORT void driver_stop_ticker(ticker *self) {
  wake(self, true);
  pthread_join(self->thread, NULL);
  free(self);
}
