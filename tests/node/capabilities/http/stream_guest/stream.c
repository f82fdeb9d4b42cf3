// A guest that moves large bodies; the request's path says which: a letter and numbers, each behind a slash.
//
//   /e/LENGTH       send the request's body back, under that `content-length` if it is not 0
//   /g/SIZE/LENGTH  give SIZE bytes, of which the Nth is the low byte of N times 31, under that `content-length`
//   /t              take all of the body, and say how many bytes it has and what they add up to
//   /s/SIZE         take SIZE bytes of the body, and compute for ever
//   /x/SIZE         send the body back, and trap after SIZE bytes

#include "http.h"

enum { CHUNK_BYTES = 65536, STEP = 31 };

typedef struct {
  handle body, stream;
} pair;

static uint64_t take_number(bytes *path) {
  uint64_t number = 0;
  while (path->length > 0 && *path->data != '/') number = number * 10 + (*path->data++ - '0'), path->length--;
  if (path->length > 0) path->data++, path->length--;
  return number;
}

static pair begin_response(handle outparam, uint64_t length) {
  handle_result body, stream;
  any_result done;
  bytes name = TEXT("content-length"), value = decimal(length);
  handle headers = fields_new();
  if (length > 0) fields_append(headers, name.data, name.length, value.data, value.length, &done);
  handle response = response_new(headers);
  response_body(response, &body);
  outparam_set(outparam, 0, response, 0, 0, 0, 0, 0, 0);
  outgoing_stream(body.value, &stream);
  return (pair){body.value, stream.value};
}

static void end_response(pair response) {
  any_result done;
  output_drop(response.stream);
  outgoing_finish(response.body, 0, 0, &done);
}

static pair open_request(handle request) {
  handle_result body, stream;
  request_consume(request, &body);
  incoming_stream(body.value, &stream);
  return (pair){body.value, stream.value};
}

static void close_request(pair request) {
  input_drop(request.stream);
  incoming_drop(request.body);
}

static void echo(handle request, handle outparam, uint64_t length, uint64_t most) {
  pair target = begin_response(outparam, length), source = open_request(request);
  uint8_t *before = arena_end;
  for (uint64_t size = 0; size < most; arena_end = before) {
    bytes_result chunk;
    stream_read(source.stream, CHUNK_BYTES, &chunk);
    if (chunk.is_error || !write_all(target.stream, chunk.value)) break;
    size += chunk.value.length;
    if (size >= most) __builtin_trap();
  }
  close_request(source);
  end_response(target);
}

static void give(handle outparam, uint64_t size, uint64_t length) {
  pair target = begin_response(outparam, length);
  bytes chunk = {arena_allocate(1, CHUNK_BYTES), CHUNK_BYTES};
  for (uint64_t place = 0; place < size; place += chunk.length) {
    if (size - place < CHUNK_BYTES) chunk.length = size - place;
    for (size_t i = 0; i < chunk.length; i++) chunk.data[i] = (uint8_t)((place + i) * STEP);
    if (!write_all(target.stream, chunk)) break;
  }
  end_response(target);
}

static void take(handle request, handle outparam, uint64_t most) {
  pair source = open_request(request);
  uint64_t size = 0, sum = 0;
  for (uint8_t *before = arena_end;; arena_end = before) {
    bytes_result chunk;
    stream_read(source.stream, CHUNK_BYTES, &chunk);
    if (chunk.is_error) break;
    size += chunk.value.length;
    for (size_t i = 0; i < chunk.value.length; i++) sum += chunk.value.data[i];
    while (size >= most) __asm__ volatile("");
  }
  close_request(source);
  pair target = begin_response(outparam, 0);
  write_all(target.stream, CONCATENATE(decimal(size), TEXT(" "), decimal(sum)));
  end_response(target);
}

EXPORT("wasi:http/incoming-handler@0.2.0#handle")
void handle_request(handle request, handle outparam) {
  optional_bytes text;
  request_path(request, &text);
  bytes path = {text.value.data + 3, text.value.length > 3 ? text.value.length - 3 : 0};
  uint64_t first = take_number(&path), second = take_number(&path);
  switch (text.value.data[1]) {
    case 'e': echo(request, outparam, first, UINT64_MAX); break;
    case 'g': give(outparam, first, second); break;
    case 's': take(request, outparam, first); break;
    case 't': take(request, outparam, UINT64_MAX); break;
    case 'x': echo(request, outparam, 0, first); break;
    default: __builtin_trap();
  }
  request_drop(request);
  arena_reset();
}
