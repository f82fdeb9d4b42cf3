// What lab.c uses of WASI beyond http.h, as the canonical ABI has it.

#ifndef LAB_H
#define LAB_H

#include "http.h"

#define OUTGOING "wasi:http/outgoing-handler@0.2.0"

typedef struct {
  handle *data;
  size_t length;
} handle_list;

IMPORT(HTTP, "http-error-code") void error_code(handle error, any_result *code);
IMPORT(HTTP, "[static]fields.from-list") void fields_from(const field *data, size_t length, any_result *result);
IMPORT(HTTP, "[method]fields.has") bool fields_has(handle fields, const uint8_t *name, size_t length);
IMPORT(HTTP, "[method]fields.set")
void fields_set(handle fields, const uint8_t *name, size_t length, const bytes *values, size_t count,
                any_result *result);
IMPORT(HTTP, "[method]fields.delete")
void fields_delete(handle fields, const uint8_t *name, size_t length, any_result *result);
IMPORT(HTTP, "[method]fields.entries") void fields_entries(handle fields, field_list *entries);
IMPORT(HTTP, "[method]fields.clone") handle fields_clone(handle fields);

IMPORT(HTTP, "[method]incoming-request.method") void request_method(handle request, uint32_t *method);
IMPORT(HTTP, "[method]incoming-request.scheme") void request_scheme(handle request, uint32_t *scheme);
IMPORT(HTTP, "[method]incoming-request.authority")
void request_authority(handle request, optional_bytes *authority);
IMPORT(HTTP, "[static]incoming-body.finish") handle incoming_finish(handle body);
IMPORT(HTTP, "[method]future-trailers.subscribe") handle trailers_subscribe(handle future);
IMPORT(HTTP, "[method]future-trailers.get") void trailers_get(handle future, uint32_t *found);
IMPORT(HTTP, "[resource-drop]future-trailers") void trailers_drop(handle future);

IMPORT(HTTP, "[method]outgoing-response.headers") handle response_headers(handle response);
IMPORT(HTTP, "[resource-drop]outgoing-response") void response_drop(handle response);
IMPORT(HTTP, "[resource-drop]outgoing-body") void outgoing_drop(handle body);

IMPORT(HTTP, "[constructor]outgoing-request") handle sent_new(handle fields);
IMPORT(HTTP, "[method]outgoing-request.body") void sent_body(handle request, handle_result *body);
IMPORT(HTTP, "[method]outgoing-request.set-method")
bool sent_set_method(handle request, uint32_t method, const uint8_t *name, size_t length);
IMPORT(HTTP, "[method]outgoing-request.set-path-with-query")
bool sent_set_path(handle request, uint32_t is_some, const uint8_t *path, size_t length);
IMPORT(HTTP, "[method]outgoing-request.set-scheme")
bool sent_set_scheme(handle request, uint32_t is_some, uint32_t scheme, const uint8_t *name, size_t length);
IMPORT(HTTP, "[method]outgoing-request.set-authority")
bool sent_set_authority(handle request, uint32_t is_some, const uint8_t *authority, size_t length);

IMPORT(HTTP, "[constructor]request-options") handle options_new(void);
IMPORT(HTTP, "[method]request-options.set-connect-timeout")
bool options_connect(handle options, uint32_t is_some, uint64_t duration);
IMPORT(HTTP, "[method]request-options.set-first-byte-timeout")
bool options_first_byte(handle options, uint32_t is_some, uint64_t duration);
IMPORT(HTTP, "[method]request-options.set-between-bytes-timeout")
bool options_between_bytes(handle options, uint32_t is_some, uint64_t duration);

IMPORT(OUTGOING, "handle")
void send_request(handle request, uint32_t has_options, handle options, any_result *future);
IMPORT(HTTP, "[method]future-incoming-response.subscribe") handle future_subscribe(handle future);
IMPORT(HTTP, "[method]future-incoming-response.get") void future_get(handle future, uint32_t *found);
IMPORT(HTTP, "[resource-drop]future-incoming-response") void future_drop(handle future);
IMPORT(HTTP, "[method]incoming-response.status") uint32_t received_status(handle response);
IMPORT(HTTP, "[method]incoming-response.headers") handle received_headers(handle response);
IMPORT(HTTP, "[method]incoming-response.consume") void received_consume(handle response, handle_result *body);
IMPORT(HTTP, "[resource-drop]incoming-response") void received_drop(handle response);

IMPORT(STREAMS, "[method]input-stream.read")
void stream_read_now(handle stream, uint64_t most, bytes_result *data);
IMPORT(STREAMS, "[method]input-stream.subscribe") handle input_subscribe(handle stream);
IMPORT(POLL, "poll") void poll_any(const handle *pollables, size_t length, handle_list *ready);

#endif
