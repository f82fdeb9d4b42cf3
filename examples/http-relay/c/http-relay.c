// wasi:http in C: gets the URL that the request's path names, as in `/https/example.com/page`, and sends the
// response on while it comes.

#include "http.h"

#define OUTGOING "wasi:http/outgoing-handler@0.2.0"

enum { CHUNK_BYTES = 65536 };

IMPORT(HTTP, "[method]fields.clone") handle fields_clone(handle fields);
IMPORT(HTTP, "[constructor]outgoing-request") handle sent_new(handle fields);
IMPORT(HTTP, "[method]outgoing-request.set-path-with-query")
bool sent_set_path(handle request, uint32_t is_some, const uint8_t *path, size_t length);
IMPORT(HTTP, "[method]outgoing-request.set-scheme")
bool sent_set_scheme(handle request, uint32_t is_some, uint32_t scheme, const uint8_t *name, size_t length);
IMPORT(HTTP, "[method]outgoing-request.set-authority")
bool sent_set_authority(handle request, uint32_t is_some, const uint8_t *authority, size_t length);
IMPORT(OUTGOING, "handle")
void send_request(handle request, uint32_t has_options, handle options, any_result *future);
IMPORT(HTTP, "[method]future-incoming-response.subscribe") handle future_subscribe(handle future);
IMPORT(HTTP, "[method]future-incoming-response.get") void future_get(handle future, uint32_t *found);
IMPORT(HTTP, "[resource-drop]future-incoming-response") void future_drop(handle future);
IMPORT(HTTP, "[method]incoming-response.status") uint32_t received_status(handle response);
IMPORT(HTTP, "[method]incoming-response.headers") handle received_headers(handle response);
IMPORT(HTTP, "[method]incoming-response.consume") void received_consume(handle response, handle_result *body);
IMPORT(HTTP, "[resource-drop]incoming-response") void received_drop(handle response);

// The part of the text before the next `/`, or all of it; the rest begins with that `/`.
static bytes take_segment(bytes *rest) {
  bytes segment = {rest->data, 0};
  while (segment.length < rest->length && rest->data[segment.length] != '/') segment.length++;
  rest->data += segment.length;
  rest->length -= segment.length;
  return segment;
}

static handle make_request(handle request) {
  optional_bytes path;
  request_path(request, &path);
  bytes rest = {path.value.data + 1, path.value.length - 1};
  bytes scheme = take_segment(&rest);
  if (rest.length > 0) rest.data++, rest.length--;
  bytes authority = take_segment(&rest);
  handle sent = sent_new(fields_new());
  sent_set_scheme(sent, 1, scheme.length == 5, 0, 0); // `https` is the longer one
  sent_set_authority(sent, 1, authority.data, authority.length);
  sent_set_path(sent, rest.length > 0, rest.data, rest.length);
  return sent;
}

// Sends a request and waits; the number of the error code, or -1 and the response.
static int32_t fetch(handle sent, handle *response) {
  any_result begun;
  uint32_t found[20];
  send_request(sent, 0, 0, &begun);
  if (begun.words[0] & 1) return begun.words[1] & 255;
  handle future = (handle)begun.words[1];
  handle ready = future_subscribe(future);
  pollable_block(ready);
  pollable_drop(ready);
  future_get(future, found);
  future_drop(future);
  *response = found[6];
  return (found[4] & 1) ? (int32_t)(found[6] & 255) : -1;
}

static handle open_response(handle outparam, handle headers, uint32_t status, handle *stream) {
  handle_result body, opened;
  handle response = response_new(headers);
  response_set_status(response, status);
  response_body(response, &body);
  outparam_set(outparam, 0, response, 0, 0, 0, 0, 0, 0);
  outgoing_stream(body.value, &opened);
  *stream = opened.value;
  return body.value;
}

static void answer_error(handle outparam, int32_t code) {
  uint8_t text[] = "error code ..\n";
  handle stream;
  any_result done;
  text[11] = '0' + code / 10;
  text[12] = '0' + code % 10;
  handle body = open_response(outparam, fields_new(), 502, &stream);
  write_all(stream, (bytes){text, sizeof text - 1});
  output_drop(stream);
  outgoing_finish(body, 0, 0, &done);
}

// Copies until the source has ended; false if it broke off.
static bool copy(handle source, handle target) {
  bytes_result chunk;
  uint8_t *before = arena_end;
  for (;;) {
    stream_read(source, CHUNK_BYTES, &chunk);
    if (chunk.is_error) return *(uint8_t *)&chunk.value == 1; // the stream is closed
    if (!write_all(target, chunk.value)) return false;
    arena_end = before;
  }
}

static void pass_on(handle response, handle outparam) {
  handle_result source_body, source;
  handle target, received = received_headers(response);
  any_result done;
  handle target_body = open_response(outparam, fields_clone(received), received_status(response), &target);
  fields_drop(received);
  received_consume(response, &source_body);
  incoming_stream(source_body.value, &source);
  bool is_whole = copy(source.value, target);
  input_drop(source.value);
  incoming_drop(source_body.value);
  received_drop(response);
  output_drop(target);
  if (!is_whole) __builtin_trap(); // so that nobody takes a part for the whole
  outgoing_finish(target_body, 0, 0, &done);
}

EXPORT("wasi:http/incoming-handler@0.2.0#handle")
void handle_request(handle request, handle outparam) {
  handle response;
  int32_t error = fetch(make_request(request), &response);
  if (error < 0)
    pass_on(response, outparam);
  else
    answer_error(outparam, error);
  request_drop(request);
  arena_reset();
}
