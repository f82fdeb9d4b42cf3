// wasi:cli, and the empty list of folders that wasi:filesystem/preopens has here.

#include "shim.h"

#define ENVIRONMENT "wasi:cli/environment"

RESOURCE("wasi:cli/terminal-input", "terminal-input", terminal_input)
RESOURCE("wasi:cli/terminal-output", "terminal-output", terminal_output)

static size_t count_parts(bytes text) {
  size_t count = 0;
  for (size_t i = 0; i < text.length; i++) count += text.data[i] == 0;
  return count;
}

// The host gives variables, name and value by turns, then an empty name, then arguments, each with a zero behind.
EXPORT(ENVIRONMENT, "get-environment") result_area *get_environment(void) {
  bytes text = ask_host(TEXT("v"));
  bytes *parts = scratch_allocate(count_parts(text) * sizeof(bytes));
  size_t count = 0;
  while (text.length > 0) {
    bytes name = next_part(&text, 0);
    if (name.length == 0) break;
    parts[count++] = name;
    parts[count++] = next_part(&text, 0);
  }
  return give_bytes((bytes){(uint8_t *)parts, count / 2});
}

EXPORT(ENVIRONMENT, "get-arguments") result_area *get_arguments(void) {
  bytes text = ask_host(TEXT("v"));
  bytes *parts = scratch_allocate(count_parts(text) * sizeof(bytes));
  size_t count = 0;
  while (text.length > 0 && next_part(&text, 0).length > 0) next_part(&text, 0);
  while (text.length > 0) parts[count++] = next_part(&text, 0);
  return give_bytes((bytes){(uint8_t *)parts, count});
}

EXPORT(ENVIRONMENT, "initial-cwd") result_area *initial_cwd(void) { return give_optional(false, (bytes){0}); }

static void leave(uint32_t code) {
  flush_logs();
  ask('q', code);
  __builtin_trap();
}

EXPORT("wasi:cli/exit", "exit") void cli_exit(uint32_t is_error) { leave(is_error); }
EXPORT("wasi:cli/exit", "exit-with-code") void cli_exit_with_code(uint32_t code) { leave(code); }

EXPORT("wasi:cli/stdin", "get-stdin") handle get_stdin(void) {
  input *stream = arena_allocate(sizeof *stream);
  input_whole(stream, (bytes){0});
  adopt(&stream->object, NULL);
  return new_input(stream);
}

EXPORT("wasi:cli/stdout", "get-stdout") handle get_stdout(void) { return log_stream('1'); }
EXPORT("wasi:cli/stderr", "get-stderr") handle get_stderr(void) { return log_stream('2'); }

EXPORT("wasi:cli/terminal-stdin", "get-terminal-stdin")
result_area *get_terminal_stdin(void) { return give_handle(false, 0); }
EXPORT("wasi:cli/terminal-stdout", "get-terminal-stdout")
result_area *get_terminal_stdout(void) { return give_handle(false, 0); }
EXPORT("wasi:cli/terminal-stderr", "get-terminal-stderr")
result_area *get_terminal_stderr(void) { return give_handle(false, 0); }

EXPORT("wasi:filesystem/preopens", "get-directories")
result_area *get_directories(void) { return give_bytes((bytes){(uint8_t *)&result, 0}); }
