// The resource `input-stream`: bodies, and a standard input that is empty.

#include "shim.h"

RESOURCE(STREAMS, "input-stream", input_stream)

handle new_input(input *stream) { return input_stream_handle(stream); }

void input_whole(input *stream, bytes data) {
  *stream = (input){.data = data.data, .length = data.length, .channel = NO_CHANNEL, .state = ENDED};
}

void input_from(input *stream, uint32_t channel, bytes first) {
  *stream = (input){.data = first.data, .length = first.length, .channel = channel, .state = READING};
}

static void end_input(input *stream, bytes trailers) {
  stream->state = ENDED;
  if (trailers.length == 0) return;
  bytes text = kept(trailers);
  stream->trailers = new_list();
  read_fields(&text, stream->trailers);
}

static void take(input *stream, bytes answer) {
  bytes rest = {answer.data + 1, answer.length - 1};
  if (answer.length == 0 || answer.data[0] == 'n') return;
  switch (answer.data[0]) {
    case 'e': end_input(stream, rest); return;
    case '!':
      stream->state = BROKEN;
      stream->error = read_error_code(rest);
      return;
    default: break;
  }
  // Data are copied out of scratch, into the one buffer of the stream.
  if (rest.length > packed_size(BUFFER_SIZE)) fault("the host sent more than was agreed upon");
  if (stream->buffer == NULL) stream->buffer = arena_allocate(BUFFER_SIZE);
  stream->length = unpack(rest.data, rest.length, stream->buffer);
  stream->data = stream->buffer;
}

void input_fetch(input *stream, bool may_wait) {
  if (stream->length > 0 || stream->state != READING) return;
  if (may_wait) {
    before_waiting();
    scratch_release(); // what was sent has left, and a function that may wait here was given no lists
  }
  take(stream, ask(may_wait ? 'r' : 'R', stream->channel));
}

bool input_is_ready(input *stream) {
  input_fetch(stream, false);
  return stream->length > 0 || stream->state != READING;
}

// `offset` is where the error lies in a result, which depends on its other case.
static result_area *give_stream_error(input *stream, size_t offset) {
  result.word[0] = 1;
  result.byte[offset] = stream->state == ENDED;
  if (stream->state == BROKEN) {
    result.word[offset / 4 + 1] = new_error(stream->error);
    stream->state = ENDED;
  }
  return &result;
}

static size_t consume(input *stream, uint64_t most) {
  size_t length = stream->length < most ? stream->length : (size_t)most;
  stream->data += length;
  stream->length -= length;
  return length;
}

static result_area *read(input *stream, uint64_t most, bool may_wait) {
  if (most > 0) input_fetch(stream, may_wait);
  if (most > 0 && stream->length == 0 && stream->state != READING) return give_stream_error(stream, 4);
  const uint8_t *data = stream->length > 0 ? stream->data : (const uint8_t *)&result;
  size_t length = consume(stream, most);
  result.word[0] = 0;
  result.word[1] = (uint32_t)data;
  result.word[2] = length;
  return &result;
}

static result_area *skip(input *stream, uint64_t most, bool may_wait) {
  scratch_release();
  if (most > 0) input_fetch(stream, may_wait);
  if (most > 0 && stream->length == 0 && stream->state != READING) return give_stream_error(stream, 8);
  result.number[0] = 0;
  result.number[1] = consume(stream, most);
  return &result;
}

EXPORT(STREAMS, "[method]input-stream.read")
result_area *input_read(input *stream, uint64_t most) { return read(stream, most, false); }

EXPORT(STREAMS, "[method]input-stream.blocking-read")
result_area *input_blocking_read(input *stream, uint64_t most) { return read(stream, most, true); }

EXPORT(STREAMS, "[method]input-stream.skip")
result_area *input_skip(input *stream, uint64_t most) { return skip(stream, most, false); }

EXPORT(STREAMS, "[method]input-stream.blocking-skip")
result_area *input_blocking_skip(input *stream, uint64_t most) { return skip(stream, most, true); }

EXPORT(STREAMS, "[method]input-stream.subscribe") handle input_subscribe(input *stream) {
  return new_pollable(INPUT, &stream->object, 0);
}
