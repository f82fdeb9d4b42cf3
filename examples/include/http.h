// What a handler of wasi:http in plain C needs: the imported functions it calls, as the canonical ABI has them.

#ifndef HTTP_H
#define HTTP_H

#include "component.h"

#define HTTP "wasi:http/types@0.2.0"
#define POLL "wasi:io/poll@0.2.0"
#define STREAMS "wasi:io/streams@0.2.0"

typedef uint32_t handle;

// A `result` whose success is a handle, and one whose success is a `u64` or a `list<u8>`; failures are ignored
// here but for their presence.
typedef struct {
  bool is_error;
  handle value;
} handle_result;

typedef struct {
  bool is_error;
  uint64_t value;
} number_result;

typedef struct {
  bool is_error;
  bytes value;
} bytes_result;

// Room for the largest result, whose fields nobody reads.
typedef struct {
  uint64_t words[5];
} any_result;

// A field of a header, as in a `list<tuple<string, list<u8>>>`.
typedef struct {
  bytes name;
  bytes value;
} field;

typedef struct {
  field *data;
  size_t length;
} field_list;

typedef struct {
  bytes *data;
  size_t length;
} bytes_list;

IMPORT(HTTP, "[constructor]fields") handle fields_new(void);
IMPORT(HTTP, "[method]fields.get")
void fields_get(handle fields, const uint8_t *name, size_t length, bytes_list *values);
IMPORT(HTTP, "[method]fields.append")
void fields_append(handle fields, const uint8_t *name, size_t length, const uint8_t *value,
                   size_t value_length, any_result *result);
IMPORT(HTTP, "[resource-drop]fields") void fields_drop(handle fields);

IMPORT(HTTP, "[method]incoming-request.path-with-query")
void request_path(handle request, optional_bytes *path);
IMPORT(HTTP, "[method]incoming-request.headers") handle request_headers(handle request);
IMPORT(HTTP, "[method]incoming-request.consume") void request_consume(handle request, handle_result *body);
IMPORT(HTTP, "[resource-drop]incoming-request") void request_drop(handle request);
IMPORT(HTTP, "[method]incoming-body.stream") void incoming_stream(handle body, handle_result *stream);
IMPORT(HTTP, "[resource-drop]incoming-body") void incoming_drop(handle body);

IMPORT(HTTP, "[constructor]outgoing-response") handle response_new(handle fields);
IMPORT(HTTP, "[method]outgoing-response.set-status-code")
bool response_set_status(handle response, uint32_t status);
IMPORT(HTTP, "[method]outgoing-response.body") void response_body(handle response, handle_result *body);
IMPORT(HTTP, "[static]response-outparam.set")
void outparam_set(handle outparam, uint32_t is_error, handle response, uint32_t, uint64_t, uint32_t, uint32_t,
                  uint32_t, uint32_t);
IMPORT(HTTP, "[method]outgoing-body.write") void outgoing_stream(handle body, handle_result *stream);
IMPORT(HTTP, "[static]outgoing-body.finish")
void outgoing_finish(handle body, uint32_t has_trailers, handle trailers, any_result *result);

IMPORT(STREAMS, "[method]input-stream.blocking-read")
void stream_read(handle stream, uint64_t most, bytes_result *data);
IMPORT(STREAMS, "[resource-drop]input-stream") void input_drop(handle stream);
IMPORT(STREAMS, "[method]output-stream.check-write") void stream_room(handle stream, number_result *room);
IMPORT(STREAMS, "[method]output-stream.write")
void stream_write(handle stream, const uint8_t *data, size_t length, any_result *result);
IMPORT(STREAMS, "[method]output-stream.blocking-write-and-flush")
void stream_write_and_flush(handle stream, const uint8_t *data, size_t length, any_result *result);
IMPORT(STREAMS, "[method]output-stream.blocking-flush") void stream_flush(handle stream, any_result *result);
IMPORT(STREAMS, "[method]output-stream.subscribe") handle output_subscribe(handle stream);
IMPORT(STREAMS, "[resource-drop]output-stream") void output_drop(handle stream);
IMPORT(POLL, "[method]pollable.block") void pollable_block(handle pollable);
IMPORT(POLL, "[resource-drop]pollable") void pollable_drop(handle pollable);

// Wait until bytes may be written: how many. None when nobody wants them any more.
static inline uint64_t wait_for_room(handle stream) {
  number_result room;
  for (;;) {
    stream_room(stream, &room);
    if (room.is_error) return 0;
    if (room.value > 0) return room.value;
    handle writable = output_subscribe(stream);
    pollable_block(writable);
    pollable_drop(writable);
  }
}

// Write all of it, as fast as it is taken; false when nobody wants it any more.
static inline bool write_all(handle stream, bytes data) {
  any_result done;
  while (data.length > 0) {
    uint64_t room = wait_for_room(stream);
    if (room == 0) return false;
    size_t size = data.length < room ? data.length : (size_t)room;
    stream_write(stream, data.data, size, &done);
    if (done.words[0] & 1) return false;
    data.data += size;
    data.length -= size;
  }
  return true;
}

#endif
