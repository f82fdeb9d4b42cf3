// wasi:http/outgoing-handler and the resources of requests to the network.
//
// A request leaves as a whole if its body is finished before the guest waits for anything; else its head leaves
// then, and its body follows. Any number of them are on their way at a time.

#include "shim.h"

RESOURCE(HTTP, "outgoing-request", outgoing_request)
RESOURCE(HTTP, "request-options", request_options)
RESOURCE(HTTP, "future-incoming-response", future_response)
RESOURCE(HTTP, "incoming-response", incoming_response)

enum { CONNECT, FIRST_BYTE, BETWEEN_BYTES, TIMEOUT_COUNT };

typedef struct {
  object object;
  bool has[TIMEOUT_COUNT];
  uint64_t nanoseconds[TIMEOUT_COUNT];
} request_options;

static fetch *fetches;
static uint32_t last_channel;

void forget_fetches(void) {
  fetches = NULL;
  last_channel = 0;
}

// The request

EXPORT(HTTP, "[constructor]outgoing-request") handle outgoing_constructor(handle headers) {
  outgoing_request *request = arena_allocate(sizeof *request);
  *request = (outgoing_request){.method = TEXT("GET"), .headers = take_fields(headers)};
  adopt(&request->object, NULL);
  return outgoing_request_handle(request);
}

EXPORT(HTTP, "[method]outgoing-request.body") result_area *outgoing_body_of(outgoing_request *request) {
  if (request->body != NULL) return give_handle(true, 0);
  request->body = make_body(request->headers, request);
  return request->body ? give_handle(false, body_for_guest(request->body)) : give_handle(true, 0);
}

EXPORT(HTTP, "[method]outgoing-request.headers") handle outgoing_headers(outgoing_request *request) {
  return new_fields(request->headers, true);
}

EXPORT(HTTP, "[method]outgoing-request.method") result_area *outgoing_method(outgoing_request *request) {
  give_method(result.byte, request->method);
  return &result;
}

EXPORT(HTTP, "[method]outgoing-request.set-method")
uint32_t outgoing_set_method(outgoing_request *request, uint32_t tag, const uint8_t *data, size_t length) {
  bytes method = method_text(tag, data, length);
  if (!is_token(method)) return 1;
  request->method = kept(method);
  return 0;
}

// Neither blanks nor control characters: nothing that could end a line.
static bool is_target(bytes text) {
  for (size_t i = 0; i < text.length; i++)
    if (text.data[i] <= ' ' || text.data[i] == 0x7f) return false;
  return true;
}

EXPORT(HTTP, "[method]outgoing-request.path-with-query")
result_area *outgoing_path(outgoing_request *request) { return give_optional(request->has_path, request->path); }

EXPORT(HTTP, "[method]outgoing-request.set-path-with-query")
uint32_t outgoing_set_path(outgoing_request *request, uint32_t has, const uint8_t *data, size_t length) {
  if (has && !is_target((bytes){data, length})) return 1;
  request->has_path = has;
  request->path = has ? kept((bytes){data, length}) : (bytes){0};
  return 0;
}

EXPORT(HTTP, "[method]outgoing-request.scheme") result_area *outgoing_scheme(outgoing_request *request) {
  result.word[0] = request->has_scheme;
  give_scheme(result.byte + 4, request->scheme);
  return &result;
}

EXPORT(HTTP, "[method]outgoing-request.set-scheme")
uint32_t outgoing_set_scheme(outgoing_request *request, uint32_t has, uint32_t tag, const uint8_t *data,
                             size_t length) {
  bytes scheme = has ? scheme_text(tag, data, length) : (bytes){0};
  if (has && !is_token(scheme)) return 1;
  request->has_scheme = has;
  request->scheme = kept(scheme);
  return 0;
}

EXPORT(HTTP, "[method]outgoing-request.authority")
result_area *outgoing_authority(outgoing_request *request) {
  return give_optional(request->has_authority, request->authority);
}

EXPORT(HTTP, "[method]outgoing-request.set-authority")
uint32_t outgoing_set_authority(outgoing_request *request, uint32_t has, const uint8_t *data, size_t length) {
  if (has && (length == 0 || !is_target((bytes){data, length}))) return 1;
  request->has_authority = has;
  request->authority = has ? kept((bytes){data, length}) : (bytes){0};
  return 0;
}

// Its options

EXPORT(HTTP, "[constructor]request-options") handle options_constructor(void) {
  request_options *options = arena_allocate(sizeof *options);
  *options = (request_options){0};
  adopt(&options->object, NULL);
  return request_options_handle(options);
}

static result_area *give_timeout(const request_options *options, int which) {
  result.number[0] = options->has[which];
  result.number[1] = options->nanoseconds[which];
  return &result;
}

static uint32_t set_timeout(request_options *options, int which, uint32_t has, uint64_t nanoseconds) {
  options->has[which] = has;
  options->nanoseconds[which] = nanoseconds;
  return 0;
}

#define TIMEOUT(name, symbol, which)                                                                  \
  EXPORT(HTTP, "[method]request-options." name)                                                       \
  result_area *options_##symbol(request_options *options) { return give_timeout(options, which); }    \
  EXPORT(HTTP, "[method]request-options.set-" name)                                                   \
  uint32_t options_set_##symbol(request_options *options, uint32_t has, uint64_t nanoseconds) {       \
    return set_timeout(options, which, has, nanoseconds);                                             \
  }

TIMEOUT("connect-timeout", connect, CONNECT)
TIMEOUT("first-byte-timeout", first_byte, FIRST_BYTE)
TIMEOUT("between-bytes-timeout", between_bytes, BETWEEN_BYTES)

// A line for each timeout, empty where there is none.
static bytes timeouts_text(const request_options *options) {
  uint8_t *place = arena_allocate(TIMEOUT_COUNT * (NUMBER_SIZE + 1));
  writer text = {place, place};
  for (int i = 0; i < TIMEOUT_COUNT; i++) {
    if (options != NULL && options->has[i]) put_number(&text, options->nanoseconds[i]);
    put_byte(&text, '\n');
  }
  return written(&text);
}

// Sending it

// Whether the guest has dropped what it would take the rest from: the future, the response, its body or trailers.
static bool is_unwanted(const fetch *future) {
  if (!future->is_taken) return future->object.is_dropped;
  const incoming_response *response = future->response;
  if (response == NULL) return false;
  if (!response->is_consumed) return response->object.is_dropped;
  const incoming_body *body = response->body;
  return body->trailers != NULL ? body->trailers->is_dropped : body->object.is_dropped;
}

static void give_up_unwanted(void) {
  for (fetch *future = fetches; future != NULL; future = future->next) {
    if (!future->is_started || future->is_given_up || !is_unwanted(future)) continue;
    future->is_given_up = true;
    ask('c', future->channel);
  }
}

EXPORT("wasi:http/outgoing-handler", "handle")
result_area *outgoing_handle(handle request_handle, uint32_t has_options, handle options_handle) {
  outgoing_request *request = outgoing_request_object(request_handle);
  request->timeouts = timeouts_text(has_options ? request_options_object(options_handle) : NULL);
  outgoing_request_drop(request_handle);
  if (has_options) request_options_drop(options_handle);

  fetch *future = arena_allocate(sizeof *future);
  *future = (fetch){.request = request, .channel = ++last_channel, .next = fetches};
  adopt(&future->object, NULL);
  give_up_unwanted(); // since there may be no more than so many
  fetches = request->fetch = future;
  if (request->body == NULL || request->body->stream.is_finished) start_fetch(future);
  result.number[0] = 0;
  result.word[2] = future_response_handle(future);
  return &result;
}

static void put_line(writer *to, bytes line) {
  put(to, line);
  put_byte(to, '\n');
}

// Number, method, scheme, authority, path, three timeouts, `+` if the body follows; fields; trailers.
static bytes request_head(const fetch *future, bool has_more, const field_list *trailers) {
  const outgoing_request *request = future->request;
  size_t lines = request->method.length + request->scheme.length + request->authority.length +
                 request->path.length + request->timeouts.length + 2 * NUMBER_SIZE;
  writer head = write_text(lines + fields_size(request->headers) + fields_size(trailers));
  put_number(&head, future->channel);
  put_byte(&head, '\n');
  put_line(&head, request->method);
  put_line(&head, request->has_scheme ? request->scheme : TEXT("https"));
  put_line(&head, request->authority);
  put_line(&head, request->has_path && request->path.length > 0 ? request->path : TEXT("/"));
  put(&head, request->timeouts);
  put_line(&head, has_more ? TEXT("+") : TEXT(""));
  put_fields(&head, request->headers);
  put_fields(&head, trailers);
  return written(&head);
}

void start_fetch(fetch *future) {
  if (future->is_started || future->is_done) return;
  future->is_started = true;
  outgoing_body *body = future->request->body;
  bool has_more = body != NULL && !body->stream.is_finished;
  bytes head = request_head(future, has_more, body ? body->trailers : NULL);
  bytes data = body ? (bytes){body->stream.buffer, body->stream.length} : (bytes){0};
  ask_host(message('s', 'S', head, data));
  if (body == NULL) return;
  body->stream.is_begun = has_more;
  body->stream.channel = future->channel;
  body->stream.length = 0;
}

void start_fetches(void) {
  give_up_unwanted();
  for (fetch *future = fetches; future != NULL; future = future->next) {
    outgoing_body *body = future->request->body;
    start_fetch(future);
    if (body == NULL || body->stream.is_finished) continue;
    if (body->object.is_dropped)
      break_output(&body->stream);
    else
      output_send(&body->stream, false);
  }
}

// The response

// `.` or `+` if more of the body follows, the status; fields; the body's first part.
static void read_response(fetch *future, bytes text) {
  incoming_response *response = arena_allocate(sizeof *response);
  bytes flags = next_line(&text);
  *response = (incoming_response){.headers = new_list(), .body = arena_allocate(sizeof(incoming_body))};
  *response->body = (incoming_body){0};
  response->status = (uint32_t)parse_number((bytes){flags.data + 1, flags.length - 1});
  read_fields(&text, response->headers);
  if (flags.data[0] == '+')
    input_from(&response->body->stream, future->channel, text);
  else
    input_whole(&response->body->stream, text);
  future->response = response;
}

static void take_response(fetch *future, bytes answer) {
  if (answer.length == 0 || answer.data[0] == 'n') return;
  bytes rest = {answer.data + 1, answer.length - 1};
  future->is_done = true;
  if (answer.data[0] == '!') {
    future->is_failed = true;
    future->error = read_error_code(rest);
    return;
  }
  rest = kept(rest);
  if (answer.data[0] == 'x')
    rest.length = unpack(rest.data, rest.length, (uint8_t *)rest.data);
  read_response(future, rest);
}

bool fetch_is_ready(fetch *future) {
  if (future->is_done) return true;
  if (future->is_started) take_response(future, ask('t', future->channel));
  return future->is_done;
}

EXPORT(HTTP, "[method]future-incoming-response.subscribe") handle future_subscribe(fetch *future) {
  return new_pollable(FETCH, &future->object, 0);
}

EXPORT(HTTP, "[method]future-incoming-response.get") result_area *future_get(fetch *future) {
  start_fetches();
  result.number[0] = fetch_is_ready(future);
  if (!future->is_done) return &result;
  result.number[1] = future->is_taken;
  if (future->is_taken) return &result;
  future->is_taken = true;
  result.number[2] = future->is_failed;
  if (future->is_failed) {
    write_error_code(result.byte + 24, future->error);
  } else {
    adopt(&future->response->object, NULL);
    result.word[6] = incoming_response_handle(future->response);
  }
  return &result;
}

EXPORT(HTTP, "[method]incoming-response.status") uint32_t incoming_status(incoming_response *response) {
  return response->status;
}

EXPORT(HTTP, "[method]incoming-response.headers") handle incoming_headers(incoming_response *response) {
  return new_fields(response->headers, true);
}

EXPORT(HTTP, "[method]incoming-response.consume")
result_area *incoming_consume(incoming_response *response) {
  if (response->is_consumed) return give_handle(true, 0);
  response->is_consumed = true;
  return give_handle(false, new_incoming_body(response->body));
}
