// A guest that does what tests ask of it: the request's path says what. Most answers are lines of text.

#include "lab.h"

enum { CHUNK_BYTES = 65536, TEXT_BYTES = 16384 };

// There is no libc, and the compiler must not take these loops for calls to it.
__attribute__((no_builtin)) static size_t length_of(const char *string) {
  size_t length = 0;
  while (string[length]) length++;
  return length;
}

__attribute__((no_builtin)) static bool is_same(const uint8_t *one, const uint8_t *other, size_t length) {
  while (length > 0 && one[length - 1] == other[length - 1]) length--;
  return length == 0;
}

static uint8_t text[TEXT_BYTES];
static size_t text_length;

static void put(bytes part) {
  for (size_t index = 0; index < part.length && text_length < TEXT_BYTES; index++)
    text[text_length++] = part.data[index];
}

static void put_number(uint64_t number) {
  uint8_t digits[20];
  size_t start = sizeof digits;
  do digits[--start] = '0' + number % 10;
  while (number /= 10);
  put((bytes){digits + start, sizeof digits - start});
}

static void line(const char *name, uint64_t value) {
  put((bytes){(uint8_t *)name, length_of(name)});
  put(TEXT("="));
  put_number(value);
  put(TEXT("\n"));
}

static bool equals(bytes one, bytes other) {
  return one.length == other.length && is_same(one.data, other.data, one.length);
}

static bool take_prefix(bytes *rest, const char *prefix) {
  size_t length = length_of(prefix);
  if (rest->length < length || !is_same(rest->data, (const uint8_t *)prefix, length)) return false;
  rest->data += length;
  rest->length -= length;
  return true;
}

static uint64_t number_of(bytes digits) {
  uint64_t number = 0;
  for (size_t index = 0; index < digits.length; index++) number = number * 10 + digits.data[index] - '0';
  return number;
}

// Responses

typedef struct {
  handle body;
  handle stream;
} writer;

static writer open_body(handle body) {
  handle_result stream;
  outgoing_stream(body, &stream);
  return (writer){body, stream.value};
}

static void set_response(handle outparam, handle response) {
  outparam_set(outparam, 0, response, 0, 0, 0, 0, 0, 0);
}

static writer begin(handle outparam, handle headers, uint32_t status) {
  handle_result body;
  handle response = response_new(headers);
  response_set_status(response, status);
  response_body(response, &body);
  set_response(outparam, response);
  return open_body(body.value);
}

static uint32_t finish(writer out, bool has_trailers, handle trailers) {
  any_result done;
  output_drop(out.stream);
  outgoing_finish(out.body, has_trailers, trailers, &done);
  return (done.words[0] & 1) ? (done.words[1] & 255) : 255;
}

static void answer_text(handle outparam, uint32_t status) {
  writer out = begin(outparam, fields_new(), status);
  write_all(out.stream, (bytes){text, text_length});
  finish(out, false, 0);
}

static handle sized(const char *length) {
  any_result done;
  bytes name = TEXT("content-length");
  handle headers = fields_new();
  fields_append(headers, name.data, name.length, (const uint8_t *)length, length_of(length), &done);
  return headers;
}

// What a request looks like

static void describe(handle request, handle outparam) {
  uint32_t method[3], scheme[4];
  optional_bytes authority, path;
  field_list entries;
  request_method(request, method);
  line("method", method[0] & 255);
  if ((method[0] & 255) == 9) put((bytes){(uint8_t *)method[1], method[2]}), put(TEXT("\n"));
  request_scheme(request, scheme);
  line("scheme", (scheme[0] & 1) ? (scheme[1] & 255) : 99);
  request_authority(request, &authority);
  put(authority.value), put(TEXT("\n"));
  request_path(request, &path);
  put(path.value), put(TEXT("\n"));
  fields_entries(request_headers(request), &entries);
  for (size_t index = 0; index < entries.length; index++)
    put(entries.data[index].name), put(TEXT(": ")), put(entries.data[index].value), put(TEXT("\n"));
  answer_text(outparam, 200);
}

// Fields: 0 is success, else 1 + the case of `header-error`

static uint32_t header_error(any_result result) { return (result.words[0] & 1) ? 1 + (result.words[0] >> 8 & 255) : 0; }

static uint32_t append(handle fields, bytes name, bytes value) {
  any_result result;
  fields_append(fields, name.data, name.length, value.data, value.length, &result);
  return header_error(result);
}

static void check_fields(handle request, handle outparam) {
  any_result result;
  bytes_list found;
  field_list entries;
  handle fields = fields_new();
  line("append", append(fields, TEXT("A-b"), TEXT("1")));
  line("again", append(fields, TEXT("a-B"), TEXT("2")));
  line("split", append(fields, TEXT("x"), TEXT("1\r\ny: 2")));
  line("name", append(fields, TEXT("x y"), TEXT("1")));
  line("forbidden", append(fields, TEXT("Transfer-Encoding"), TEXT("chunked")));
  line("immutable", append(request_headers(request), TEXT("a"), TEXT("1")));
  fields_get(fields, (uint8_t *)"a-b", 3, &found);
  line("get", found.length);
  fields_entries(fields, &entries);
  line("entries", entries.length);
  put(entries.data[0].name), put(TEXT("\n"));
  handle copy = fields_clone(request_headers(request));
  line("clone", append(copy, TEXT("a"), TEXT("1")));
  bytes values[2] = {TEXT("7"), TEXT("8\n")};
  fields_set(fields, (uint8_t *)"a-b", 3, values, 1, &result);
  line("set", header_error(result));
  fields_set(fields, (uint8_t *)"a-b", 3, values, 2, &result);
  line("set-invalid", header_error(result));
  fields_delete(fields, (uint8_t *)"A-B", 3, &result);
  line("delete", header_error(result));
  line("has", fields_has(fields, (uint8_t *)"a-b", 3));
  field list[2] = {{TEXT("ok"), TEXT("1")}, {TEXT("host"), TEXT("x")}};
  fields_from(list, 1, &result);
  line("from-list", result.words[0] & 1);
  fields_from(list, 2, &result);
  line("from-list-forbidden", (result.words[0] & 1) ? 1 + (result.words[0] >> 32 & 255) : 0);
  answer_text(outparam, 200);
}

// Everything that may be taken once

static void check_once(handle request, handle outparam) {
  handle_result first, second, stream;
  request_consume(request, &first);
  request_consume(request, &second);
  line("consume", second.is_error);
  incoming_stream(first.value, &stream);
  incoming_stream(first.value, &second);
  line("stream", second.is_error);
  handle response = response_new(fields_new());
  response_body(response, &first);
  response_body(response, &second);
  line("body", second.is_error);
  outgoing_stream(first.value, &stream);
  outgoing_stream(first.value, &second);
  line("write", second.is_error);
  line("status", response_set_status(response, 99));
  line("headers", append(response_headers(response), TEXT("a"), TEXT("1")));
  answer_text(outparam, 200);
}

// Bodies that are not what was announced, in responses that are never sent; 255 is no error

static void check_sizes(handle outparam) {
  any_result done;
  handle_result body;
  response_body(response_new(sized("5")), &body);
  writer out = open_body(body.value);
  stream_write_and_flush(out.stream, (uint8_t *)"123", 3, &done);
  line("short", finish(out, false, 0));
  response_body(response_new(sized("5")), &body);
  out = open_body(body.value);
  stream_write_and_flush(out.stream, (uint8_t *)"1234567", 7, &done);
  line("long", (done.words[0] & 1) && !(done.words[0] >> 32 & 255));
  handle error = (handle)done.words[1];
  error_code(error, &done);
  line("long-code", (done.words[0] & 1) ? (done.words[1] & 255) : 255);
  response_body(response_new(sized("5")), &body);
  out = open_body(body.value);
  stream_write_and_flush(out.stream, (uint8_t *)"12345", 5, &done);
  line("exact", finish(out, false, 0));
  answer_text(outparam, 200);
}

// A length that is no number; other hosts differ here
static void check_length(handle outparam) {
  handle_result body;
  response_body(response_new(sized("x")), &body);
  line("length", body.is_error);
  answer_text(outparam, 200);
}

// Trailers: those of the request become those of the response

static bool take_trailers(handle body, handle *trailers) {
  uint32_t found[16];
  handle future = incoming_finish(body);
  handle ready = trailers_subscribe(future);
  pollable_block(ready);
  pollable_drop(ready);
  trailers_get(future, found);
  bool has = !(found[2] & 1) && !(found[4] & 1) && (found[6] & 1);
  *trailers = has ? fields_clone(found[7]) : 0;
  trailers_get(future, found);
  line("again", found[2] & 1);
  trailers_drop(future);
  return has;
}

static void pass_trailers(handle request, handle outparam) {
  handle trailers;
  handle_result body;
  request_consume(request, &body);
  bool has = take_trailers(body.value, &trailers);
  line("trailers", has);
  writer out = begin(outparam, fields_new(), 200);
  write_all(out.stream, (bytes){text, text_length});
  finish(out, has, trailers);
}

// Much: writes so many chunks

static void write_chunks(handle outparam, uint64_t count) {
  static uint8_t chunk[CHUNK_BYTES];
  __builtin_memset(chunk, 'x', sizeof chunk);
  writer out = begin(outparam, fields_new(), 200);
  for (; count > 0; count--)
    if (!write_all(out.stream, (bytes){chunk, sizeof chunk})) return;
  finish(out, false, 0);
}

// The same before the response is set: no more than other hosts take by then
static void write_before(handle outparam, uint64_t count) {
  static uint8_t chunk[CHUNK_BYTES];
  handle_result body;
  handle response = response_new(fields_new());
  response_body(response, &body);
  writer out = open_body(body.value);
  for (; count > 0; count--) write_all(out.stream, (bytes){chunk, sizeof chunk});
  set_response(outparam, response);
  finish(out, false, 0);
}

// Requests: to where the headers say, both bodies at once

static bytes header(handle headers, const char *name) {
  bytes_list found;
  fields_get(headers, (const uint8_t *)name, length_of(name), &found);
  return found.length ? found.data[0] : (bytes){0, 0};
}

static handle make_options(bytes milliseconds) {
  uint64_t duration = number_of(milliseconds) * 1000000;
  handle options = options_new();
  options_connect(options, 1, duration);
  options_first_byte(options, 1, duration);
  options_between_bytes(options, 1, duration);
  return options;
}

static handle make_request(handle request, handle headers) {
  any_result done;
  uint32_t method[3];
  handle passed = fields_clone(headers);
  fields_delete(passed, (uint8_t *)"x-authority", 11, &done);
  handle sent = sent_new(passed);
  request_method(request, method);
  sent_set_method(sent, method[0] & 255, (uint8_t *)method[1], method[2]);
  bytes authority = header(headers, "x-authority"), path = header(headers, "x-path");
  sent_set_authority(sent, 1, authority.data, authority.length);
  sent_set_path(sent, path.length > 0, path.data, path.length);
  sent_set_scheme(sent, 1, equals(header(headers, "x-scheme"), TEXT("https")), 0, 0);
  return sent;
}

// Copies what is there; false at the end of either stream.
static bool copy_some(handle from, handle to) {
  number_result room;
  bytes_result chunk;
  any_result done;
  uint8_t *before = arena_end;
  stream_room(to, &room);
  if (room.is_error) return false;
  if (room.value == 0) return true;
  stream_read_now(from, room.value, &chunk);
  if (chunk.is_error) return false;
  if (chunk.value.length) stream_write(to, chunk.value.data, chunk.value.length, &done);
  arena_end = before;
  return true;
}

static void wait_either(handle one, handle other) {
  handle_list ready;
  handle both[2] = {one, other};
  uint8_t *before = arena_end;
  poll_any(both, 2, &ready);
  arena_end = before;
  pollable_drop(one);
  pollable_drop(other);
}

// Waits until bytes can move from one stream to another, or for something else first.
static handle movable(handle from, handle to) {
  number_result room;
  stream_room(to, &room);
  return room.is_error || room.value ? input_subscribe(from) : output_subscribe(to);
}

static void fail(handle outparam, uint32_t code) {
  text_length = 0;
  line("error", code);
  answer_text(outparam, 502);
}

static void fetch(handle request, handle outparam) {
  any_result sent_result;
  uint32_t found[20];
  handle_result source_body, source, target_body;
  handle headers = request_headers(request);
  handle sent = make_request(request, headers);
  sent_body(sent, &target_body);
  writer up = open_body(target_body.value);
  bytes timeout = header(headers, "x-timeout-ms");
  handle options = timeout.length ? make_options(timeout) : 0;
  send_request(sent, timeout.length > 0, options, &sent_result);
  if (sent_result.words[0] & 1) return fail(outparam, sent_result.words[1] & 255);
  handle future = (handle)sent_result.words[1];
  request_consume(request, &source_body);
  incoming_stream(source_body.value, &source);
  bool is_sending = true;
  for (;;) {
    future_get(future, found);
    if (found[0] & 1) break;
    handle answered = future_subscribe(future);
    if (is_sending) {
      wait_either(movable(source.value, up.stream), answered);
      if (!copy_some(source.value, up.stream)) is_sending = false, finish(up, false, 0);
    } else {
      pollable_block(answered);
      pollable_drop(answered);
    }
  }
  if (found[4] & 1) return fail(outparam, found[6] & 255);
  handle response = found[6];
  handle_result body, stream;
  writer down = begin(outparam, fields_clone(received_headers(response)), received_status(response));
  received_consume(response, &body);
  incoming_stream(body.value, &stream);
  bool is_receiving = true;
  while (is_receiving) {
    handle ready = movable(stream.value, down.stream);
    if (is_sending) {
      wait_either(ready, movable(source.value, up.stream));
      if (!copy_some(source.value, up.stream)) is_sending = false, finish(up, false, 0);
    } else {
      pollable_block(ready);
      pollable_drop(ready);
    }
    is_receiving = copy_some(stream.value, down.stream);
  }
  bytes_result last;
  stream_read(stream.value, 1, &last);
  if (last.is_error && *(uint8_t *)&last.value == 0) __builtin_trap(); // it broke: so does this body
  handle trailers;
  input_drop(stream.value);
  bool has = take_trailers(body.value, &trailers);
  finish(down, has, trailers);
}

static bool await_response(handle future, uint32_t *found) {
  handle ready = future_subscribe(future);
  pollable_block(ready);
  pollable_drop(ready);
  future_get(future, found);
  return (found[0] & 1) && !(found[4] & 1);
}

// So many requests, one after the other, whose responses are dropped unread
static void fetch_often(handle request, handle outparam, uint64_t count) {
  uint32_t found[20];
  any_result sent;
  uint64_t answered = 0;
  handle headers = request_headers(request);
  for (; count > 0; count--, answered++) {
    send_request(make_request(request, headers), 0, 0, &sent);
    if (sent.words[0] & 1) break;
    handle future = (handle)sent.words[1];
    if (!await_response(future, found)) break;
    received_drop(found[6]);
    future_drop(future);
  }
  line("answered", answered);
  answer_text(outparam, 200);
}

// A DELETE that is given up while another request is answered, and one more after it
static void fetch_after_giving_up(handle request, handle outparam) {
  enum { DELETE = 4 };
  uint32_t found[20];
  any_result first, others[2];
  handle headers = request_headers(request), deletion = make_request(request, headers);
  sent_set_method(deletion, DELETE, 0, 0);
  send_request(deletion, 0, 0, &first);
  send_request(make_request(request, headers), 0, 0, &others[0]);
  line("answered", await_response((handle)others[0].words[1], found));
  future_drop((handle)first.words[1]);
  send_request(make_request(request, headers), 0, 0, &others[1]);
  line("answered", await_response((handle)others[1].words[1], found));
  answer_text(outparam, 200);
}

// Faults

static void misbehave(bytes what, handle request, handle outparam) {
  static uint8_t large[4097];
  any_result done;
  handle_result body, stream;
  if (take_prefix(&what, "trap")) __builtin_trap();
  if (take_prefix(&what, "nothing")) return;
  if (take_prefix(&what, "error")) return outparam_set(outparam, 1, 37, 0, 0, 0, 0, 0, 0);
  if (take_prefix(&what, "drop-incoming")) {
    request_consume(request, &body);
    incoming_stream(body.value, &stream);
    incoming_drop(body.value);
  }
  if (take_prefix(&what, "hoard"))
    for (__builtin_memset(large, 'x', sizeof large);;) append(fields_new(), TEXT("a"), (bytes){large, sizeof large});
  if (take_prefix(&what, "unwritten")) return set_response(outparam, response_new(sized("100")));
  if (take_prefix(&what, "empty-trap")) set_response(outparam, response_new(fields_new())), __builtin_trap();
  writer out = begin(outparam, take_prefix(&what, "sized-") ? sized("100") : fields_new(), 200);
  stream_write_and_flush(out.stream, (uint8_t *)"early", 5, &done);
  if (take_prefix(&what, "mid-trap")) __builtin_trap();
  if (take_prefix(&what, "leak")) return;
  if (take_prefix(&what, "large")) stream_write_and_flush(out.stream, large, sizeof large, &done);
  if (take_prefix(&what, "unasked")) stream_write(out.stream, large, 1, &done);
  if (take_prefix(&what, "answered-")) {
    finish(out, false, 0);
    if (take_prefix(&what, "trap")) __builtin_trap();
    for (;;) __asm__ volatile("");
  }
  if (take_prefix(&what, "finish-early")) outgoing_finish(out.body, 0, 0, &done);
  if (take_prefix(&what, "finish")) finish(out, false, 0);
  if (take_prefix(&what, "watched")) output_subscribe(out.stream), finish(out, false, 0);
  if (take_prefix(&what, "drop-early")) outgoing_drop(out.body);
  if (take_prefix(&what, "drop")) output_drop(out.stream), outgoing_drop(out.body);
}

EXPORT("wasi:http/incoming-handler@0.2.0#handle")
void handle_request(handle request, handle outparam) {
  optional_bytes path;
  text_length = 0;
  request_path(request, &path);
  bytes rest = path.value;
  if (take_prefix(&rest, "/describe")) describe(request, outparam);
  else if (take_prefix(&rest, "/fields")) check_fields(request, outparam);
  else if (take_prefix(&rest, "/once")) check_once(request, outparam);
  else if (take_prefix(&rest, "/sizes")) check_sizes(outparam);
  else if (take_prefix(&rest, "/length")) check_length(outparam);
  else if (take_prefix(&rest, "/trailers")) pass_trailers(request, outparam);
  else if (take_prefix(&rest, "/chunks/")) write_chunks(outparam, number_of(rest));
  else if (take_prefix(&rest, "/before/")) write_before(outparam, number_of(rest));
  else if (take_prefix(&rest, "/fetches/")) fetch_often(request, outparam, number_of(rest));
  else if (take_prefix(&rest, "/fetch-other")) fetch_after_giving_up(request, outparam);
  else if (take_prefix(&rest, "/fetch")) fetch(request, outparam);
  else if (take_prefix(&rest, "/fault/")) misbehave(rest, request, outparam);
  arena_reset();
}
