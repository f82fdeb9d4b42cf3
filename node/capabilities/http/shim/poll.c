// wasi:io/poll: waiting, for one thing or for several at a time.

#include "shim.h"

RESOURCE(POLL, "pollable", pollable)

typedef struct {
  object object;
  pollable_kind kind;
  struct object *of;
  uint64_t deadline;
} pollable;

handle new_pollable(pollable_kind kind, object *parent, uint64_t deadline) {
  pollable *made = arena_allocate(sizeof *made);
  made->kind = kind;
  made->of = parent;
  made->deadline = deadline;
  adopt(&made->object, parent);
  return pollable_handle(made);
}

static bool is_ready(pollable *pollable) {
  switch (pollable->kind) {
    case INPUT: return input_is_ready((input *)pollable->of);
    case OUTPUT: return output_is_ready((output *)pollable->of);
    case FETCH: return fetch_is_ready((fetch *)pollable->of);
    case TIMER: return false; // the caller looks at the clock, once for all timers
    default: return true;
  }
}

static void put_line(writer *to, const pollable *pollable) {
  switch (pollable->kind) {
    case INPUT:
      put_byte(to, 'r');
      put_number(to, ((input *)pollable->of)->channel);
      break;
    case OUTPUT:
      put_byte(to, 'w');
      put_number(to, ((output *)pollable->of)->channel);
      break;
    case FETCH:
      put_byte(to, 'f');
      put_number(to, ((fetch *)pollable->of)->channel);
      break;
    default:
      put_byte(to, 't');
      put_number(to, pollable->deadline);
  }
  put_byte(to, '\n');
}

// Ask the host to wait; the answer has the numbers of those that are ready, a line each.
static bytes wait(pollable **list, size_t count) {
  before_waiting();
  writer question = write_text(2 + count * (2 + NUMBER_SIZE));
  put_byte(&question, 'p');
  for (size_t i = 0; i < count; i++) put_line(&question, list[i]);
  return ask_host(written(&question));
}

// The numbers of those that are ready without waiting.
static size_t find_ready(pollable **list, size_t count, uint32_t *found) {
  size_t ready = 0;
  uint64_t now = 0;
  bool has_timer = false;
  for (size_t i = 0; i < count; i++) {
    has_timer |= list[i]->kind == TIMER;
    ready += is_ready(list[i]);
  }
  if (ready == 0) return 0;
  if (has_timer) now = monotonic_now(); // else a timer would starve behind what is always ready
  ready = 0;
  for (size_t i = 0; i < count; i++)
    if (list[i]->kind == TIMER ? list[i]->deadline <= now : is_ready(list[i])) found[ready++] = i;
  return ready;
}

EXPORT(POLL, "poll") result_area *poll(pollable **list, size_t count) {
  if (count == 0) fault("it polled an empty list");
  uint32_t *found = scratch_allocate(count * sizeof *found);
  size_t ready = find_ready(list, count, found);
  if (ready == 0) {
    bytes answer = wait(list, count);
    while (answer.length > 0 && ready < count) found[ready++] = parse_number(next_line(&answer));
  }
  return give_bytes((bytes){(uint8_t *)found, ready});
}

EXPORT(POLL, "[method]pollable.ready") uint32_t pollable_ready(pollable *pollable) {
  bool ready = pollable->kind == TIMER ? pollable->deadline <= monotonic_now() : is_ready(pollable);
  scratch_release();
  return ready;
}

EXPORT(POLL, "[method]pollable.block") void pollable_block(pollable *pollable) {
  if (!is_ready(pollable)) wait(&pollable, 1);
  scratch_release();
}

// Inside a guest that also waits for what the host made handles of: the host looks at both kinds, and waits for either.
#ifdef INSIDE

extern void host_wait(const uint8_t *question, size_t length, const handle *theirs, size_t their_count, bytes *answer)
    __attribute__((import_module("host"), import_name("wait")));

static const pollable ready_now = {.kind = TIMER, .deadline = 0};

// The numbers of those that are ready, ours before theirs; without waiting, maybe none.
static bytes ask_for_both(bool may_wait, pollable **ours, size_t count, const handle *theirs, size_t their_count) {
  writer question = write_text(1 + count * (2 + NUMBER_SIZE));
  put_byte(&question, may_wait ? 'p' : 'P');
  for (size_t i = 0; i < count; i++) put_line(&question, is_ready(ours[i]) ? &ready_now : ours[i]);
  bytes answer, text = written(&question);
  host_wait(text.data, text.length, theirs, their_count, &answer);
  return answer;
}

EXPORT("lattice:shim/control", "poll-both")
result_area *poll_both(pollable **ours, size_t count, const handle *theirs, size_t their_count) {
  bytes answer = ask_for_both(false, ours, count, theirs, their_count);
  if (answer.length == 0) {
    before_waiting();
    answer = ask_for_both(true, ours, count, theirs, their_count);
  }
  uint32_t *found = scratch_allocate((count + their_count) * sizeof *found);
  size_t ready = 0;
  while (answer.length > 0 && ready < count + their_count) found[ready++] = parse_number(next_line(&answer));
  return give_bytes((bytes){(uint8_t *)found, ready});
}

EXPORT("lattice:shim/control", "block-theirs") void block_theirs(handle theirs) {
  poll_both(NULL, 0, &theirs, 1);
  scratch_release();
}

EXPORT("lattice:shim/control", "before-waiting") void before_waiting_of_host(void) {
  before_waiting();
  scratch_release();
}

#endif
