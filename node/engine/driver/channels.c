// Channels: streams of bytes between the event loop and a guest. What the guest asks of one (`r`, `w` and their like:
// node/capabilities/http/shim/host.c) is answered here, on its fiber's stack, as long as there is something to read, or
// room to write; all else is Python's. So a part costs neither an object of Python's nor the GIL.
//
// At one end of a channel is a guest, on any thread, at the other the event loop. A guest that runs on a thread which
// may be kept waits here for the loop, for a moment; the loop, which may not, has a bell rung for it.

#include "driver.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MOST_PART = 1 << 16, LEAST_PIECE = 4096, BATCH = 1 << 16, PATIENCE_NANOSECONDS = 1000000 };
enum { READ_SIZE = 1 << 17, MOST_PIECES = 16 }; // of a socket

typedef struct piece {
  struct piece *next;
  size_t start, end, capacity;
  uint8_t data[];
} piece;

typedef enum { UNWATCHED, FOR_DATA, FOR_ROOM } watch;

typedef struct channel {
  _Atomic uint64_t size; // of what waits; read by Python
  loan socket;           // read by Python when it has ended
  struct bell *bell;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  piece *first, *last;
  uint64_t window; // when so much waits there is no room
  watch watched;
  uint32_t waiting; // threads
  bool is_closed;   // from now on only Python answers
  bool has_rung;    // is in the list of the bell
  struct channel *next_rung;
  // In the list of a sandbox:
  uint32_t number;
  bool is_input;
  struct channel *next;
} channel;

// What tells an event loop that something has happened: a file descriptor becomes readable.
typedef struct bell {
  pthread_mutex_t lock;
  channel *first;
  int descriptor;
  _Atomic uint32_t owners; // Python's object, and each channel: they may go in any order
} bell;

EXPORT bell *driver_new_bell(int descriptor) {
  bell *self = calloc(1, sizeof *self);
  if (self == NULL) return NULL;
  pthread_mutex_init(&self->lock, NULL);
  self->descriptor = descriptor;
  self->owners = 1;
  return self;
}

EXPORT void driver_mute_bell(bell *self) { self->descriptor = -1; }

EXPORT void driver_free_bell(bell *self) {
  if (atomic_fetch_sub(&self->owners, 1) == 1) free(self);
}

static void ring(channel *for_whom) {
  bell *self = for_whom->bell;
  pthread_mutex_lock(&self->lock);
  bool is_silent = self->first == NULL;
  if (!for_whom->has_rung) {
    for_whom->has_rung = true;
    for_whom->next_rung = self->first;
    self->first = for_whom;
  }
  pthread_mutex_unlock(&self->lock);
  uint64_t one = 1;
  if (is_silent && write(self->descriptor, &one, sizeof one) < 0) return; // it has been rung already, then
}

// One for which it was rung, or NULL.
EXPORT channel *driver_rung(bell *self) {
  pthread_mutex_lock(&self->lock);
  channel *found = self->first;
  if (found != NULL) {
    self->first = found->next_rung;
    found->has_rung = false;
  }
  pthread_mutex_unlock(&self->lock);
  return found;
}

static void silence(channel *self) {
  pthread_mutex_lock(&self->bell->lock);
  for (channel **at = &self->bell->first; *at != NULL; at = &(*at)->next_rung) {
    if (*at != self) continue;
    *at = self->next_rung;
    break;
  }
  pthread_mutex_unlock(&self->bell->lock);
}

EXPORT channel *driver_new_channel(bell *bell, uint64_t window) {
  channel *self = calloc(1, sizeof *self);
  if (self == NULL) return NULL;
  pthread_condattr_t clock;
  pthread_condattr_init(&clock);
  pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
  pthread_cond_init(&self->changed, &clock);
  pthread_mutex_init(&self->lock, NULL);
  loan_end(&self->socket);
  self->bell = bell;
  atomic_fetch_add(&bell->owners, 1);
  self->window = window;
  return self;
}

static void drop_first(channel *self) {
  piece *first = self->first;
  self->first = first->next;
  if (self->first == NULL) self->last = NULL;
  free(first);
}

// Both ends may use it at any time until it is freed; it must be in no list then.
EXPORT void driver_free_channel(channel *self) {
  silence(self);
  driver_free_bell(self->bell);
  while (self->first != NULL) drop_first(self);
  free(self);
}

static bool is_lent(const channel *self) { return self->socket.descriptor >= 0; }

static bool is_as_watched(const channel *self) {
  if (is_lent(self)) return false; // it is nobody else's
  return (self->watched == FOR_DATA && self->size > 0) || (self->watched == FOR_ROOM && self->size * 2 <= self->window);
}

// Have the bell rung when there is something to take, or room again: true if there is now, and it won't be.
EXPORT bool driver_watch(channel *self, uint32_t for_what) {
  pthread_mutex_lock(&self->lock);
  self->watched = for_what;
  bool is_so = is_as_watched(self);
  if (is_so) self->watched = UNWATCHED;
  pthread_mutex_unlock(&self->lock);
  return is_so;
}

// After the guest's end has changed something, with the lock, which is given back. A guest that goes on writing is not
// disturbed for each part: if it stops, what there is is told of.
static void unlock_and_tell(channel *self, bool goes_on) {
  bool is_told = is_as_watched(self) && !(goes_on && self->watched == FOR_DATA && self->size < BATCH);
  if (is_told) self->watched = UNWATCHED;
  pthread_mutex_unlock(&self->lock);
  if (is_told) ring(self);
}

// After the loop's end has.
static void unlock_and_wake(channel *self) {
  bool is_awaited = self->waiting > 0;
  pthread_mutex_unlock(&self->lock);
  if (is_awaited) pthread_cond_broadcast(&self->changed);
}

static piece *new_piece(size_t capacity) {
  piece *self = malloc(sizeof *self + capacity);
  if (self != NULL) *self = (piece){.capacity = capacity};
  return self;
}

static void append(channel *self, piece *last) {
  if (self->last != NULL) self->last->next = last;
  if (self->first == NULL) self->first = last;
  self->last = last;
}

// Room for so many bytes at the end, which are said to be there; NULL without memory.
static uint8_t *extend(channel *self, size_t size) {
  piece *last = self->last;
  if (last == NULL || last->capacity - last->end < size) {
    last = new_piece(size > LEAST_PIECE ? size : LEAST_PIECE);
    if (last == NULL) return NULL;
    append(self, last);
  }
  last->end += size;
  self->size += size;
  return last->data + last->end - size;
}

static void consume(channel *self, size_t size) {
  self->first->start += size;
  self->size -= size;
  if (self->first->start == self->first->end) drop_first(self);
}

EXPORT bool driver_feed(channel *self, const uint8_t *data, size_t size) {
  pthread_mutex_lock(&self->lock);
  uint8_t *target = extend(self, size);
  if (target != NULL) memcpy(target, data, size);
  unlock_and_wake(self);
  return target != NULL;
}

// So many bytes, or fewer if no more wait; without a target they are dropped.
EXPORT size_t driver_take_bytes(channel *self, uint8_t *target, size_t most) {
  size_t taken = 0;
  pthread_mutex_lock(&self->lock);
  while (self->first != NULL && taken < most) {
    size_t size = self->first->end - self->first->start;
    if (size > most - taken) size = most - taken;
    if (target != NULL) memcpy(target + taken, self->first->data + self->first->start, size);
    consume(self, size);
    taken += size;
  }
  unlock_and_wake(self);
  return taken;
}

EXPORT void driver_close_channel(channel *self) {
  pthread_mutex_lock(&self->lock);
  self->is_closed = true;
  unlock_and_wake(self);
}

// Sockets that are lent

// A socket that nobody else uses until it is recalled: what the guest reads comes from there, `length` bytes at the
// most, or what it writes goes there.
EXPORT void driver_lend(channel *self, int descriptor, uint64_t length, bool is_chunked) {
  pthread_mutex_lock(&self->lock);
  loan_begin(&self->socket, descriptor, length, is_chunked);
  unlock_and_wake(self);
}

EXPORT void driver_recall(channel *self) {
  pthread_mutex_lock(&self->lock);
  loan_end(&self->socket);
  unlock_and_wake(self);
}

static void receive(channel *self) {
  piece *fresh = new_piece(READ_SIZE);
  if (fresh == NULL) return;
  fresh->end = loan_read(&self->socket, fresh->data, READ_SIZE);
  self->size += fresh->end;
  if (fresh->end > 0)
    append(self, fresh);
  else
    free(fresh);
}

static size_t send_some(channel *self) {
  struct iovec parts[MOST_PIECES + 2];
  size_t count = 0;
  for (const piece *each = self->first; each != NULL && count < MOST_PIECES; each = each->next)
    parts[++count] = (struct iovec){(void *)(each->data + each->start), each->end - each->start};
  size_t sent = loan_write(&self->socket, parts, count);
  for (size_t left = sent; left > 0;) {
    size_t size = self->first->end - self->first->start;
    if (size > left) size = left;
    consume(self, size);
    left -= size;
  }
  return sent;
}

// Move what can be moved now.
static void move(channel *self) {
  if (self->is_input)
    receive(self);
  else
    while (send_some(self) > 0) continue;
}

static void wait_for_socket(channel *self, bool (*is_hindered)(const channel *)) {
  move(self);
  if (!is_hindered(self) || self->socket.is_over || self->socket.left == 0) return;
  int descriptor = self->socket.descriptor;
  pthread_mutex_unlock(&self->lock);
  bool is_so = loan_wait(descriptor, self->is_input, PATIENCE_NANOSECONDS / 1000000);
  pthread_mutex_lock(&self->lock);
  if (is_so && is_lent(self)) move(self);
}

// The channels of a sandbox

// Its guest must not be running.
EXPORT void driver_join(head *cells, channel *self, uint32_t number, bool is_input) {
  self->number = number;
  self->is_input = is_input;
  self->next = cells->channels;
  cells->channels = self;
}

EXPORT void driver_part(head *cells) { cells->channels = NULL; }

// The guest has stopped, for now: tell of what it has written.
EXPORT void driver_tell(head *cells) {
  for (channel *each = cells->channels; each != NULL; each = each->next) {
    if (each->is_input) continue;
    pthread_mutex_lock(&each->lock);
    if (is_lent(each)) move(each);
    unlock_and_tell(each, false);
  }
}

// What the guest asks

static bool is_empty(const channel *self) { return self->size == 0; }
static bool is_full(const channel *self) { return self->size >= self->window; }

static void wait_for_loop(channel *self, bool (*is_so)(const channel *)) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_nsec += PATIENCE_NANOSECONDS;
  if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
  self->waiting++;
  while (!self->is_closed && !is_lent(self) && is_so(self) &&
         pthread_cond_timedwait(&self->changed, &self->lock, &until) == 0)
    continue;
  self->waiting--;
}

static void wait_while(channel *self, bool (*is_so)(const channel *)) {
  if (!is_lent(self)) wait_for_loop(self, is_so);
  if (is_lent(self) && is_so(self)) wait_for_socket(self, is_so);
}

// Lock it, if there is something to read or room: else false, after a moment if it may wait.
static bool is_ready(channel *self, head *cells, bool (*is_hindered)(const channel *)) {
  if (cells->may_wait && is_hindered(self)) driver_tell(cells);
  pthread_mutex_lock(&self->lock);
  if (cells->may_wait && is_hindered(self)) wait_while(self, is_hindered);
  if (!self->is_closed && !is_hindered(self)) return true;
  pthread_mutex_unlock(&self->lock);
  return false;
}

static bool give_part(channel *self, head *cells, text_value *answer) {
  if (!is_ready(self, cells, is_empty)) return false;
  const piece *first = self->first;
  size_t size = first->end - first->start < MOST_PART ? first->end - first->start : MOST_PART;
  byte_vector text;
  wasmtime.new_bytes(&text, 1 + packed_size(size));
  text.data[0] = 'd';
  driver_pack(first->data + first->start, size, text.data + 1);
  consume(self, size);
  unlock_and_tell(self, true);
  *answer = (text_value){at.text_kind, text};
  return true;
}

static bool take_part(channel *self, head *cells, const uint8_t *text, size_t size, text_value *answer) {
  if (!is_ready(self, cells, is_full)) return false;
  size_t length = unpacked_size(size);
  uint8_t *target = length > 0 ? extend(self, length) : NULL;
  if (target != NULL) driver_unpack(text, length, target);
  if (is_lent(self) && self->size >= BATCH) move(self);
  unlock_and_tell(self, true);
  if (target == NULL) return false;
  *answer = (text_value){.kind = at.text_kind};
  return true;
}

static channel *find(const head *cells, uint32_t number, bool is_input) {
  channel *found = cells->channels;
  while (found != NULL && (found->number != number || found->is_input != is_input)) found = found->next;
  return found;
}

// What the guest answers before its call is over; it may do so once.
static bool keep_answer(head *cells, text_value *text, text_value *answer) {
  if (cells->answer.text.data != NULL) return false;
  cells->answer = *text;
  text->text = (byte_vector){0}; // it belongs to the cells now
  *answer = (text_value){.kind = at.text_kind};
  return true;
}

// Whether the question was one for here, and is answered.
static bool answered(head *cells, text_value *question, text_value *answer) {
  const uint8_t *text = question->text.data, *end = text + question->text.size;
  if (cells == NULL || text == end) return false;
  uint8_t letter = *text++;
  if (letter == '=' || letter == 'x') return keep_answer(cells, question, answer);
  if (cells->channels == NULL) return false;
  bool is_read = letter == 'r' || letter == 'R';
  if (!is_read && letter != 'w' && letter != 'o') return false;
  uint32_t number = 0;
  while (text < end && *text >= '0' && *text <= '9') number = number * 10 + (*text++ - '0');
  channel *asked = find(cells, number, is_read);
  if (asked == NULL) return false;
  if (is_read) return give_part(asked, cells, answer);
  return text < end && *text == '\n' && take_part(asked, cells, text + 1, end - text - 1, answer);
}

// A host function from text to text, as wasmtime calls it

typedef struct {
  bool (*is_ready)(void *environment);
  void *environment;
  void (*finalizer)(void *environment);
} continuation;

typedef void host_call(void *environment, void *context, void *type, void *arguments, size_t count, void *results,
                       size_t result_count, void *error, continuation *next);

static host_call *python;

EXPORT void driver_answer_before(host_call *asked_else) { python = asked_else; }

static bool at_once(void *environment) {
  (void)environment;
  return true;
}

EXPORT void driver_on_question(void *environment, void *context, void *type, void *arguments, size_t count,
                               void *results, size_t result_count, void *error, continuation *next) {
  if (answered(wasmtime.context_data(context), arguments, results))
    *next = (continuation){.is_ready = at_once};
  else
    python(environment, context, type, arguments, count, results, result_count, error, next);
}
