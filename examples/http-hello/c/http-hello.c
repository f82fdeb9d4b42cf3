// wasi:http/incoming-handler in C: greets, and says which path was asked for.

#include "http.h"

EXPORT("wasi:http/incoming-handler@0.2.0#handle")
void handle_request(handle request, handle outparam) {
  optional_bytes path;
  handle_result body, stream;
  any_result done;

  request_path(request, &path);
  bytes text = CONCATENATE(TEXT("Hello from C: "), path.is_some ? path.value : TEXT("/"), TEXT("\n"));
  request_drop(request);

  handle headers = fields_new();
  fields_append(headers, TEXT("content-type").data, 12, TEXT("text/plain").data, 10, &done);
  handle response = response_new(headers);
  response_body(response, &body);
  outparam_set(outparam, 0, response, 0, 0, 0, 0, 0, 0);

  outgoing_stream(body.value, &stream);
  write_all(stream.value, text);
  output_drop(stream.value);
  outgoing_finish(body.value, 0, 0, &done);
  arena_reset();
}
