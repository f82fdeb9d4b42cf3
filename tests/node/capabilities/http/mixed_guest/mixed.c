// A guest with handles of two kinds: of the shim's streams, and of the host's files and sockets. The path says what.

#include "http.h"

#define FILES "wasi:filesystem/types@0.2.0"
#define TCP "wasi:sockets/tcp@0.2.0"

enum { NANOSECONDS = 1000000, CREATE = 1, TRUNCATE = 8, READ = 1, WRITE = 2, CLOSED = 1, PIECE = 65536 };

typedef struct {
  handle descriptor;
  bytes path;
} preopen;

typedef struct {
  preopen *data;
  size_t length;
} preopen_list;

typedef struct {
  uint32_t *data;
  size_t length;
} number_list;

// A `result` whose failure is a stream's: its case lies where the other case's payload begins.
typedef struct {
  uint8_t is_error;
  union {
    bytes data;
    struct {
      uint8_t kind;
      handle error;
    } failure;
  };
} read_result;

typedef struct {
  uint8_t is_error;
  union {
    uint64_t count;
    struct {
      uint8_t kind;
      handle error;
    } failure;
  } __attribute__((aligned(8)));
} splice_result;

typedef struct {
  uint8_t is_error;
  union {
    struct {
      handle input, output;
    };
    uint8_t code;
  } __attribute__((aligned(4)));
} connection;

IMPORT("wasi:clocks/monotonic-clock@0.2.0", "subscribe-duration") handle clock_timer(uint64_t nanoseconds);
IMPORT("wasi:filesystem/preopens@0.2.0", "get-directories") void get_directories(preopen_list *folders);
IMPORT(FILES, "[method]descriptor.open-at")
void open_at(handle folder, uint32_t path_flags, const uint8_t *path, size_t length, uint32_t open_flags,
             uint32_t flags, handle_result *file);
IMPORT(FILES, "[method]descriptor.read-via-stream")
void file_reader(handle file, uint64_t offset, handle_result *stream);
IMPORT(FILES, "[method]descriptor.write-via-stream")
void file_writer(handle file, uint64_t offset, handle_result *stream);
IMPORT(FILES, "filesystem-error-code") void file_error(handle error, uint8_t *code);
IMPORT(FILES, "[resource-drop]descriptor") void file_drop(handle file);
IMPORT(HTTP, "http-error-code") void http_error(handle error, any_result *code);
IMPORT("wasi:io/error@0.2.0", "[method]error.to-debug-string") void error_text(handle error, bytes *text);
IMPORT("wasi:io/error@0.2.0", "[resource-drop]error") void error_drop(handle error);
IMPORT(STREAMS, "[method]input-stream.read") void stream_take(handle stream, uint64_t most, read_result *data);
IMPORT(STREAMS, "[method]input-stream.subscribe") handle input_subscribe(handle stream);
IMPORT(STREAMS, "[method]output-stream.splice")
void splice(handle to, handle from, uint64_t most, splice_result *moved);
IMPORT(STREAMS, "[method]output-stream.blocking-splice")
void blocking_splice(handle to, handle from, uint64_t most, splice_result *moved);
IMPORT(POLL, "poll") void poll(const handle *list, size_t length, number_list *ready);
IMPORT(POLL, "[method]pollable.ready") bool pollable_ready(handle pollable);
IMPORT("wasi:sockets/instance-network@0.2.0", "instance-network") handle instance_network(void);
IMPORT("wasi:sockets/network@0.2.0", "[resource-drop]network") void network_drop(handle network);
IMPORT("wasi:sockets/tcp-create-socket@0.2.0", "create-tcp-socket")
void create_socket(uint32_t family, handle_result *socket);
IMPORT(TCP, "[method]tcp-socket.start-connect")
void start_connect(handle socket, handle network, uint32_t family, uint32_t port, uint32_t a, uint32_t b, uint32_t c,
                   uint32_t d, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint8_t *result);
IMPORT(TCP, "[method]tcp-socket.finish-connect") void finish_connect(handle socket, connection *streams);
IMPORT(TCP, "[method]tcp-socket.subscribe") handle socket_subscribe(handle socket);
IMPORT(TCP, "[resource-drop]tcp-socket") void socket_drop(handle socket);

static handle request_body, body, output; // of the request and the response
static handle kept;                       // a file that stays open from request to request

static uint64_t number_of(bytes digits) {
  uint64_t number = 0;
  for (size_t i = 0; i < digits.length; i++) number = number * 10 + digits.data[i] - '0';
  return number;
}

static void say(bytes text) { write_all(output, text); }

static void say_number(uint64_t number) {
  say(decimal(number)), say(TEXT("\n"));
}

static handle first_folder(void) {
  preopen_list folders;
  get_directories(&folders);
  if (folders.length == 0) __builtin_trap();
  return folders.data[0].descriptor;
}

static handle open_file(bytes name, uint32_t open_flags, uint32_t flags) {
  handle_result file;
  handle folder = first_folder();
  open_at(folder, 0, name.data, name.length, open_flags, flags, &file);
  if (file.is_error) __builtin_trap();
  file_drop(folder);
  return file.value;
}

static handle reader_of(handle file) {
  handle_result stream;
  file_reader(file, 0, &stream);
  if (stream.is_error) __builtin_trap();
  return stream.value;
}

static handle writer_of(handle file) {
  handle_result stream;
  file_writer(file, 0, &stream);
  if (stream.is_error) __builtin_trap();
  return stream.value;
}

// Bytes between the sides

static void copy(handle from, handle to) {
  bytes_result data;
  for (;;) {
    uint8_t *mark = arena_end;
    stream_read(from, PIECE, &data);
    if (data.is_error || !write_all(to, data.value)) break;
    arena_end = mark;
  }
}

static void splice_all(handle from, handle to) {
  splice_result moved;
  do blocking_splice(to, from, PIECE, &moved);
  while (!moved.is_error);
  if (moved.failure.kind != CLOSED) __builtin_trap();
}

// Without waiting in a splice: for both streams at once, whichever is ready first.
static void splice_by_polls(handle from, handle to) {
  splice_result moved;
  number_list ready;
  for (;;) {
    uint8_t *mark = arena_end;
    splice(to, from, PIECE, &moved);
    if (moved.is_error) break;
    if (moved.count > 0) continue;
    handle list[2] = {input_subscribe(from), output_subscribe(to)};
    poll(list, 2, &ready);
    if (ready.length == 0) __builtin_trap();
    pollable_drop(list[0]), pollable_drop(list[1]);
    arena_end = mark;
  }
  if (moved.failure.kind != CLOSED) __builtin_trap();
}

static void move_file(bytes name, void (*move)(handle, handle)) {
  handle file = open_file(name, 0, READ), stream = reader_of(file);
  file_drop(file);
  move(stream, output);
  input_drop(stream);
}

static void store_body(bytes name, void (*move)(handle, handle)) {
  any_result done;
  handle file = open_file(name, CREATE | TRUNCATE, WRITE), stream = writer_of(file);
  move(request_body, stream);
  stream_flush(stream, &done);
  output_drop(stream), file_drop(file);
  say(TEXT("stored\n"));
}

// Waiting

static void say_ready(const handle *list, size_t count) {
  number_list ready;
  poll(list, count, &ready);
  for (size_t i = 0; i < count; i++) {
    bool is_found = false;
    for (size_t j = 0; j < ready.length; j++) is_found |= ready.data[j] == i;
    if (is_found) say_number(i);
  }
}

static void wait_for_file_or_timer(bytes name) {
  handle file = open_file(name, 0, READ), stream = reader_of(file);
  handle list[3] = {clock_timer(2000ULL * NANOSECONDS), input_subscribe(stream), clock_timer(3000ULL * NANOSECONDS)};
  say_ready(list, 3);
  say_number(pollable_ready(list[1]));
  pollable_block(list[1]);
  for (int i = 0; i < 3; i++) pollable_drop(list[i]);
  input_drop(stream), file_drop(file);
}

static handle connect(uint32_t port, connection *streams) {
  handle_result made;
  uint8_t result[2];
  create_socket(0, &made);
  if (made.is_error) __builtin_trap();
  handle network = instance_network();
  start_connect(made.value, network, 0, port, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, result);
  if (result[0]) __builtin_trap();
  handle connected = socket_subscribe(made.value);
  pollable_block(connected), pollable_drop(connected);
  finish_connect(made.value, streams);
  if (streams->is_error) __builtin_trap();
  network_drop(network);
  return made.value;
}

static void disconnect(handle socket, connection streams) {
  input_drop(streams.input), output_drop(streams.output), socket_drop(socket);
}

// Either a timer or what the peer says ends the wait; then what it said.
static void wait_for_peer(uint32_t port, uint64_t milliseconds) {
  connection streams;
  read_result data;
  handle socket = connect(port, &streams);
  handle list[2] = {clock_timer(milliseconds * NANOSECONDS), input_subscribe(streams.input)};
  say_ready(list, 2);
  stream_take(streams.input, PIECE, &data);
  if (!data.is_error) say(data.data);
  pollable_drop(list[1]), pollable_drop(list[0]);
  disconnect(socket, streams);
}

static void relay_peer(uint32_t port) {
  connection streams;
  handle socket = connect(port, &streams);
  splice_all(streams.input, output);
  disconnect(socket, streams);
}

// The request's body, or what the peer says: whichever comes first, until both are over.
static void wait_for_body_or_peer(uint32_t port) {
  connection streams;
  read_result data;
  handle socket = connect(port, &streams);
  handle sources[2] = {request_body, streams.input};
  bool is_over[2] = {false, false};
  while (!is_over[0] || !is_over[1]) {
    handle list[2];
    size_t of[2], count = 0;
    number_list ready;
    for (size_t i = 0; i < 2; i++)
      if (!is_over[i]) of[count] = i, list[count++] = input_subscribe(sources[i]);
    poll(list, count, &ready);
    for (size_t i = 0; i < count; i++) pollable_drop(list[i]);
    for (size_t i = 0; i < ready.length; i++) {
      stream_take(sources[of[ready.data[i]]], PIECE, &data);
      if (data.is_error)
        is_over[of[ready.data[i]]] = true;
      else
        say(data.data);
    }
  }
  disconnect(socket, streams);
}

// Errors

static void say_error(handle error) {
  any_result of_http;
  uint8_t of_files[2] = {9, 9};
  bytes text;
  file_error(error, of_files);
  http_error(error, &of_http);
  error_text(error, &text);
  say_number(of_files[0]), say_number(of_http.words[0] & 0xff), say_number(text.length > 0);
  error_drop(error);
}

static void say_reset(uint32_t port) {
  connection streams;
  splice_result moved;
  handle socket = connect(port, &streams);
  do blocking_splice(output, streams.input, PIECE, &moved);
  while (!moved.is_error);
  say_number(moved.failure.kind);
  if (moved.failure.kind != CLOSED) say_error(moved.failure.error);
  disconnect(socket, streams);
}

static void forge(uint64_t number, bytes name) {
  read_result data;
  splice_result moved;
  number_list ready;
  uint8_t code[2];
  handle ours = clock_timer(NANOSECONDS), high = 1 << 28 | 77;
  handle both[2] = {ours, 77}, other[2] = {0, high};
  handle file = open_file(name, 0, READ), stream = reader_of(file);
  other[0] = input_subscribe(stream);
  switch (number) {
    case 0: input_drop(77); break;
    case 1: input_drop(high); break;
    case 2: stream_take(77, 1, &data); break;
    case 3: stream_take(high, 1, &data); break;
    case 4: poll(both, 2, &ready); break;
    case 5: poll(other, 2, &ready); break;
    case 6: splice(output, 77, 1, &moved); break;
    case 7: splice(high, stream, 1, &moved); break;
    case 8: pollable_block(77); break;
    case 9: pollable_block(high); break;
    case 10: file_error(77, code); break;
    case 11: file_error(high, code); break;
    case 12: stream_take(ours, 1, &data); break;     // a pollable of the shim's
    case 13: stream_take(other[0], 1, &data); break; // a pollable of the host's
    case 14: file_drop(output); break;
    case 15: input_drop(0); break;
    case 16: poll((handle *)-8, 2, &ready); break;
    case 17: poll(other, 1 << 30, &ready); break;
    default: input_drop(-1);
  }
}

static void drop_in_order(uint64_t number, bytes name) {
  handle file = open_file(name, 0, READ), stream = reader_of(file), pollable = input_subscribe(stream);
  switch (number) {
    case 0: file_drop(file), pollable_drop(pollable), input_drop(stream); break;
    case 1: input_drop(stream), pollable_drop(pollable), file_drop(file); break;
    case 2: pollable_drop(pollable), file_drop(file), input_drop(stream); break;
    case 3: pollable_drop(pollable), pollable_drop(pollable); break;
    default: break; // all are left to the end
  }
  say(TEXT("dropped\n"));
}

static void keep(bytes name) {
  if (!kept) kept = open_file(name, 0, READ);
  handle stream = reader_of(kept);
  copy(stream, output);
  input_drop(stream);
  say_number(kept != 0);
}

// Paths

static bool take(bytes *path, bytes prefix) {
  if (path->length < prefix.length || !is_equal((bytes){path->data, prefix.length}, prefix)) return false;
  path->data += prefix.length, path->length -= prefix.length;
  return true;
}

static void answer(bytes path) {
  bytes file = TEXT("a.txt");
  if (take(&path, TEXT("/read/"))) return move_file(path, copy);
  if (take(&path, TEXT("/splice/"))) return move_file(path, splice_all);
  if (take(&path, TEXT("/polls/"))) return move_file(path, splice_by_polls);
  if (take(&path, TEXT("/store/"))) return store_body(path, copy);
  if (take(&path, TEXT("/store-splice/"))) return store_body(path, splice_all);
  if (take(&path, TEXT("/store-polls/"))) return store_body(path, splice_by_polls);
  if (take(&path, TEXT("/wait/"))) return wait_for_file_or_timer(path);
  if (take(&path, TEXT("/patient/"))) return wait_for_peer(number_of(path), 5000);
  if (take(&path, TEXT("/hasty/"))) return wait_for_peer(number_of(path), 30);
  if (take(&path, TEXT("/relay/"))) return relay_peer(number_of(path));
  if (take(&path, TEXT("/either/"))) return wait_for_body_or_peer(number_of(path));
  if (take(&path, TEXT("/reset/"))) return say_reset(number_of(path));
  if (take(&path, TEXT("/forge/"))) return forge(number_of(path), file);
  if (take(&path, TEXT("/drop/"))) return drop_in_order(number_of(path), file);
  if (take(&path, TEXT("/keep/"))) return keep(path);
  say(TEXT("unknown\n"));
}

EXPORT("wasi:http/incoming-handler@0.2.0#handle")
void handle_request(handle request, handle outparam) {
  optional_bytes path;
  handle_result incoming, stream, outgoing;
  any_result done;
  request_path(request, &path);
  request_consume(request, &incoming);
  incoming_stream(incoming.value, &stream);
  request_body = stream.value;
  handle response = response_new(fields_new());
  response_body(response, &outgoing);
  body = outgoing.value;
  outparam_set(outparam, 0, response, 0, 0, 0, 0, 0, 0);
  outgoing_stream(body, &stream);
  output = stream.value;
  answer(path.value);
  output_drop(output);
  outgoing_finish(body, 0, 0, &done);
  input_drop(request_body), incoming_drop(incoming.value), request_drop(request);
  arena_reset();
}
