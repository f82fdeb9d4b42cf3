// The shim: WASI and wasi:http inside the sandbox, in one core module beside the guest's component.
//
// It owns every resource that the guest holds, so that a request needs one call from the host and none back, as
// long as the guest neither waits nor sends more than fits into a buffer. What it can't do by itself it asks of
// the host through one imported function (host.c).
//
// Memory, the module's own and out of the guest's reach:
//
//   arena    what lives as long as the request: objects, header fields, buffers of streams. It is emptied after
//            a request unless the guest still holds something (serve.c).
//   scratch  what crosses the border: arguments, results, answers of the host. Whoever lets a function with
//            such values be called has `done` called after it (its post-return), which frees all scratch.
//
// The canonical ABI as used here: parameters come as plain values, a handle of one's own resource as the
// address of its object if borrowed and as an index if owned; results of more than one value are written to
// `result`, whose address is returned.

#ifndef SHIM_H
#define SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT(interface, name) __attribute__((export_name(interface "#" name)))
#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))

#define HTTP "wasi:http/types"
#define STREAMS "wasi:io/streams"
#define POLL "wasi:io/poll"

typedef uint32_t handle;

typedef struct {
  const uint8_t *data;
  size_t length;
} bytes;

#define TEXT(literal) ((bytes){(const uint8_t *)(literal), sizeof(literal) - 1})
#define COPY __builtin_memcpy
#define IS(flag) ((flag) ? 1 : 0)

// Every resource begins with this. The destructor, which runs when the guest drops its handle, is in memory.wat:
// it fails if children are alive, tells the parent, and marks the object.
typedef struct object {
  uint32_t children;
  struct object *parent;
  uint32_t is_dropped;
} object;

// memory.wat
#define MEMORY(name) __attribute__((import_module("memory"), import_name(name)))

// What makes handles of objects: the component model, or, INSIDE a guest's component, the table in memory.wat, where
// a type has the hash of its name (FNV-1a) as its number. Then a method, too, gets the address of its object.
#ifndef INSIDE

#define RESOURCE(interface, name, symbol)                                            \
  IMPORT("new", interface "#" name) handle symbol##_handle(void *object);            \
  IMPORT("rep", interface "#" name) void *symbol##_object(handle handle);            \
  IMPORT("drop", interface "#" name) void symbol##_drop(handle handle);

#else

MEMORY("handle-new") handle handle_new(void *object, uint32_t type);
MEMORY("handle-object") void *handle_object(handle handle, uint32_t type);
MEMORY("handle-drop") void handle_drop(handle handle, uint32_t type);

__attribute__((always_inline)) static inline uint32_t type_number(const char *name, size_t length) {
  uint32_t hash = 2166136261;
#pragma clang loop unroll(full)
  for (size_t i = 0; i < length; i++) hash = (hash ^ (uint8_t)name[i]) * 16777619;
  return hash;
}

#define HELPER __attribute__((unused)) static inline
#define TYPE(interface, name) type_number(interface "#" name, sizeof(interface "#" name) - 1)
#define RESOURCE(interface, name, symbol)                                                                       \
  HELPER handle symbol##_handle(void *object) { return handle_new(object, TYPE(interface, name)); }             \
  HELPER void *symbol##_object(handle handle) { return handle_object(handle, TYPE(interface, name)); }          \
  HELPER void symbol##_drop(handle handle) { handle_drop(handle, TYPE(interface, name)); }

#endif
MEMORY("allocate") void *arena_allocate(size_t size);
MEMORY("resize") void *arena_resize(void *old, size_t old_size, size_t size); // the newest grows in place
MEMORY("scratch") void *scratch_allocate(size_t size);
MEMORY("release") void scratch_release(void);
MEMORY("keep") void scratch_keep(void); // what is in scratch now belongs to the arena
MEMORY("count") void count_living(void);
MEMORY("end") void end_of_request(void);

static inline void adopt(object *child, object *parent) {
  *child = (object){0, parent, 0};
  if (parent != NULL) parent->children++;
  count_living();
}

// text.c
bool equals(bytes a, bytes b);
bool equals_caseless(bytes a, bytes b);
bytes kept(bytes text);
bool is_utf8(bytes text);
uint64_t parse_number(bytes text);
bytes next_part(bytes *text, uint8_t separator);
bytes next_line(bytes *text);

// A text that is put together: in scratch, of a size that is known before.
typedef struct {
  uint8_t *start;
  uint8_t *end;
} writer;

writer write_text(size_t most);
void put(writer *to, bytes text);
void put_byte(writer *to, uint8_t byte);
void put_number(writer *to, uint64_t number);
bytes written(const writer *to);

enum { NUMBER_SIZE = 20 }; // the most digits of a 64-bit number

// packing.c
size_t packed_size(size_t length);
void put_packed(writer *to, bytes data);
size_t unpack(const uint8_t *source, size_t size, uint8_t *target);

// The one place for results that don't fit a core value.
typedef union {
  uint8_t byte[64];
  uint32_t word[16];
  uint64_t number[8];
} result_area;

extern result_area result;

result_area *give_bytes(bytes data);
result_area *give_optional(bool is_some, bytes data);
result_area *give_handle(bool is_error, handle handle);

// host.c: the one imported function. Answers lie in scratch.
bytes ask_host(bytes question);
bytes ask(uint8_t operation, uint32_t number);
_Noreturn void fault(const char *problem); // ends the guest's call; the host says why

// errors.c
typedef struct {
  uint32_t code; // the case of wasi:http/types.error-code
  bool has_text, has_number;
  bytes text;
  uint64_t number;
} error_code;

enum {
  DNS_ERROR = 1,
  TLS_ALERT_RECEIVED = 14,
  REQUEST_BODY_SIZE = 17,
  RESPONSE_BODY_SIZE = 28,
  PROTOCOL_ERROR = 35,
  INTERNAL_ERROR = 38,
};

typedef struct {
  object object;
  error_code code;
} io_error;

void write_error_code(uint8_t *place, error_code error);
error_code read_error_code(bytes text); // as the host writes it
handle new_error(error_code code);

// fields.c
typedef struct {
  bytes name;
  bytes value;
} field;

typedef struct {
  field *data;
  size_t length, capacity;
} field_list;

typedef struct {
  object object;
  field_list *list;
  bool is_immutable;
} fields;

void append_field(field_list *list, bytes name, bytes value);
bytes *find_field(const field_list *list, bytes name);
handle new_fields(field_list *list, bool is_immutable);
field_list *new_list(void);
field_list *take_fields(handle fields); // consumes the handle
bool is_token(bytes text);
void read_fields(bytes *text, field_list *list); // lines `name:value`, to an empty one
size_t fields_size(const field_list *list);
void put_fields(writer *to, const field_list *list);

// input.c: bytes that the guest reads, and what follows them
typedef enum { READING, ENDED, BROKEN } input_state;

typedef struct {
  object object; // of the resource input-stream
  const uint8_t *data;
  size_t length;
  uint8_t *buffer;  // for what the host gives, made when it first does
  uint32_t channel; // the host's number of the stream; none if everything is here
  input_state state;
  error_code error;
  field_list *trailers;
} input;

enum { NO_CHANNEL = 0xffffffff };

void input_whole(input *stream, bytes data);
void input_from(input *stream, uint32_t channel, bytes first);
void input_fetch(input *stream, bool may_wait);
bool input_is_ready(input *stream);
handle new_input(input *stream);

typedef struct {
  object object;
  input stream;
  bool is_streamed;
  object *trailers; // once it was finished, the resource that it became
} incoming_body;

// output.c: bytes that the guest writes
typedef struct output {
  object object; // of the resource output-stream
  uint8_t *buffer;
  size_t length, capacity;
  uint64_t permit;  // what the last check-write allowed
  uint64_t written; // all in all
  uint64_t announced;
  uint32_t channel;
  bool is_announced, is_begun, is_finished, is_broken;
  uint8_t log; // '1' for standard output, '2' for standard error, 0 for a body
  struct outgoing_body *body;
} output;

enum { BUFFER_SIZE = 65536, FLUSH_LIMIT = 4096 };

bool output_is_ready(output *stream);
void output_send(output *stream, bool may_wait);
void end_output(output *stream, const field_list *trailers);
void break_output(output *stream);
handle new_output(output *stream);
handle log_stream(uint8_t log);
void flush_logs(void);

// bodies.c
typedef struct outgoing_body {
  object object;
  output stream;
  field_list *trailers;
  bool is_streamed;
  struct outgoing_request *request; // of which it is the body; none for a response
} outgoing_body;

bool read_length(const field_list *headers, bool *is_announced, uint64_t *length);
outgoing_body *make_body(const field_list *headers, struct outgoing_request *request);
handle body_for_guest(outgoing_body *body);
handle new_incoming_body(incoming_body *body);

// poll.c
typedef enum { ALWAYS, TIMER, INPUT, OUTPUT, FETCH } pollable_kind;

handle new_pollable(pollable_kind kind, object *parent, uint64_t deadline);

// clocks.c
uint64_t monotonic_now(void);

// serve.c: the request and the response of a call
typedef struct outgoing_response {
  object object;
  uint32_t status;
  field_list *headers;
  outgoing_body *body;
} outgoing_response;

typedef enum { UNSET, SET, REFUSED } response_state;

typedef struct {
  response_state state;
  outgoing_response *response;
  error_code error;
  bool is_serving;   // between begin and end: what is logged waits for the end
  bool is_head_sent; // the response has begun to leave, or has been handed over
  bool is_head;      // the method: a response to it announces a body that is not sent
} exchange;

extern exchange current;

void send_head(void);
void before_waiting(void); // whatever can leave should, when the guest is about to wait
void hand_over(void); // the response, if it is whole
bytes message(uint8_t tag, uint8_t packed_tag, bytes head, bytes body);
bytes scheme_text(uint32_t tag, const uint8_t *data, size_t length);
bytes method_text(uint32_t tag, const uint8_t *data, size_t length);
void give_scheme(uint8_t *place, bytes scheme);
void give_method(uint8_t *place, bytes method);

// outgoing.c: requests to the network
typedef struct incoming_response {
  object object;
  uint32_t status;
  field_list *headers;
  incoming_body *body;
  bool is_consumed;
} incoming_response;

typedef struct fetch {
  object object;
  struct outgoing_request *request;
  uint32_t channel;
  bool is_started, is_done, is_taken, is_failed, is_given_up;
  incoming_response *response;
  error_code error;
  struct fetch *next;
} fetch;

typedef struct outgoing_request {
  object object;
  bytes method, scheme, authority, path;
  bool has_scheme, has_authority, has_path;
  field_list *headers;
  outgoing_body *body;
  fetch *fetch; // once it was handed to the network
  bytes timeouts;
} outgoing_request;

bool fetch_is_ready(fetch *future);
void start_fetch(fetch *future);
void start_fetches(void);
void forget_fetches(void);

// random.c
void seed_random(bytes digits);
void forget_seed(void);

#endif
