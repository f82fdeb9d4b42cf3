// A request on its way in, its response on its way out: one text each, if both fit.
//
//   request    `=` or `x`, `+` if more of the body is to be read as stream 0, a seed or nothing;
//              lines: method, scheme, authority, path; fields, to an empty line; the body.
//   response   `=` or `x`; the status; fields, to an empty line; trailers, to an empty line; the body. It is handed
//              over as soon as it is whole. The call itself gives `.` if all of the response has left, `~` if its
//              body was never finished, `-` if there is none, `!` and an error code if the guest gave one instead.
//
// With `x`, all that follows (in a request, from the method on) is packed: not all of it is UTF-8.

#include "shim.h"

#define CONTROL "lattice:shim/control"

RESOURCE(HTTP, "incoming-request", incoming_request)
RESOURCE(HTTP, "outgoing-response", outgoing_response)
RESOURCE(HTTP, "response-outparam", response_outparam)

typedef struct {
  object object;
  bytes method, scheme, authority, path;
  field_list *headers;
  incoming_body body;
  bool is_consumed;
} incoming_request;

exchange current;

// Methods and schemes, which are variants in WIT and texts here

static const bytes METHODS[] = {
    {(const uint8_t *)"GET", 3},     {(const uint8_t *)"HEAD", 4},    {(const uint8_t *)"POST", 4},
    {(const uint8_t *)"PUT", 3},     {(const uint8_t *)"DELETE", 6},  {(const uint8_t *)"CONNECT", 7},
    {(const uint8_t *)"OPTIONS", 7}, {(const uint8_t *)"TRACE", 5},   {(const uint8_t *)"PATCH", 5},
};
static const bytes SCHEMES[] = {{(const uint8_t *)"http", 4}, {(const uint8_t *)"https", 5}};

enum { METHOD_COUNT = sizeof METHODS / sizeof *METHODS, SCHEME_COUNT = sizeof SCHEMES / sizeof *SCHEMES };

static void give_case(uint8_t *place, bytes text, const bytes *cases, uint32_t count) {
  uint32_t words[3] = {0, (uint32_t)text.data, text.length};
  while (words[0] < count && !equals(cases[words[0]], text)) words[0]++;
  COPY(place, words, sizeof words);
}

void give_method(uint8_t *place, bytes method) { give_case(place, method, METHODS, METHOD_COUNT); }
void give_scheme(uint8_t *place, bytes scheme) { give_case(place, scheme, SCHEMES, SCHEME_COUNT); }

bytes method_text(uint32_t tag, const uint8_t *data, size_t length) {
  return tag < METHOD_COUNT ? METHODS[tag] : (bytes){data, length};
}

bytes scheme_text(uint32_t tag, const uint8_t *data, size_t length) {
  return tag < SCHEME_COUNT ? SCHEMES[tag] : (bytes){data, length};
}

// The request

static bytes unpacked(bytes text) {
  uint8_t *target = (uint8_t *)text.data;
  return (bytes){target, unpack(text.data, text.length, target)};
}

static incoming_request *read_request(bytes text) {
  incoming_request *request = arena_allocate(sizeof *request);
  bytes flags = next_line(&text);
  bool has_more = flags.length > 1 && flags.data[1] == '+';
  size_t seed = has_more ? 2 : 1;
  if (flags.data[0] == 'x') text = unpacked(text);
  *request = (incoming_request){.headers = new_list()};
  request->method = next_line(&text);
  request->scheme = next_line(&text);
  request->authority = next_line(&text);
  request->path = next_line(&text);
  read_fields(&text, request->headers);
  seed_random((bytes){flags.data + seed, flags.length - seed});
  if (has_more)
    input_from(&request->body.stream, 0, text);
  else
    input_whole(&request->body.stream, text);
  adopt(&request->object, NULL);
  return request;
}

EXPORT(CONTROL, "begin") result_area *control_begin(const uint8_t *data, size_t length) {
  scratch_keep(); // the request's text is used where it lies
  incoming_request *request = read_request((bytes){data, length});
  current = (exchange){.is_serving = true, .is_head = equals(request->method, TEXT("HEAD"))};
  object *outparam = arena_allocate(sizeof *outparam);
  adopt(outparam, NULL);
  result.word[0] = incoming_request_handle(request);
  result.word[1] = response_outparam_handle(outparam);
  return &result;
}

EXPORT(HTTP, "[method]incoming-request.method") result_area *request_method(incoming_request *request) {
  give_method(result.byte, request->method);
  return &result;
}

EXPORT(HTTP, "[method]incoming-request.path-with-query")
result_area *request_path(incoming_request *request) {
  return give_optional(request->path.length > 0, request->path);
}

EXPORT(HTTP, "[method]incoming-request.scheme") result_area *request_scheme(incoming_request *request) {
  result.word[0] = request->scheme.length > 0;
  give_scheme(result.byte + 4, request->scheme);
  return &result;
}

EXPORT(HTTP, "[method]incoming-request.authority")
result_area *request_authority(incoming_request *request) {
  return give_optional(request->authority.length > 0, request->authority);
}

EXPORT(HTTP, "[method]incoming-request.headers") handle request_headers(incoming_request *request) {
  return new_fields(request->headers, true);
}

EXPORT(HTTP, "[method]incoming-request.consume") result_area *request_consume(incoming_request *request) {
  if (request->is_consumed) return give_handle(true, 0);
  request->is_consumed = true;
  return give_handle(false, new_incoming_body(&request->body));
}

// The response

enum { DEFAULT_STATUS = 200, LEAST_STATUS = 100, LEAST_FINAL_STATUS = 200, MOST_STATUS = 999 };

EXPORT(HTTP, "[constructor]outgoing-response") handle response_constructor(handle headers) {
  outgoing_response *response = arena_allocate(sizeof *response);
  *response = (outgoing_response){.status = DEFAULT_STATUS, .headers = take_fields(headers)};
  adopt(&response->object, NULL);
  return outgoing_response_handle(response);
}

EXPORT(HTTP, "[method]outgoing-response.status-code") uint32_t response_status(outgoing_response *response) {
  return response->status;
}

EXPORT(HTTP, "[method]outgoing-response.set-status-code")
uint32_t response_set_status(outgoing_response *response, uint32_t status) {
  bool is_valid = status >= LEAST_STATUS && status <= MOST_STATUS;
  if (is_valid) response->status = status;
  return !is_valid;
}

EXPORT(HTTP, "[method]outgoing-response.headers") handle response_headers(outgoing_response *response) {
  return new_fields(response->headers, true);
}

EXPORT(HTTP, "[method]outgoing-response.body") result_area *response_body(outgoing_response *response) {
  if (response->body != NULL) return give_handle(true, 0);
  response->body = make_body(response->headers, NULL);
  return response->body ? give_handle(false, body_for_guest(response->body)) : give_handle(true, 0);
}

// The case of the result, the response or the case of the error code, and the payload of the latter.
EXPORT(HTTP, "[static]response-outparam.set")
void outparam_set(handle outparam, uint32_t is_error, uint32_t value, uint32_t has_text, uint64_t text,
                  uint32_t length, uint32_t unused_1, uint32_t unused_2, uint32_t unused_3) {
  (void)unused_1, (void)unused_2, (void)unused_3;
  response_outparam_drop(outparam);
  if (is_error) {
    current.state = REFUSED;
    current.error = (error_code){.code = value, .has_text = value == INTERNAL_ERROR && has_text};
    if (current.error.has_text) current.error.text = kept((bytes){(const uint8_t *)(uint32_t)text, length});
    return;
  }
  current.state = SET;
  current.response = outgoing_response_object(value);
  outgoing_response_drop(value);
  hand_over();
}

// A response of the kind 1xx: none is passed on, which is what the interface has this answer for.
EXPORT(HTTP, "[method]response-outparam.send-informational")
result_area *outparam_send_informational(void *outparam, uint32_t status, handle headers) {
  (void)outparam;
  take_fields(headers);
  bool is_informational = status >= LEAST_STATUS && status < LEAST_FINAL_STATUS;
  error_code error = {.code = is_informational ? INTERNAL_ERROR : PROTOCOL_ERROR, .has_text = is_informational};
  if (is_informational) error.text = TEXT("informational responses are not passed on");
  result.word[0] = 1;
  write_error_code(result.byte + 8, error);
  return &result;
}

// Sending it

bytes message(uint8_t tag, uint8_t packed_tag, bytes head, bytes body) {
  writer whole = write_text(1 + head.length + body.length);
  put_byte(&whole, tag);
  put(&whole, head);
  put(&whole, body);
  if (is_utf8(head) && is_utf8(body)) return written(&whole);
  writer packed = write_text(1 + packed_size(head.length + body.length));
  put_byte(&packed, packed_tag);
  put_packed(&packed, (bytes){whole.start + 1, head.length + body.length});
  return written(&packed);
}

static bytes response_head(const outgoing_response *response, const field_list *trailers) {
  writer head = write_text(NUMBER_SIZE + 1 + fields_size(response->headers) + fields_size(trailers));
  put_number(&head, response->status);
  put_byte(&head, '\n');
  put_fields(&head, response->headers);
  put_fields(&head, trailers);
  return written(&head);
}

void send_head(void) {
  if (current.is_head_sent) return;
  current.is_head_sent = true;
  ask_host(message('h', 'H', response_head(current.response, NULL), (bytes){0}));
  if (current.response->body != NULL) current.response->body->stream.is_begun = true;
}

static bool is_whole(const outgoing_response *response) {
  return response->body == NULL || response->body->stream.is_finished;
}

// What of a response that is not whole can leave.
static void pass_response_on(void) {
  if (is_whole(current.response)) return;
  send_head();
  output_send(&current.response->body->stream, false);
}

void before_waiting(void) {
  if (current.state == SET && current.is_serving) pass_response_on();
  start_fetches();
  if (current.is_serving) flush_logs();
}

static bytes refusal(void) {
  writer text = write_text(3 + NUMBER_SIZE + current.error.text.length);
  put_byte(&text, '!');
  put_number(&text, current.error.code);
  put_byte(&text, '\n');
  put(&text, current.error.text);
  return written(&text);
}

// A guest that never asks for the body may still announce one, where none is sent anyway.
static bool lacks_body(const outgoing_response *response) {
  enum { NO_CONTENT = 204, NOT_MODIFIED = 304 };
  bool is_announced;
  uint64_t length;
  bool has_none =
      current.is_head || response->status == NO_CONTENT || response->status == NOT_MODIFIED;
  return response->body == NULL && !has_none && read_length(response->headers, &is_announced, &length) && length > 0;
}

static bytes whole_text(const outgoing_response *response) {
  const outgoing_body *body = response->body;
  bytes data = body ? (bytes){body->stream.buffer, body->stream.length} : (bytes){0};
  return message('=', 'x', response_head(response, body ? body->trailers : NULL), data);
}

// What is whole is the client's, whatever its guest does from here on: it may trap, exit, or go on for long.
void hand_over(void) {
  if (current.state != SET || current.is_head_sent) return;
  if (!is_whole(current.response) || lacks_body(current.response)) return;
  flush_logs(); // now, since a guest that asks for anything after its answer is one that goes on
  ask_host(whole_text(current.response));
  current.is_head_sent = true;
}

static bytes outcome(void) {
  if (current.state == UNSET) return TEXT("-");
  if (current.state == REFUSED) return refusal();
  if (!is_whole(current.response)) return TEXT("~");
  if (current.is_head_sent) return TEXT(".");
  current.error = (error_code){.code = RESPONSE_BODY_SIZE}; // it lacks its body
  return refusal();
}

EXPORT(CONTROL, "end") result_area *control_end(void) {
  bytes text = outcome();
  flush_logs();
  return give_bytes(text);
}

// The post-return of `end`, so when the response was read: forget the request.
EXPORT(CONTROL, "forget") void control_forget(result_area *read) {
  (void)read;
  forget_fetches();
  forget_seed();
  current = (exchange){0};
  flush_logs(); // which have no memory from here on
  end_of_request();
}
