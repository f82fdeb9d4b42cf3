// wasi:http/incoming-handler in C: sends the request's body back while it comes, under the same content-type.

#include "http.h"

enum { CHUNK_BYTES = 65536 };

static void echo(handle source, handle target) {
  bytes_result chunk;
  any_result done;
  uint8_t *before = arena_end;
  for (;;) {
    stream_read(source, CHUNK_BYTES, &chunk);
    if (chunk.is_error || !write_all(target, chunk.value)) break;
    arena_end = before; // the chunk has been copied: its memory serves the next one
  }
  stream_flush(target, &done);
}

static handle response_headers(handle request) {
  bytes_list types;
  any_result done;
  bytes name = TEXT("content-type");
  handle headers = fields_new();
  handle received = request_headers(request);
  fields_get(received, name.data, name.length, &types);
  if (types.length > 0)
    fields_append(headers, name.data, name.length, types.data[0].data, types.data[0].length, &done);
  fields_drop(received);
  return headers;
}

EXPORT("wasi:http/incoming-handler@0.2.0#handle")
void handle_request(handle request, handle outparam) {
  handle_result source_body, source, target_body, target;
  any_result done;

  handle response = response_new(response_headers(request));
  response_body(response, &target_body);
  outparam_set(outparam, 0, response, 0, 0, 0, 0, 0, 0);

  request_consume(request, &source_body);
  incoming_stream(source_body.value, &source);
  outgoing_stream(target_body.value, &target);
  echo(source.value, target.value);

  input_drop(source.value);
  incoming_drop(source_body.value);
  request_drop(request);
  output_drop(target.value);
  outgoing_finish(target_body.value, 0, 0, &done);
  arena_reset();
}
