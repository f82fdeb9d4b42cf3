// A guestbook: `POST` adds an entry, `GET .../N` gives the entry N, any other `GET` counts them.

#include "http.h"
#include "keyvalue.h"

#define BLOBS(part) "wasi:blobstore/" part "@0.2.0-draft"

enum { PIECE_BYTES = 4096, MOST_BYTES = 65536 };
enum { GET = 0, POST = 2 }; // cases of the variant `method`
enum { CLOSED = 1 };        // a case of the variant `stream-error`

// A `result` whose error is a text, and whose value is a resource, a flag, a list or nothing.
typedef struct {
  bool is_error;
  union {
    handle resource;
    bool flag;
    bytes data;
  };
} result;

// The variant `method`; `other` is the name of one that has no case of its own.
typedef struct {
  uint8_t tag;
  bytes other;
} method;

typedef struct {
  uint32_t status;
  bytes text;
} answer;

IMPORT(HTTP, "[method]incoming-request.method") void request_method(handle request, method *found);

IMPORT(BLOBS("blobstore"), "create-container")
void container_create(const uint8_t *name, size_t length, result *container);
IMPORT(BLOBS("container"), "[method]container.has-object")
void container_has(handle container, const uint8_t *name, size_t length, result *flag);
IMPORT(BLOBS("container"), "[method]container.get-data")
void container_get(handle container, const uint8_t *name, size_t length, uint64_t start, uint64_t end,
                   result *incoming);
IMPORT(BLOBS("container"), "[method]container.write-data")
void container_write(handle container, const uint8_t *name, size_t length, handle outgoing, result *done);
IMPORT(BLOBS("container"), "[resource-drop]container") void container_drop(handle container);
IMPORT(BLOBS("types"), "[static]outgoing-value.new-outgoing-value") handle outgoing_new(void);
IMPORT(BLOBS("types"), "[method]outgoing-value.outgoing-value-write-body")
void outgoing_body(handle outgoing, result *stream);
IMPORT(BLOBS("types"), "[static]outgoing-value.finish") void outgoing_end(handle outgoing, result *done);
IMPORT(BLOBS("types"), "[resource-drop]outgoing-value") void outgoing_drop(handle outgoing);
IMPORT(BLOBS("types"), "[static]incoming-value.incoming-value-consume-sync")
void incoming_read(handle incoming, result *data);

IMPORT("wasmcloud:messaging/consumer@0.2.0", "publish")
void message_publish(const uint8_t *subject, size_t subject_length, const uint8_t *body, size_t length,
                     uint32_t has_reply, const uint8_t *reply, size_t reply_length, result *done);

static answer unavailable(bytes reason) {
  return (answer){503, CONCATENATE(reason, TEXT("\n"))};
}

// The number of the new entry, in digits; false and the reason if there is none.
static bool take_number(bytes *number) {
  keyvalue_result opened;
  keyvalue_number sum;
  keyvalue_open(TEXT("default").data, TEXT("default").length, &opened);
  if (opened.is_error) return *number = keyvalue_reason(opened.error), false;
  keyvalue_increment(opened.bucket, TEXT("entries").data, TEXT("entries").length, 1, &sum);
  keyvalue_drop(opened.bucket);
  *number = sum.is_error ? keyvalue_reason(sum.error) : decimal(sum.number);
  return !sum.is_error;
}

static bool write_blob(handle container, bytes name, bytes text, bytes *reason) {
  result written, body, done;
  any_result ignored; // what went wrong with a piece, the end says, too
  handle value = outgoing_new();
  container_write(container, name.data, name.length, value, &written);
  if (written.is_error) {
    outgoing_drop(value);
    return *reason = written.data, false;
  }
  outgoing_body(value, &body);
  for (size_t at = 0; at < text.length; at += PIECE_BYTES) {
    size_t length = text.length - at < PIECE_BYTES ? text.length - at : PIECE_BYTES;
    stream_write_and_flush(body.resource, text.data + at, length, &ignored);
  }
  output_drop(body.resource);
  outgoing_end(value, &done);
  if (done.is_error) *reason = done.data;
  return !done.is_error;
}

static bool keep(bytes number, bytes text, bytes *reason) {
  result entries;
  container_create(TEXT("entries").data, TEXT("entries").length, &entries); // one that exists is opened
  if (entries.is_error) return *reason = entries.data, false;
  bool is_kept = write_blob(entries.resource, number, text, reason);
  container_drop(entries.resource);
  return is_kept;
}

static answer add(bytes text) {
  result told;
  bytes number, reason, subject = TEXT("guestbook.entries");
  if (!take_number(&number)) return unavailable(number);
  if (!keep(number, text, &reason)) return unavailable(reason);
  message_publish(subject.data, subject.length, text.data, text.length, 0, 0, 0, &told);
  bytes doubt = told.is_error ? CONCATENATE(TEXT(", but nobody was told: "), told.data) : TEXT("");
  return (answer){201, CONCATENATE(TEXT("entry "), number, doubt, TEXT("\n"))};
}

static answer count(void) {
  keyvalue_result opened, found;
  keyvalue_open(TEXT("default").data, TEXT("default").length, &opened);
  if (opened.is_error) return unavailable(keyvalue_reason(opened.error));
  keyvalue_get(opened.bucket, TEXT("entries").data, TEXT("entries").length, &found);
  keyvalue_drop(opened.bucket);
  if (found.is_error) return unavailable(keyvalue_reason(found.error));
  bytes number = found.value.is_some ? found.value.value : TEXT("0");
  return (answer){200, CONCATENATE(TEXT("entries: "), number, TEXT("\n"))};
}

static answer read_blob(handle container, bytes name) {
  result known, value, text;
  container_has(container, name.data, name.length, &known);
  if (known.is_error) return unavailable(known.data);
  if (!known.flag) return (answer){404, TEXT("there is no such entry\n")};
  container_get(container, name.data, name.length, 0, UINT64_MAX, &value);
  if (value.is_error) return unavailable(value.data);
  incoming_read(value.resource, &text);
  return text.is_error ? unavailable(text.data) : (answer){200, text.data};
}

static answer entry(bytes number) {
  result entries;
  container_create(TEXT("entries").data, TEXT("entries").length, &entries);
  if (entries.is_error) return unavailable(entries.data);
  answer found = read_blob(entries.resource, number);
  container_drop(entries.resource);
  return found;
}

// Reads until the end, or until there is a byte too many; false if the request broke off.
static bool read_stream(handle stream, bytes *text) {
  static uint8_t room[MOST_BYTES + 1];
  bytes_result piece;
  uint8_t *before = arena_end;
  *text = (bytes){room, 0};
  while (text->length < sizeof room) {
    stream_read(stream, sizeof room - text->length, &piece);
    if (piece.is_error) return *(uint8_t *)&piece.value == CLOSED;
    __builtin_memcpy(room + text->length, piece.value.data, piece.value.length);
    text->length += piece.value.length;
    arena_end = before; // the piece has been copied: its memory serves the next one
  }
  return true;
}

static bool read_body(handle request, bytes *text) {
  handle_result body, stream;
  request_consume(request, &body);
  incoming_stream(body.value, &stream);
  bool is_whole = read_stream(stream.value, text);
  input_drop(stream.value);
  incoming_drop(body.value);
  return is_whole;
}

static answer post(handle request) {
  bytes text;
  if (!read_body(request, &text)) return (answer){400, TEXT("the request broke off\n")};
  if (text.length > MOST_BYTES) return (answer){413, TEXT("an entry has at most 65536 bytes\n")};
  return add(text);
}

// What follows the path's last `/`, without the query.
static bytes last_segment(bytes path) {
  size_t start = 0, end = 0;
  for (; end < path.length && path.data[end] != '?'; end++)
    if (path.data[end] == '/') start = end + 1;
  return (bytes){path.data + start, end - start};
}

static bool is_number(bytes text) {
  for (size_t i = 0; i < text.length; i++)
    if (text.data[i] < '0' || text.data[i] > '9') return false;
  return text.length > 0;
}

static answer get(handle request) {
  optional_bytes path;
  request_path(request, &path);
  bytes name = path.is_some ? last_segment(path.value) : TEXT("");
  return is_number(name) ? entry(name) : count();
}

static answer answer_to(handle request) {
  method asked;
  request_method(request, &asked);
  if (asked.tag == POST) return post(request);
  if (asked.tag == GET) return get(request);
  return (answer){405, TEXT("use GET or POST\n")};
}

static void respond(handle outparam, answer given) {
  handle_result body, stream;
  any_result done;
  bytes name = TEXT("content-type"), type = TEXT("text/plain; charset=utf-8");
  handle headers = fields_new();
  fields_append(headers, name.data, name.length, type.data, type.length, &done);
  handle response = response_new(headers);
  response_set_status(response, given.status);
  response_body(response, &body);
  outparam_set(outparam, 0, response, 0, 0, 0, 0, 0, 0);
  outgoing_stream(body.value, &stream);
  write_all(stream.value, given.text);
  output_drop(stream.value);
  outgoing_finish(body.value, 0, 0, &done);
}

EXPORT("wasi:http/incoming-handler@0.2.0#handle")
void handle_request(handle request, handle outparam) {
  answer given = answer_to(request);
  request_drop(request);
  respond(outparam, given);
  arena_reset();
}
