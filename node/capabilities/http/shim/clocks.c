// wasi:clocks, by the host's clocks.

#include "shim.h"

#define MONOTONIC "wasi:clocks/monotonic-clock"
#define WALL "wasi:clocks/wall-clock"

static const uint64_t SECOND = 1000000000;

uint64_t monotonic_now(void) { return parse_number(ask_host(TEXT("m"))); }

static handle timer(uint64_t deadline) { return new_pollable(TIMER, NULL, deadline); }

EXPORT(MONOTONIC, "now") uint64_t clock_now(void) {
  uint64_t now = monotonic_now();
  scratch_release();
  return now;
}

EXPORT(MONOTONIC, "resolution") uint64_t clock_resolution(void) { return 1; }

EXPORT(MONOTONIC, "subscribe-instant") handle clock_subscribe_instant(uint64_t when) { return timer(when); }

EXPORT(MONOTONIC, "subscribe-duration") handle clock_subscribe_duration(uint64_t duration) {
  uint64_t now = monotonic_now();
  scratch_release();
  return timer(duration > UINT64_MAX - now ? UINT64_MAX : now + duration);
}

EXPORT(WALL, "now") result_area *wall_now(void) {
  uint64_t now = parse_number(ask_host(TEXT("y")));
  scratch_release();
  result.number[0] = now / SECOND;
  result.word[2] = (uint32_t)(now % SECOND);
  return &result;
}

EXPORT(WALL, "resolution") result_area *wall_resolution(void) {
  result.number[0] = 0;
  result.word[2] = 1;
  return &result;
}
