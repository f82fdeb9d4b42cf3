// A command with something to try of whatever runs it: `tool WORD [ARGUMENT]`.
//
//   cat            copies its input to its output
//   count          says how many bytes its input had
//   fill BYTES     writes so many bytes
//   both           writes to the output and to the error
//   exit CODE      ends with that code
//   abort | spin   traps; computes for ever
//   sleep MS       sleeps
//   grow MIB       allocates and touches so much memory
//   write PATH     writes its input to a file
//   read PATH      writes a file to its output
//   env NAME       prints a variable

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static char block[65536];

static long copy(FILE *from, FILE *to) {
  long copied = 0;
  size_t size;
  while ((size = fread(block, 1, sizeof block, from)) > 0) {
    if (to && fwrite(block, 1, size, to) != size) return -1;
    if (to) fflush(to);
    copied += (long)size;
  }
  return ferror(from) ? -1 : copied;
}

static int with_file(const char *path, const char *mode) {
  FILE *file = fopen(path, mode);
  if (!file) {
    perror(path);
    return 2;
  }
  long copied = *mode == 'w' ? copy(stdin, file) : copy(file, stdout);
  return fclose(file) == 0 && copied >= 0 ? 0 : 1;
}

static int fill(long bytes) {
  memset(block, 'x', sizeof block);
  while (bytes > 0) {
    size_t size = bytes < (long)sizeof block ? (size_t)bytes : sizeof block;
    if (fwrite(block, 1, size, stdout) != size) return 1;
    bytes -= (long)size;
  }
  return 0;
}

static int grow(long mebibytes) {
  for (long i = 0; i < mebibytes; i++) {
    char *volatile memory = malloc(1 << 20);
    if (!memory) {
      fprintf(stderr, "no memory after %ld MiB\n", i);
      return 9;
    }
    memset(memory, 1, 1 << 20);
  }
  return 0;
}

static void sleep_ms(long milliseconds) {
  struct timespec span = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
  nanosleep(&span, NULL);
}

int main(int argc, char **argv) {
  const char *word = argc > 1 ? argv[1] : "", *argument = argc > 2 ? argv[2] : "";
  volatile unsigned long rounds = 0;
  if (!strcmp(word, "cat")) return copy(stdin, stdout) < 0;
  if (!strcmp(word, "count")) return printf("%ld\n", copy(stdin, NULL)) < 0;
  if (!strcmp(word, "fill")) return fill(atol(argument));
  if (!strcmp(word, "both")) return fputs("to the output\n", stdout) < 0 || fputs("to the error\n", stderr) < 0;
  if (!strcmp(word, "exit")) exit(atoi(argument));
  if (!strcmp(word, "abort")) abort();
  if (!strcmp(word, "grow")) return grow(atol(argument));
  if (!strcmp(word, "write")) return with_file(argument, "w");
  if (!strcmp(word, "read")) return with_file(argument, "r");
  if (!strcmp(word, "sleep")) {
    puts("sleeping");
    fflush(stdout);
    sleep_ms(atol(argument));
    return 0;
  }
  if (!strcmp(word, "spin")) {
    puts("spinning");
    fflush(stdout);
    for (;;) rounds++;
  }
  if (!strcmp(word, "env")) {
    const char *value = getenv(argument);
    return value ? puts(value) < 0 : 1;
  }
  fprintf(stderr, "usage: %s cat|count|fill|both|exit|abort|spin|sleep|grow|write|read|env [ARGUMENT]\n", argv[0]);
  return 64;
}
