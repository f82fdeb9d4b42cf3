// A guest that uses of WASI what the shim gives beside HTTP; the request's path says what.

#include "http.h"

#define CLI "wasi:cli/"

typedef struct {
  uint64_t seconds;
  uint32_t nanoseconds;
} datetime;

typedef struct {
  uint32_t *data;
  size_t length;
} number_list;

IMPORT("wasi:clocks/monotonic-clock@0.2.0", "now") uint64_t clock_now(void);
IMPORT("wasi:clocks/monotonic-clock@0.2.0", "subscribe-duration") handle clock_timer(uint64_t nanoseconds);
IMPORT("wasi:clocks/wall-clock@0.2.0", "now") void wall_now(datetime *now);
IMPORT("wasi:random/random@0.2.0", "get-random-bytes") void random_bytes(uint64_t length, bytes *data);
IMPORT("wasi:random/random@0.2.0", "get-random-u64") uint64_t random_number(void);
IMPORT("wasi:random/insecure-seed@0.2.0", "insecure-seed") void insecure_seed(uint64_t *two);
IMPORT(CLI "environment@0.2.0", "get-environment") void get_environment(field_list *variables);
IMPORT(CLI "environment@0.2.0", "get-arguments") void get_arguments(bytes_list *arguments);
IMPORT(CLI "exit@0.2.0", "exit") void cli_exit(uint32_t is_error);
IMPORT(CLI "stdin@0.2.0", "get-stdin") handle get_stdin(void);
IMPORT(CLI "stdout@0.2.0", "get-stdout") handle get_stdout(void);
IMPORT(CLI "stderr@0.2.0", "get-stderr") handle get_stderr(void);
IMPORT("wasi:filesystem/preopens@0.2.0", "get-directories") void get_directories(bytes *folders);
IMPORT("demo:kv/store", "get") void store_get(const uint8_t *key, size_t length, optional_bytes *value);
IMPORT(POLL, "poll") void poll(const handle *list, size_t length, number_list *ready);

static const uint64_t MILLISECOND = 1000000;

static void print(handle stream, bytes text) {
  any_result done;
  stream_write_and_flush(stream, text.data, text.length, &done);
  output_drop(stream);
}

static void sleep(uint64_t milliseconds) {
  handle timer = clock_timer(milliseconds * MILLISECOND);
  pollable_block(timer);
  pollable_drop(timer);
}

static bytes hexadecimal(bytes data) {
  static const char digits[] = "0123456789abcdef";
  bytes text = {arena_allocate(1, 2 * data.length), 2 * data.length};
  for (size_t i = 0; i < data.length; i++) {
    text.data[2 * i] = digits[data.data[i] >> 4];
    text.data[2 * i + 1] = digits[data.data[i] & 15];
  }
  return text;
}

static bytes timers(void) {
  number_list ready;
  handle list[2] = {clock_timer(2000 * MILLISECOND), clock_timer(5 * MILLISECOND)};
  poll(list, 2, &ready);
  bytes text = CONCATENATE(decimal(ready.length), TEXT(":"), decimal(ready.data[0]));
  pollable_drop(list[0]), pollable_drop(list[1]);
  return text;
}

static bytes chance(void) {
  bytes data;
  uint64_t number = random_number(), seed[2];
  random_bytes(100, &data);
  insecure_seed(seed);
  bytes parts[] = {data, {(uint8_t *)&number, 8}, {(uint8_t *)seed, 16}};
  return hexadecimal(concatenate(parts, 3));
}

static bytes environment(void) {
  field_list variables;
  bytes_list arguments;
  bytes text = TEXT("");
  get_environment(&variables);
  get_arguments(&arguments);
  for (size_t i = 0; i < variables.length; i++)
    text = CONCATENATE(text, variables.data[i].name, TEXT("="), variables.data[i].value, TEXT(";"));
  for (size_t i = 0; i < arguments.length; i++) text = CONCATENATE(text, TEXT("-"), arguments.data[i]);
  return text;
}

static bytes printing(void) {
  print(get_stdout(), TEXT("to the \xc3\xb6utput\n"));
  print(get_stderr(), TEXT("\xff\xfe"));
  return TEXT("printed");
}

static bytes standard_input(void) {
  bytes_result data;
  handle stream = get_stdin();
  stream_read(stream, 10, &data);
  input_drop(stream);
  return data.is_error ? TEXT("closed") : TEXT("open");
}

static bytes kept(bytes key) {
  optional_bytes value;
  store_get(key.data, key.length, &value);
  return value.is_some ? value.value : TEXT("nothing");
}

static bytes grown(void) {
  size_t pages = 0;
  while (__builtin_wasm_memory_grow(0, 16) != (size_t)-1) pages += 16;
  return decimal(pages);
}

__attribute__((noinline)) static uint32_t recurse(volatile uint32_t depth) {
  return depth == UINT32_MAX ? 0 : recurse(depth + 1) + depth;
}

static bool starts(bytes text, bytes prefix) {
  return text.length >= prefix.length && is_equal((bytes){text.data, prefix.length}, prefix);
}

static bytes answer(bytes path) {
  bytes folders;
  datetime now;
  uint64_t began = clock_now();
  if (starts(path, TEXT("/sleep"))) sleep(30);
  if (starts(path, TEXT("/sleep"))) return decimal((clock_now() - began) / MILLISECOND);
  if (starts(path, TEXT("/timers"))) return timers();
  if (starts(path, TEXT("/now"))) return wall_now(&now), decimal(now.seconds);
  if (starts(path, TEXT("/random"))) return chance();
  if (starts(path, TEXT("/environment"))) return environment();
  if (starts(path, TEXT("/print"))) return printing();
  if (starts(path, TEXT("/input"))) return standard_input();
  if (starts(path, TEXT("/kept/"))) return kept((bytes){path.data + 6, path.length - 6});
  if (starts(path, TEXT("/folders"))) return get_directories(&folders), decimal(folders.length);
  if (starts(path, TEXT("/grow"))) return grown();
  if (starts(path, TEXT("/recurse"))) return decimal(recurse(0));
  if (starts(path, TEXT("/exit"))) cli_exit(1);
  while (starts(path, TEXT("/spin"))) __asm__ volatile("");
  return TEXT("unknown");
}

static handle begin(handle outparam) {
  handle_result body, stream;
  handle response = response_new(fields_new());
  response_body(response, &body);
  outparam_set(outparam, 0, response, 0, 0, 0, 0, 0, 0);
  outgoing_stream(body.value, &stream);
  return body.value << 16 | stream.value; // both are small
}

static void finish(handle both) {
  any_result done;
  output_drop(both & 0xffff);
  outgoing_finish(both >> 16, 0, 0, &done);
}

// Events, one after the other: each must leave while the next one is waited for.
static void send_events(handle outparam) {
  any_result done;
  handle both = begin(outparam);
  for (int i = 0; i < 3; i++) {
    stream_write_and_flush(both & 0xffff, TEXT("event\n").data, 6, &done);
    sleep(20);
  }
  finish(both);
}

EXPORT("wasi:http/incoming-handler@0.2.0#handle")
void handle_request(handle request, handle outparam) {
  optional_bytes path;
  request_path(request, &path);
  request_drop(request);
  if (starts(path.value, TEXT("/events"))) {
    send_events(outparam);
  } else {
    bytes text = answer(path.value);
    handle both = begin(outparam);
    write_all(both & 0xffff, text);
    if (starts(path.value, TEXT("/broken-words"))) cli_exit(0);
    finish(both);
    if (starts(path.value, TEXT("/last-words"))) cli_exit(0);
  }
  arena_reset();
}

EXPORT("demo:greeter/greet#hello") bytes *hello(uint8_t *data, size_t length) {
  static bytes greeting;
  bytes name = {data, length}, chance;
  print(get_stdout(), TEXT("greeting\n"));
  random_bytes(4, &chance);
  sleep(1);
  greeting = CONCATENATE(TEXT("Hello, "), name, TEXT("! "), hexadecimal(chance));
  return &greeting;
}

EXPORT("cabi_post_demo:greeter/greet#hello")
void hello_done(bytes *greeting) { (void)greeting, arena_reset(); }
