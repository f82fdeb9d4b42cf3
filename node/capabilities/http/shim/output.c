// The resource `output-stream`: bodies, standard output and standard error.
//
// What a guest writes gathers in a buffer. It leaves when the buffer is full, or when the guest waits for
// something: so a short response leaves as a whole when the guest has returned, and costs no call of the host.

#include "shim.h"

RESOURCE(STREAMS, "output-stream", output_stream)

enum { FIRST_CAPACITY = 1024, UNSENT_SIZE = 1 << 20 };

handle new_output(output *stream) { return output_stream_handle(stream); }

// Standard output and error

static output logs[2];

handle log_stream(uint8_t log) {
  output *stream = arena_allocate(sizeof *stream);
  *stream = (output){.log = log};
  adopt(&stream->object, NULL);
  return output_stream_handle(stream);
}

static void write_log(uint8_t log, bytes data);

// Sending

// A question about a stream: a line with its number, and data.
static bytes send(uint8_t operation, uint32_t channel, bytes data) {
  writer question = write_text(2 + NUMBER_SIZE + packed_size(data.length));
  put_byte(&question, operation);
  put_number(&question, channel);
  put_byte(&question, '\n');
  put_packed(&question, data);
  return ask_host(written(&question));
}

static void require_peer(output *stream) {
  if (stream->body->request == NULL) {
    if (current.state != SET) fault("it waits for room in the body of a response that it has not set yet");
    send_head();
  } else if (stream->body->request->fetch != NULL) {
    start_fetch(stream->body->request->fetch);
  } else {
    fault("it waits for room in the body of a request that it has not sent yet");
  }
}

// Send what is in the buffer. If that may not wait, it may be that nothing was taken yet.
void output_send(output *stream, bool may_wait) {
  if (stream->is_broken) return;
  if (!stream->is_begun) require_peer(stream);
  if (stream->length == 0) return;
  bytes answer = send(may_wait ? 'w' : 'o', stream->channel, (bytes){stream->buffer, stream->length});
  if (answer.length > 0 && answer.data[0] == 'n') return;
  if (answer.length > 0) stream->is_broken = true;
  stream->length = 0;
}

void end_output(output *stream, const field_list *trailers) {
  output_send(stream, true);
  writer question = write_text(2 + NUMBER_SIZE + fields_size(trailers));
  put_byte(&question, 'e');
  put_number(&question, stream->channel);
  put_byte(&question, '\n');
  put_fields(&question, trailers);
  if (!stream->is_broken) ask_host(written(&question));
  stream->is_finished = true;
}

void break_output(output *stream) {
  if (stream->is_begun && !stream->is_broken) ask('a', stream->channel);
  stream->is_broken = true;
}

// Room

// While nobody can take it yet, as before `response-outparam.set`, more of a body waits here than later on.
static size_t capacity_of(const output *stream) {
  const outgoing_body *body = stream->body;
  bool has_peer = body->request == NULL ? current.state == SET : body->request->fetch != NULL;
  return has_peer ? BUFFER_SIZE : UNSENT_SIZE;
}

static size_t room(output *stream) {
  if (stream->log) return BUFFER_SIZE;
  size_t capacity = capacity_of(stream);
  if (stream->length >= capacity) output_send(stream, false);
  return stream->length < capacity ? capacity - stream->length : 0;
}

bool output_is_ready(output *stream) { return stream->is_broken || stream->is_finished || room(stream) > 0; }

static void append(output *stream, const uint8_t *data, size_t length) {
  if (stream->length + length > stream->capacity) {
    size_t capacity = stream->capacity ? stream->capacity * 2 : FIRST_CAPACITY;
    while (capacity < stream->length + length) capacity *= 2;
    stream->buffer = arena_resize(stream->buffer, stream->length, capacity);
    stream->capacity = capacity;
  }
  uint8_t *end = stream->buffer + stream->length;
  if (data != NULL)
    COPY(end, data, length);
  else
    __builtin_memset(end, 0, length);
  stream->length += length;
}

static void write_log(uint8_t log, bytes data) {
  output *stream = &logs[log - '1'];
  while (data.length > 0) {
    size_t length = data.length < BUFFER_SIZE - stream->length ? data.length : BUFFER_SIZE - stream->length;
    append(stream, data.data, length);
    data.data += length;
    data.length -= length;
    if (stream->length == BUFFER_SIZE || !current.is_serving) flush_logs();
  }
}

void flush_logs(void) {
  for (uint8_t i = 0; i < 2; i++) {
    if (logs[i].length > 0) send('1' + i, 0, (bytes){logs[i].buffer, logs[i].length});
    logs[i].length = 0;
    if (!current.is_serving) logs[i].capacity = 0, logs[i].buffer = NULL; // the arena may be emptied
  }
}

// What the functions do

static bool is_over(const output *stream) {
  return stream->is_broken || stream->is_finished || (stream->body != NULL && stream->body->stream.is_finished);
}

static result_area *give_closed(size_t offset) {
  result.word[0] = 1;
  result.word[offset / 4] = 1;
  return &result;
}

static result_area *give_done(void) {
  result.word[0] = 0;
  return &result;
}

static result_area *give_count(uint64_t count) {
  result.number[0] = 0;
  result.number[1] = count;
  return &result;
}

static bool exceeds(output *stream, size_t length) {
  stream->written += length;
  return stream->is_announced && stream->written > stream->announced;
}

static result_area *give_excess(output *stream, size_t offset) {
  uint32_t code = stream->body->request == NULL ? RESPONSE_BODY_SIZE : REQUEST_BODY_SIZE;
  break_output(stream);
  result.word[0] = 1;
  result.word[offset / 4] = 0;
  result.word[offset / 4 + 1] =
      new_error((error_code){.code = code, .has_number = true, .number = stream->written});
  return &result;
}

// Without data, zeros are written.
static result_area *write(output *stream, const uint8_t *data, size_t length) {
  if (stream->log) {
    if (data != NULL) write_log(stream->log, (bytes){data, length});
    return give_done(); // zeros say nothing to who reads a log
  }
  if (exceeds(stream, length)) return give_excess(stream, 4);
  append(stream, data, length);
  return give_done();
}

static result_area *check_write(output *stream) {
  scratch_release();
  if (is_over(stream)) return give_closed(8);
  stream->permit = room(stream);
  return give_count(stream->permit);
}

// A body takes what there is room for although nobody asked, as in wasmtime: StarlingMonkey, which runs handlers
// in JavaScript, writes what it has to say of an error so.
static void spend(output *stream, uint64_t length) {
  if (length > stream->permit && (stream->log || length > room(stream)))
    fault("it wrote more than the `check-write` before allowed");
  stream->permit -= length < stream->permit ? length : stream->permit;
}

// Write at once, waiting for room if need be; what is on its way to a peer already goes on there.
static result_area *write_through(output *stream, const uint8_t *data, uint64_t length) {
  if (length > FLUSH_LIMIT) fault("it gave more than 4096 bytes to a `blocking-write-and-flush`");
  if (is_over(stream)) return give_closed(4);
  if (!stream->log && room(stream) < length) output_send(stream, true);
  result_area *given = write(stream, data, (size_t)length);
  if (given->word[0] == 0 && stream->is_begun) output_send(stream, true);
  return stream->is_broken && given->word[0] == 0 ? give_closed(4) : given;
}

static result_area *flush(output *stream, bool may_wait) {
  scratch_release();
  if (is_over(stream)) return give_closed(4);
  if (stream->is_begun) output_send(stream, may_wait);
  return stream->is_broken ? give_closed(4) : give_done();
}

static result_area *splice(output *to, input *from, uint64_t most, bool may_wait) {
  scratch_release();
  if (is_over(to)) return give_closed(8);
  uint64_t space = room(to);
  if (may_wait && space == 0) output_send(to, true), space = room(to);
  if (most > space) most = space;
  if (most > 0) input_fetch(from, may_wait);
  if (most > 0 && from->length == 0 && from->state != READING) return give_closed(8);
  size_t length = from->length < most ? from->length : (size_t)most;
  if (write(to, from->data, length)->word[0] != 0) return give_closed(8);
  from->data += length;
  from->length -= length;
  return give_count(length);
}

EXPORT(STREAMS, "[method]output-stream.check-write")
result_area *output_check_write(output *stream) { return check_write(stream); }

EXPORT(STREAMS, "[method]output-stream.write")
result_area *output_write(output *stream, const uint8_t *data, size_t length) {
  if (is_over(stream)) return give_closed(4);
  spend(stream, length);
  return write(stream, data, length);
}

EXPORT(STREAMS, "[method]output-stream.blocking-write-and-flush")
result_area *output_write_through(output *stream, const uint8_t *data, size_t length) {
  return write_through(stream, data, length);
}

EXPORT(STREAMS, "[method]output-stream.flush")
result_area *output_flush(output *stream) { return flush(stream, false); }

EXPORT(STREAMS, "[method]output-stream.blocking-flush")
result_area *output_blocking_flush(output *stream) { return flush(stream, true); }

EXPORT(STREAMS, "[method]output-stream.subscribe") handle output_subscribe(output *stream) {
  return new_pollable(OUTPUT, &stream->object, 0);
}

EXPORT(STREAMS, "[method]output-stream.write-zeroes")
result_area *output_write_zeroes(output *stream, uint64_t length) {
  if (is_over(stream)) return give_closed(4);
  spend(stream, length);
  return write(stream, NULL, (size_t)length);
}

EXPORT(STREAMS, "[method]output-stream.blocking-write-zeroes-and-flush")
result_area *output_write_zeroes_through(output *stream, uint64_t length) {
  return write_through(stream, NULL, length);
}

EXPORT(STREAMS, "[method]output-stream.splice")
result_area *output_splice(output *stream, input *from, uint64_t most) {
  return splice(stream, from, most, false);
}

EXPORT(STREAMS, "[method]output-stream.blocking-splice")
result_area *output_blocking_splice(output *stream, input *from, uint64_t most) {
  return splice(stream, from, most, true);
}
