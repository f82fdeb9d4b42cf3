// demo:thumbs in C: photos and thumbnails in wasi:blobstore, orders by wasmcloud:messaging.
//
// A thumbnail is every sixteenth byte of its photo; what matters here is how the bytes travel.

#include "component.h"

#define BLOBS(part) "wasi:blobstore/" part "@0.2.0-draft"
#define STREAMS "wasi:io/streams@0.2.0"

enum { PIECE = 4096, STEP = 16, NAMES = 100 };

typedef int32_t handle;

// A `result` whose error is a string, and whose value is a handle, a list or nothing.
typedef struct {
  uint8_t is_error;
  union {
    handle resource;
    bytes data;
  } as;
} result;

// `result<u64, string>`
typedef struct {
  uint8_t is_error;
  union {
    uint64_t size;
    bytes text;
  } as;
} size_result;

// `result<tuple<list<string>, bool>, string>`
typedef struct {
  uint8_t is_error;
  bytes names; // of structures, not of bytes; or the error
  bool is_last;
} names_result;

// A `result` whose error is a `stream-error`.
typedef struct {
  uint8_t is_error;
  union {
    bytes data;
    struct {
      uint8_t is_closed;
      handle error;
    } failure;
  } as;
} stream_result;

IMPORT(BLOBS("blobstore"), "create-container") void create_container(const uint8_t *, size_t, result *);
IMPORT(BLOBS("container"), "[method]container.get-data")
void get_data(handle, const uint8_t *, size_t, uint64_t, uint64_t, result *);
IMPORT(BLOBS("container"), "[method]container.write-data")
void write_data(handle, const uint8_t *, size_t, handle, result *);
IMPORT(BLOBS("container"), "[method]container.list-objects") void list_objects(handle, result *);
IMPORT(BLOBS("container"), "[method]container.delete-object")
void delete_object(handle, const uint8_t *, size_t, result *);
IMPORT(BLOBS("container"), "[resource-drop]container") void drop_container(handle);
IMPORT(BLOBS("container"), "[method]stream-object-names.read-stream-object-names")
void read_names(handle, uint64_t, names_result *);
IMPORT(BLOBS("container"), "[resource-drop]stream-object-names") void drop_names(handle);
IMPORT(BLOBS("types"), "[static]outgoing-value.new-outgoing-value") handle new_outgoing_value(void);
IMPORT(BLOBS("types"), "[method]outgoing-value.outgoing-value-write-body") void write_body(handle, result *);
IMPORT(BLOBS("types"), "[static]outgoing-value.finish") void finish(handle, result *);
IMPORT(BLOBS("types"), "[resource-drop]outgoing-value") void drop_outgoing_value(handle);
IMPORT(BLOBS("types"), "[static]incoming-value.incoming-value-consume-sync") void consume_sync(handle, result *);
IMPORT(BLOBS("types"), "[static]incoming-value.incoming-value-consume-async") void consume_async(handle, result *);
IMPORT(STREAMS, "[method]input-stream.blocking-read") void blocking_read(handle, uint64_t, stream_result *);
IMPORT(STREAMS, "[method]output-stream.blocking-write-and-flush")
void write_and_flush(handle, const uint8_t *, size_t, stream_result *);
IMPORT(STREAMS, "[resource-drop]input-stream") void drop_input_stream(handle);
IMPORT(STREAMS, "[resource-drop]output-stream") void drop_output_stream(handle);
IMPORT("wasmcloud:messaging/consumer@0.2.0", "publish")
void publish(const uint8_t *, size_t, const uint8_t *, size_t, int32_t, const uint8_t *, size_t, result *);

// An object that is being written.
typedef struct {
  handle value, stream;
  bytes error; // of what failed first; no data while all is well
} writer;

static bool open_container(bytes name, handle *container, bytes *error) {
  result opened;
  create_container(name.data, name.length, &opened); // one that exists is opened
  if (opened.is_error) return *error = opened.as.data, false;
  *container = opened.as.resource;
  return true;
}

static writer begin(handle container, bytes name) {
  result done;
  writer made = {new_outgoing_value(), -1, {0, 0}};
  write_data(container, name.data, name.length, made.value, &done);
  if (done.is_error) {
    made.error = done.as.data;
    return made;
  }
  write_body(made.value, &done);
  made.stream = done.as.resource;
  return made;
}

static void put(writer *to, bytes data) {
  for (size_t at = 0; at < data.length && !to->error.data; at += PIECE) {
    stream_result written;
    size_t length = data.length - at < PIECE ? data.length - at : PIECE;
    write_and_flush(to->stream, data.data + at, length, &written);
    if (written.is_error) to->error = TEXT("the blob store takes no more");
  }
}

// Nobody sees the object before this has succeeded. What failed is dropped, and nothing is stored.
static bool end(writer *to, bytes *error) {
  result done;
  if (to->stream >= 0) drop_output_stream(to->stream);
  bool is_told = to->error.data && to->stream < 0; // the reason is known
  if (is_told) {
    drop_outgoing_value(to->value);
    return *error = to->error, false;
  }
  finish(to->value, &done); // of a transfer that broke off it says why
  if (done.is_error) return *error = done.as.data, false;
  return true;
}

static bool find(bytes container, bytes name, handle *value, bytes *error) {
  result found;
  handle opened;
  if (!open_container(container, &opened, error)) return false;
  get_data(opened, name.data, name.length, 0, UINT64_MAX, &found);
  drop_container(opened);
  if (found.is_error) return *error = found.as.data, false;
  *value = found.as.resource;
  return true;
}

static bool read_whole(bytes container, bytes name, bytes *data) {
  result read;
  handle value;
  if (!find(container, name, &value, data)) return false;
  consume_sync(value, &read);
  *data = read.as.data;
  return !read.is_error;
}

// Every STEP-th byte of what comes, as far as `at` says where the next one is.
static bytes shrink_piece(bytes piece, uint64_t *at) {
  bytes small = {piece.data, 0};
  for (; *at < piece.length; *at += STEP) small.data[small.length++] = piece.data[*at];
  *at -= piece.length;
  return small;
}

static bool copy_small(handle input, writer *to, uint64_t *size, bytes *error) {
  stream_result read;
  uint64_t at = 0;
  *size = 0;
  for (;;) {
    uint8_t *mark = arena_end;
    blocking_read(input, 16 * PIECE, &read);
    if (read.is_error) break;
    bytes small = shrink_piece(read.as.data, &at);
    *size += small.length;
    put(to, small);
    arena_end = mark; // the piece was written: the next one takes its place
  }
  if (read.as.failure.is_closed) return true;
  return *error = TEXT("the photo broke off"), false;
}

static bool shrink(bytes name, uint64_t *size, bytes *error) {
  result body;
  handle value, container;
  if (!find(TEXT("photos"), name, &value, error)) return false;
  if (!open_container(TEXT("thumbs"), &container, error)) return false;
  consume_async(value, &body);
  if (body.is_error) return *error = body.as.data, false;
  writer to = begin(container, name);
  bool is_whole = copy_small(body.as.resource, &to, size, error);
  drop_input_stream(body.as.resource);
  drop_container(container);
  if (is_whole) return end(&to, error);
  drop_output_stream(to.stream);
  drop_outgoing_value(to.value);
  return false;
}

static bool tell(bytes subject, bytes text, bytes *error) {
  result done;
  publish(subject.data, subject.length, text.data, text.length, 0, 0, 0, &done);
  if (done.is_error) *error = done.as.data;
  return !done.is_error;
}

// The exports

EXPORT("wasmcloud:messaging/handler@0.2.0#handle-message")
result *handle_message(uint8_t *subject, size_t subject_length, uint8_t *body, size_t body_length,
                       int32_t has_reply, uint8_t *reply, size_t reply_length) {
  static result done;
  (void)subject, (void)subject_length;
  bytes name = {body, body_length};
  uint64_t size;
  done.is_error = !shrink(name, &size, &done.as.data);
  if (!done.is_error) {
    bytes text = CONCATENATE(TEXT("made "), name);
    done.is_error = !tell(TEXT("thumbs.made"), text, &done.as.data);
    if (!done.is_error && has_reply) done.is_error = !tell((bytes){reply, reply_length}, text, &done.as.data);
  }
  return &done;
}

EXPORT("demo:thumbs/album#add")
size_result *add(uint8_t *name, size_t name_length, uint8_t *photo, size_t photo_length) {
  static size_result done;
  handle container;
  bytes data = {photo, photo_length};
  done.is_error = !open_container(TEXT("photos"), &container, &done.as.text);
  if (!done.is_error) {
    writer to = begin(container, (bytes){name, name_length});
    put(&to, data);
    done.is_error = !end(&to, &done.as.text);
    drop_container(container);
  }
  if (!done.is_error) done.as.size = photo_length;
  return &done;
}

EXPORT("demo:thumbs/album#photo")
result *photo(uint8_t *name, size_t length) {
  static result done;
  done.is_error = !read_whole(TEXT("photos"), (bytes){name, length}, &done.as.data);
  return &done;
}

EXPORT("demo:thumbs/album#thumb")
result *thumb(uint8_t *name, size_t length) {
  static result done;
  done.is_error = !read_whole(TEXT("thumbs"), (bytes){name, length}, &done.as.data);
  return &done;
}

// Appends to a list that lies in an array of its own, because each page comes in a place of its own.
static bytes *found;
static size_t found_count;

static bool all_names(handle list, bytes *error) {
  names_result page;
  do {
    read_names(list, NAMES, &page);
    if (page.is_error) return *error = page.names, false;
    bytes *grown = arena_allocate(4, (found_count + page.names.length) * sizeof(bytes));
    __builtin_memcpy(grown, found, found_count * sizeof(bytes));
    __builtin_memcpy(grown + found_count, page.names.data, page.names.length * sizeof(bytes));
    found = grown;
    found_count += page.names.length;
  } while (!page.is_last);
  return true;
}

EXPORT("demo:thumbs/album#names")
result *names(void) {
  static result done;
  result list;
  handle container;
  found = 0, found_count = 0;
  done.is_error = !open_container(TEXT("photos"), &container, &done.as.data);
  if (done.is_error) return &done;
  list_objects(container, &list);
  drop_container(container);
  if (list.is_error) {
    done.is_error = 1, done.as.data = list.as.data;
    return &done;
  }
  done.is_error = !all_names(list.as.resource, &done.as.data);
  drop_names(list.as.resource);
  if (!done.is_error) done.as.data = (bytes){(uint8_t *)found, found_count};
  return &done;
}

EXPORT("demo:thumbs/album#remove")
result *remove_photo(uint8_t *name, size_t length) {
  static result done;
  handle container;
  done.is_error = !open_container(TEXT("photos"), &container, &done.as.data);
  if (!done.is_error) {
    delete_object(container, name, length, &done);
    drop_container(container);
  }
  return &done;
}

EXPORT("demo:thumbs/album#shrink")
size_result *shrink_photo(uint8_t *name, size_t length) {
  static size_result done;
  uint64_t size;
  bytes error;
  done.is_error = !shrink((bytes){name, length}, &size, &error);
  if (done.is_error)
    done.as.text = error;
  else
    done.as.size = size;
  return &done;
}

#define POST(function) \
  EXPORT("cabi_post_" function)
POST("wasmcloud:messaging/handler@0.2.0#handle-message") void handle_message_done(void *r) { (void)r, arena_reset(); }
POST("demo:thumbs/album#add") void add_done(void *r) { (void)r, arena_reset(); }
POST("demo:thumbs/album#photo") void photo_done(void *r) { (void)r, arena_reset(); }
POST("demo:thumbs/album#thumb") void thumb_done(void *r) { (void)r, arena_reset(); }
POST("demo:thumbs/album#names") void names_done(void *r) { (void)r, arena_reset(); }
POST("demo:thumbs/album#remove") void remove_done(void *r) { (void)r, arena_reset(); }
POST("demo:thumbs/album#shrink") void shrink_done(void *r) { (void)r, arena_reset(); }
