// The resource `fields` of wasi:http/types: header fields and trailers.

#include "shim.h"

RESOURCE(HTTP, "fields", fields)

enum { FIRST_CAPACITY = 8, MAX_SIZE = 128 * 1024, ENTRY_SIZE = 32 };

typedef enum { FINE, INVALID_SYNTAX, FORBIDDEN, IMMUTABLE } field_error;

handle new_fields(field_list *list, bool is_immutable) {
  fields *made = arena_allocate(sizeof *made);
  made->list = list;
  made->is_immutable = is_immutable;
  adopt(&made->object, NULL);
  return fields_handle(made);
}

field_list *new_list(void) {
  field_list *list = arena_allocate(sizeof *list);
  *list = (field_list){0};
  return list;
}

field_list *take_fields(handle handle) {
  field_list *list = ((fields *)fields_object(handle))->list;
  fields_drop(handle);
  return list;
}

// Fields of one name stay together, as in every host.
void append_field(field_list *list, bytes name, bytes value) {
  if (list->length == list->capacity) {
    size_t capacity = list->capacity ? list->capacity * 2 : FIRST_CAPACITY;
    list->data = arena_resize(list->data, list->capacity * sizeof(field), capacity * sizeof(field));
    list->capacity = capacity;
  }
  size_t place = list->length;
  while (place > 0 && !equals(list->data[place - 1].name, name)) place--;
  if (place == 0) place = list->length; // a new name
  for (size_t i = list->length; i > place; i--) list->data[i] = list->data[i - 1];
  list->data[place] = (field){name, value};
  list->length++;
}

bytes *find_field(const field_list *list, bytes name) {
  for (size_t i = 0; i < list->length; i++)
    if (equals_caseless(list->data[i].name, name)) return &list->data[i].value;
  return NULL;
}

static void remove_fields(field_list *list, bytes name) {
  size_t left = 0;
  for (size_t i = 0; i < list->length; i++)
    if (!equals_caseless(list->data[i].name, name)) list->data[left++] = list->data[i];
  list->length = left;
}

size_t fields_size(const field_list *list) {
  size_t size = 1;
  for (size_t i = 0; list != NULL && i < list->length; i++)
    size += list->data[i].name.length + list->data[i].value.length + 2;
  return size;
}

void put_fields(writer *to, const field_list *list) {
  for (size_t i = 0; list != NULL && i < list->length; i++) {
    put(to, list->data[i].name);
    put_byte(to, ':');
    put(to, list->data[i].value);
    put_byte(to, '\n');
  }
  put_byte(to, '\n');
}

// What a guest may put in

static bool is_token_byte(uint8_t byte) {
  if ((byte | 0x20) >= 'a' && (byte | 0x20) <= 'z') return true;
  if (byte >= '0' && byte <= '9') return true;
  for (const char *other = "!#$%&'*+-.^_`|~"; *other; other++)
    if (byte == *other) return true;
  return false;
}

bool is_token(bytes text) {
  for (size_t i = 0; i < text.length; i++)
    if (!is_token_byte(text.data[i])) return false;
  return text.length > 0;
}

static bool is_value(bytes value) {
  for (size_t i = 0; i < value.length; i++) {
    uint8_t byte = value.data[i];
    if ((byte < ' ' && byte != '\t') || byte == 0x7f) return false;
  }
  return true;
}

static bool is_forbidden(bytes name) {
  static const bytes names[] = {
      {(const uint8_t *)"connection", 10},         {(const uint8_t *)"host", 4},
      {(const uint8_t *)"http2-settings", 14},     {(const uint8_t *)"keep-alive", 10},
      {(const uint8_t *)"proxy-authenticate", 18}, {(const uint8_t *)"proxy-authorization", 19},
      {(const uint8_t *)"proxy-connection", 16},   {(const uint8_t *)"transfer-encoding", 17},
      {(const uint8_t *)"upgrade", 7},
  };
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (equals_caseless(names[i], name)) return true;
  return false;
}

// As text: a line `name:value` each, and an empty one behind; no name has a colon, and no value an end of a line.
// What a guest must not see of a connection stays out.
void read_fields(bytes *text, field_list *list) {
  for (;;) {
    bytes value = next_line(text);
    if (value.length == 0) return;
    bytes name = next_part(&value, ':');
    if (!is_forbidden(name)) append_field(list, name, value);
  }
}

static field_error check(const fields *fields, bytes name) {
  if (!is_token(name)) return INVALID_SYNTAX;
  if (is_forbidden(name)) return FORBIDDEN;
  return fields->is_immutable ? IMMUTABLE : FINE;
}

static bytes kept_lower(bytes name) {
  uint8_t *copy = arena_allocate(name.length);
  for (size_t i = 0; i < name.length; i++)
    copy[i] = name.data[i] >= 'A' && name.data[i] <= 'Z' ? name.data[i] | 0x20 : name.data[i];
  return (bytes){copy, name.length};
}

static void add(field_list *list, bytes name, bytes value) {
  size_t size = fields_size(list) + list->length * ENTRY_SIZE + name.length + value.length;
  if (size > MAX_SIZE) fault("it put more than 128 KiB of header fields together: send such data in a body");
  append_field(list, kept_lower(name), kept(value));
}

static result_area *give_error(field_error error) {
  result.byte[0] = IS(error != FINE);
  result.byte[1] = (uint8_t)error - 1;
  return &result;
}

// The functions of the resource

EXPORT(HTTP, "[constructor]fields") handle fields_constructor(void) { return new_fields(new_list(), false); }

EXPORT(HTTP, "[static]fields.from-list") result_area *fields_from_list(field *entries, size_t length) {
  fields checked = {.is_immutable = false};
  field_list *list = new_list();
  for (size_t i = 0; i < length; i++) {
    field_error error = check(&checked, entries[i].name);
    if (error == FINE && !is_value(entries[i].value)) error = INVALID_SYNTAX;
    if (error != FINE) {
      result.word[0] = 1;
      result.byte[4] = (uint8_t)error - 1;
      return &result;
    }
    add(list, entries[i].name, entries[i].value);
  }
  return give_handle(false, new_fields(list, false));
}

EXPORT(HTTP, "[method]fields.get")
result_area *fields_get(fields *fields, const uint8_t *name, size_t length) {
  size_t found = 0;
  bytes *values = scratch_allocate(fields->list->length * sizeof(bytes));
  for (size_t i = 0; i < fields->list->length; i++)
    if (equals_caseless(fields->list->data[i].name, (bytes){name, length}))
      values[found++] = fields->list->data[i].value;
  return give_bytes((bytes){(uint8_t *)values, found});
}

EXPORT(HTTP, "[method]fields.has")
uint32_t fields_has(fields *fields, const uint8_t *name, size_t length) {
  return find_field(fields->list, (bytes){name, length}) != NULL;
}

EXPORT(HTTP, "[method]fields.set")
result_area *fields_set(fields *fields, const uint8_t *data, size_t length, bytes *values, size_t count) {
  bytes name = {data, length};
  field_error error = check(fields, name);
  for (size_t i = 0; i < count; i++)
    if (error == FINE && !is_value(values[i])) error = INVALID_SYNTAX;
  if (error == FINE) remove_fields(fields->list, name);
  for (size_t i = 0; error == FINE && i < count; i++) add(fields->list, name, values[i]);
  return give_error(error);
}

EXPORT(HTTP, "[method]fields.delete")
result_area *fields_delete(fields *fields, const uint8_t *data, size_t length) {
  field_error error = check(fields, (bytes){data, length});
  if (error == FINE) remove_fields(fields->list, (bytes){data, length});
  return give_error(error);
}

EXPORT(HTTP, "[method]fields.append")
result_area *fields_append(fields *fields, const uint8_t *data, size_t length, const uint8_t *value,
                           size_t value_length) {
  field_error error = check(fields, (bytes){data, length});
  if (error == FINE && !is_value((bytes){value, value_length})) error = INVALID_SYNTAX;
  if (error == FINE) add(fields->list, (bytes){data, length}, (bytes){value, value_length});
  return give_error(error);
}

EXPORT(HTTP, "[method]fields.entries") result_area *fields_entries(fields *fields) {
  static field none;
  const field *data = fields->list->length ? fields->list->data : &none;
  return give_bytes((bytes){(const uint8_t *)data, fields->list->length});
}

EXPORT(HTTP, "[method]fields.clone") handle fields_clone(fields *fields) {
  field_list *list = new_list();
  for (size_t i = 0; i < fields->list->length; i++)
    append_field(list, fields->list->data[i].name, fields->list->data[i].value);
  return new_fields(list, false);
}
