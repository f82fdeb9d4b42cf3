// A command: says what it was given, sleeps, and says how long that took.
// HELLO_SLEEP_MS: how long to sleep (100). HELLO_EXIT: the exit code (0); WASI 0.2 tells only whether it is 0.

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

extern char **environ;

static int number(const char *name, int otherwise) {
  const char *text = getenv(name);
  return text ? atoi(text) : otherwise;
}

static double now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static void sleep_ms(int milliseconds) {
  struct timespec span = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
  nanosleep(&span, NULL);
}

int main(int argc, char **argv) {
  for (int i = 0; i < argc; i++) printf("argument %d: %s\n", i, argv[i]);
  for (char **entry = environ; entry && *entry; entry++) printf("environment: %s\n", *entry);
  printf("time: %s\n", time(NULL) > 1700000000 ? "plausible" : "wrong");
  fflush(stdout);

  double start = now_ms();
  sleep_ms(number("HELLO_SLEEP_MS", 100));
  fprintf(stderr, "slept %.0f ms\n", now_ms() - start);
  return number("HELLO_EXIT", 0);
}
