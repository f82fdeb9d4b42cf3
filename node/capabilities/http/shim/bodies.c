// The resources `incoming-body`, `future-trailers` and `outgoing-body` of wasi:http/types.

#include "shim.h"

RESOURCE(HTTP, "incoming-body", incoming_body)
RESOURCE(HTTP, "future-trailers", future_trailers)
RESOURCE(HTTP, "outgoing-body", outgoing_body)

enum { MOST_DIGITS = 18 };

typedef struct {
  object object;
  input *stream;
  bool is_taken;
} future_trailers;

// Bodies that the guest reads

handle new_incoming_body(incoming_body *body) {
  adopt(&body->object, NULL);
  return incoming_body_handle(body);
}

EXPORT(HTTP, "[method]incoming-body.stream") result_area *incoming_body_stream(incoming_body *body) {
  if (body->is_streamed) return give_handle(true, 0);
  body->is_streamed = true;
  adopt(&body->stream.object, &body->object);
  return give_handle(false, new_input(&body->stream));
}

EXPORT(HTTP, "[static]incoming-body.finish") handle incoming_body_finish(handle handle) {
  incoming_body *body = incoming_body_object(handle);
  incoming_body_drop(handle);
  future_trailers *future = arena_allocate(sizeof *future);
  *future = (future_trailers){.stream = &body->stream};
  adopt(&future->object, NULL);
  body->trailers = &future->object;
  return future_trailers_handle(future);
}

EXPORT(HTTP, "[method]future-trailers.subscribe") handle trailers_subscribe(future_trailers *future) {
  return new_pollable(INPUT, &future->stream->object, 0);
}

EXPORT(HTTP, "[method]future-trailers.get") result_area *trailers_get(future_trailers *future) {
  input *stream = future->stream;
  do {
    stream->length = 0; // what the guest has not read it does not want
    input_fetch(stream, false);
  } while (stream->length > 0);
  result.number[0] = stream->state != READING;
  result.number[1] = future->is_taken;
  if (stream->state == READING || future->is_taken) return &result;
  future->is_taken = true;
  result.number[2] = stream->state == BROKEN;
  if (stream->state == BROKEN) {
    write_error_code(result.byte + 24, stream->error);
  } else {
    result.word[6] = stream->trailers != NULL;
    result.word[7] = stream->trailers ? new_fields(stream->trailers, true) : 0;
  }
  return &result;
}

// Bodies that the guest writes

// What `content-length` says, in digits only; if several say different things, nobody can tell.
bool read_length(const field_list *headers, bool *is_announced, uint64_t *length) {
  bytes *first = find_field(headers, TEXT("content-length"));
  *is_announced = first != NULL;
  *length = 0;
  if (first == NULL) return true;
  for (size_t i = 0; i < headers->length; i++) {
    const field *other = &headers->data[i];
    if (equals_caseless(other->name, TEXT("content-length")) && !equals(other->value, *first)) return false;
  }
  if (first->length == 0 || first->length > MOST_DIGITS) return false;
  for (size_t i = 0; i < first->length; i++)
    if (first->data[i] < '0' || first->data[i] > '9') return false;
  *length = parse_number(*first);
  return true;
}

outgoing_body *make_body(const field_list *headers, outgoing_request *request) {
  bool is_announced;
  uint64_t length;
  if (!read_length(headers, &is_announced, &length)) return NULL;
  outgoing_body *body = arena_allocate(sizeof *body);
  *body = (outgoing_body){.request = request};
  body->stream.is_announced = is_announced;
  body->stream.announced = length;
  body->stream.body = body;
  return body;
}

handle body_for_guest(outgoing_body *body) {
  adopt(&body->object, NULL);
  return outgoing_body_handle(body);
}

EXPORT(HTTP, "[method]outgoing-body.write") result_area *outgoing_body_write(outgoing_body *body) {
  if (body->is_streamed) return give_handle(true, 0);
  body->is_streamed = true;
  adopt(&body->stream.object, &body->object);
  return give_handle(false, new_output(&body->stream));
}

static bool is_length_wrong(const outgoing_body *body) {
  const output *stream = &body->stream;
  bool is_unsent = body->request == NULL && current.is_head;
  return stream->is_announced && !is_unsent && stream->written != stream->announced;
}

static result_area *give_wrong_length(outgoing_body *body) {
  uint32_t code = body->request == NULL ? RESPONSE_BODY_SIZE : REQUEST_BODY_SIZE;
  break_output(&body->stream);
  result.number[0] = 1;
  write_error_code(result.byte + 8,
                   (error_code){.code = code, .has_number = true, .number = body->stream.written});
  return &result;
}

// A stream that the guest still holds is no child any more: it takes nothing, and is dropped when the guest likes.
static void let_go_of_stream(outgoing_body *body) {
  if (body->object.children == 0) return;
  body->object.children = 0;
  body->stream.object.parent = NULL;
}

EXPORT(HTTP, "[static]outgoing-body.finish")
result_area *outgoing_body_finish(handle handle, uint32_t has_trailers, uint32_t trailers) {
  outgoing_body *body = outgoing_body_object(handle);
  let_go_of_stream(body);
  outgoing_body_drop(handle);
  if (has_trailers) body->trailers = take_fields(trailers);
  if (is_length_wrong(body)) return give_wrong_length(body);
  if (body->stream.is_begun)
    end_output(&body->stream, body->trailers);
  else
    body->stream.is_finished = true;
  if (body->request == NULL)
    hand_over();
  else if (body->request->fetch != NULL) start_fetch(body->request->fetch);
  result.number[0] = 0;
  return &result;
}
