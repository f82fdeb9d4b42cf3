// The engine's native helper: what Python would ask of wasmtime's C API call by call, in one call; a thread that
// makes and ends sandboxes beside the one on which Python runs; shelves of sandboxes that serve a call each, round
// and round, without Python's having an object for them; and the epoch clock, which never asks for the GIL.
//
// It holds no state but that of the threads and shelves that it was asked for, knows nothing of Python and links
// with nothing but libc: the functions of wasmtime that it calls are handed to it by their addresses, the layout of
// the cells by its offsets (`driver_begin`).
//
// The cells of a sandbox are where wasmtime writes to. They begin with a `head`; while its `state` is QUEUED or
// MAKING they are the maker's, else of whoever has the shelf or was given them.

#include "driver.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

api wasmtime;
layout at;

typedef enum { IDLE, QUEUED, MAKING, MADE, USED } sandbox_state;

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

// What the guest has answered early.
EXPORT void driver_forget_answer(head *cells) {
  if (cells->answer.text.data == NULL) return;
  wasmtime.value_delete(&cells->answer);
  cells->answer = (text_value){0};
}

EXPORT head *driver_new_cells(void) { return calloc(1, at.size); }

// Whatever it has come to.
static void end(head *cells) {
  void **error = place(cells, at.error);
  if (cells->fiber != NULL) wasmtime.future_delete(cells->fiber);
  if (*error != NULL) wasmtime.error_delete(*error);
  driver_free_result(cells);
  driver_forget_answer(cells);
  if (cells->store != NULL) wasmtime.store_delete(cells->store);
  *error = cells->fiber = cells->store = NULL;
}

void end_and_free(head *cells) {
  end(cells);
  free(cells);
}

// In the place of the one that was there, if one was.
void make_anew(head *cells, const recipe *of) {
  end(cells);
  driver_make(cells, of);
}

// `results` is 0 or 1.
EXPORT bool driver_call(head *cells, void *export, const void *arguments, size_t count, size_t results,
                        uint64_t ticks) {
  void *function = place(cells, at.function);
  driver_free_result(cells);
  driver_forget_answer(cells);
  if (!wasmtime.get_func(place(cells, at.instance), cells->context, export, function)) abort();
  cells->fiber = wasmtime.call_async(function, cells->context, arguments, count, place(cells, at.result), results,
                                     place(cells, at.error));
  bool has_ended = run(cells, ticks);
  cells->has_result = has_ended ? results : 0;
  return has_ended;
}

// The maker: a thread that makes sandboxes and ends them, in the order in which it was asked to. Without a thread it
// takes no jobs: then who asks does the work.

typedef struct {
  head *cells;      // NULL: somebody else has done it
  const recipe *of; // NULL: it is only to be ended
  batch *batch;     // instead of a sandbox: calls to be made
} job;

enum { MOST_JOBS = 1 << 12, SPINS = 2000 };

typedef struct {
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t asked, made;
  bool has_thread, is_closing, is_asleep;
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
    if (task->of != NULL) atomic_store(&task->cells->state, MAKING);
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
    if (task.batch != NULL) batch_run(task.batch);
    if (task.cells == NULL) continue;
    if (task.of == NULL) {
      end_and_free(task.cells);
      continue;
    }
    make_anew(task.cells, task.of);
    say_made(argument, task.cells);
  }
  return NULL;
}

EXPORT maker *driver_start_maker(bool has_thread) {
  maker *self = calloc(1, sizeof *self);
  if (self == NULL) return NULL;
  pthread_mutex_init(&self->lock, NULL);
  pthread_cond_init(&self->asked, NULL);
  pthread_cond_init(&self->made, NULL);
  self->has_thread = has_thread;
  if (!has_thread || pthread_create(&self->thread, NULL, work, self) == 0) return self;
  free(self);
  return NULL;
}

// Does all that it was asked to, and ends.
EXPORT void driver_stop_maker(maker *self) {
  pthread_mutex_lock(&self->lock);
  self->is_closing = true;
  pthread_cond_signal(&self->asked);
  pthread_mutex_unlock(&self->lock);
  if (self->has_thread) pthread_join(self->thread, NULL);
  free(self);
}

// How many of the jobs it takes: not all if it has too much to do already.
static size_t ask_all(maker *self, const job *tasks, size_t count) {
  size_t taken = 0;
  if (!self->has_thread) return 0;
  pthread_mutex_lock(&self->lock);
  for (; taken < count && self->count < MOST_JOBS; taken++) {
    if (tasks[taken].of != NULL) atomic_store(&tasks[taken].cells->state, QUEUED);
    self->jobs[(self->first + self->count++) % MOST_JOBS] = tasks[taken];
  }
  bool is_asleep = self->is_asleep && taken > 0;
  if (is_asleep) self->is_asleep = false; // one signal wakes it
  pthread_mutex_unlock(&self->lock);
  if (is_asleep) pthread_cond_signal(&self->asked);
  return taken;
}

static bool ask(maker *self, job task) { return ask_all(self, &task, 1) == 1; }

// Nobody may look at the cells any more.
EXPORT void driver_end(maker *self, head *cells) {
  if (!ask(self, (job){.cells = cells})) end_and_free(cells);
}

// False: it has too much to do, or no thread.
EXPORT bool driver_begin_batch(maker *self, batch *calls) { return ask(self, (job){.batch = calls}); }

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

static void await_made(maker *self, head *cells) {
  for (int i = 0; i < SPINS; i++)
    if (atomic_load(&cells->state) == MADE) return;
  pthread_mutex_lock(&self->lock);
  self->waiting++;
  while (atomic_load(&cells->state) != MADE) pthread_cond_wait(&self->made, &self->lock);
  self->waiting--;
  pthread_mutex_unlock(&self->lock);
}

// The epoch clock: a thread that ticks while guests run, and rests otherwise. Who notes that a guest is to run may be
// kept from running himself, until the clock rests again: for his guest the epoch leaps forward now and then.

enum { IDLE_TICKS = 20 }; // more than any poll may take
enum { MOST_PAUSE_TICKS = 1000 };

struct ticker {
  _Atomic uint32_t is_wanted; // written by Python, before every poll
  _Atomic uint32_t is_idle;   // read by Python, after that
  _Atomic uint32_t ticks;     // so far
  void *engine;
  int64_t tick_nanoseconds;
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  bool is_closing, is_woken;
};

static struct timespec after(int64_t nanoseconds) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  nanoseconds += time.tv_nsec;
  return (struct timespec){.tv_sec = time.tv_sec + nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
}

static void rest(ticker *self) {
  // Python's stores are not ordered before its loads, but each is seen long before another tick has passed: who
  // has read that the clock runs, has it see in the second look that it is wanted.
  struct timespec tick = {.tv_nsec = self->tick_nanoseconds};
  atomic_store(&self->is_idle, 1);
  nanosleep(&tick, NULL);
  pthread_mutex_lock(&self->lock);
  for (int pause = IDLE_TICKS; !self->is_woken && !self->is_closing && !atomic_load(&self->is_wanted);) {
    struct timespec end = after(pause * self->tick_nanoseconds);
    if (pthread_cond_timedwait(&self->wake, &self->lock, &end) != ETIMEDOUT) continue;
    for (int i = 0; i < IDLE_TICKS; i++) wasmtime.increment_epoch(self->engine);
    if (pause < MOST_PAUSE_TICKS) pause *= 2;
  }
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
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&self->wake, &monotonic);
  pthread_condattr_destroy(&monotonic);
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

// Before every poll, as Python does.
void note(ticker *self) {
  atomic_store(&self->is_wanted, 1);
  if (atomic_load(&self->is_idle)) wake(self, false);
}

// Returns when its thread has ended, a tick or two later.
EXPORT void driver_stop_ticker(ticker *self) {
  wake(self, true);
  pthread_join(self->thread, NULL);
  free(self);
}

// A shelf: sandboxes of one component that have been made ahead. Each serves one call; then it is ended and made
// anew, by the maker, in the same cells. It belongs to one thread.

enum { MOST_VALUE_BYTES = 32 };
enum { MOST_USED = 8 }; // that wait to be ended: so few have the maker woken for

typedef struct {
  head *given;      // the sandbox that the last call is about
  const char *text; // what it answered
  uint64_t size;
  uint64_t served; // calls that needed nothing but C
  uint8_t result[MOST_VALUE_BYTES]; // a copy of the value that the last call gave; its parts are in the sandbox
  maker *maker;
  const recipe *of;
  ticker *clock;
  uint32_t capacity, first, count;
  uint32_t used; // the last ones are
  head *cells[];
} shelf;

EXPORT shelf *driver_new_shelf(maker *maker, const recipe *of, ticker *clock, uint32_t capacity) {
  shelf *self = calloc(1, sizeof *self + capacity * sizeof *self->cells);
  if (self == NULL) return NULL;
  self->maker = maker;
  self->of = of;
  self->clock = clock;
  self->capacity = capacity;
  return self;
}

static head **nth(shelf *self, uint32_t n) { return &self->cells[(self->first + n) % self->capacity]; }

static head *pop(shelf *self) {
  head *cells = *nth(self, 0);
  self->first = (self->first + 1) % self->capacity;
  self->count--;
  return cells;
}

static void push(shelf *self, head *cells) { *nth(self, self->count++) = cells; }

// Has those that have served a call ended and made anew.
static void refresh(shelf *self) {
  while (self->used > 0) {
    job tasks[MOST_USED];
    uint32_t count = self->used < MOST_USED ? self->used : MOST_USED;
    for (uint32_t i = 0; i < count; i++) tasks[i] = (job){.cells = *nth(self, self->count - self->used + i), .of = self->of};
    self->used -= count;
    for (size_t i = ask_all(self->maker, tasks, count); i < count; i++) atomic_store(&tasks[i].cells->state, IDLE);
  }
}

// One more sandbox; false if there is no place for it. Its start may run guest code: the clock must be told before.
EXPORT bool driver_stock(shelf *self) {
  head *cells = self->count < self->capacity ? driver_new_cells() : NULL;
  if (cells == NULL) return false;
  refresh(self);
  cells->shelf = self;
  push(self, cells);
  ask(self->maker, (job){.cells = cells, .of = self->of}); // else it is IDLE, and made when it is needed
  return true;
}

EXPORT uint32_t driver_stocked(const shelf *self) { return self->count; }

bool is_clean(head *cells) {
  return cells->fiber == NULL && *(void **)place(cells, at.error) == NULL && !cells->is_taken;
}

// Whether it is made by now: here, if nobody has begun to. What the maker has begun is not waited for, as that may
// stand still on a busy machine.
static bool is_there(shelf *self, head *cells) {
  uint32_t state = atomic_load(&cells->state);
  if (state == IDLE || (state == QUEUED && take_back(self->maker, cells))) {
    make_anew(cells, self->of);
    atomic_store(&cells->state, MADE);
  }
  return atomic_load(&cells->state) == MADE;
}

// Makes sandboxes here that nobody else does, so many at the most: whether others are left to be made so.
static bool make_ready(shelf *self, uint32_t most) {
  note(self->clock);
  for (uint32_t i = 0; i < self->count - self->used; i++) {
    head *cells = *nth(self, i);
    if (atomic_load(&cells->state) != IDLE) continue;
    if (most-- == 0) return true;
    if (!is_there(self, cells) || !is_clean(cells)) return false; // a slow start: let the others wait for calls
  }
  return false;
}

// After the answers of calls: has those that have served one made anew, here so many at the most. One alone is made
// here also if the maker has a thread: waking that costs more. Whether others are left to be made here.
EXPORT bool driver_tidy(shelf *self, uint32_t most) {
  if (self->maker->has_thread && self->used > 1) {
    refresh(self);
    return false;
  }
  for (; self->used > 0; self->used--) atomic_store(&(*nth(self, self->count - self->used))->state, IDLE);
  return make_ready(self, most);
}

static head *take(shelf *self) {
  if (self->count == 0) return NULL;
  if (atomic_load(&(*nth(self, 0))->state) != MADE) refresh(self);
  for (uint32_t left = self->count - self->used; left > 0; left--) {
    head *cells = pop(self);
    if (is_there(self, cells)) return cells;
    push(self, cells);
  }
  return NULL;
}

// A sandbox for a call that Python drives; it is on the shelf no more.
EXPORT head *driver_take(shelf *self) {
  note(self->clock);
  return self->given = take(self);
}

// The sandbox in which the last call was DONE; it is on the shelf no more.
EXPORT head *driver_keep_last(shelf *self) {
  self->used--;
  self->served--;
  return *nth(self, --self->count);
}

// Any sandbox, to be ended: of those that the maker is busy with only if `waits`. NULL if there is none.
EXPORT head *driver_withdraw(shelf *self, bool waits) {
  for (uint32_t left = self->count; left > 0; left--) {
    head *cells = pop(self);
    if (self->used > self->count) self->used = self->count;
    uint32_t state = atomic_load(&cells->state);
    if (state == QUEUED && take_back(self->maker, cells)) return cells;
    if (waits && (state == QUEUED || state == MAKING)) await_made(self->maker, cells);
    state = atomic_load(&cells->state);
    if (state != QUEUED && state != MAKING) return cells;
    refresh(self);
    push(self, cells);
  }
  return NULL;
}

// It must be empty.
EXPORT void driver_free_shelf(shelf *self) { free(self); }

// A function, as a shelf serves calls of it.
typedef struct {
  shelf *shelf;
  void *export;
  uint64_t count, results;
} service;

static outcome serve(const service *what, const void *arguments) {
  shelf *self = what->shelf;
  head *cells = self->given;
  size_t results = what->results;
  if (!driver_call(cells, what->export, arguments, what->count, results, self->of->ticks) || !is_clean(cells))
    return UNDER_WAY;
  atomic_store(&cells->state, USED);
  push(self, cells);
  self->used++;
  self->served++;
  if (results) memcpy(self->result, place(cells, at.result), at.value_size);
  return DONE;
}

static outcome next_sandbox(shelf *self) {
  note(self->clock);
  if (self->used >= MOST_USED) refresh(self);
  self->given = take(self);
  if (self->given == NULL) return NONE;
  return is_clean(self->given) ? DONE : BADLY_MADE;
}

// One call in a sandbox of the shelf. DONE: its result is in the cells of the one that was given, until the next
// call. UNDER_WAY: the guest waits for the host, has used up its ticks or failed, and BADLY_MADE: its start has; then
// the sandbox is Python's. NONE: there is none yet.
EXPORT uint32_t driver_serve(const service *what, const void *arguments) {
  outcome found = next_sandbox(what->shelf);
  return found == DONE ? serve(what, arguments) : found;
}

// The same for a function from text to text. The text must be kept until the call has ended.
EXPORT uint32_t driver_ask(const service *what, const char *text, size_t size) {
  shelf *self = what->shelf;
  outcome found = next_sandbox(self);
  if (found != DONE) return found;
  text_value *argument = place(self->given, at.argument);
  *argument = (text_value){at.text_kind, {size, (uint8_t *)text}};
  found = serve(what, argument);
  const text_value *result = self->given->answer.text.data ? &self->given->answer : place(self->given, at.result);
  self->text = (const char *)result->text.data;
  self->size = result->text.size;
  return found;
}
