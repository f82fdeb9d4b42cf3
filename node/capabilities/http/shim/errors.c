// wasi:io/error, and the error codes of wasi:http.

#include "shim.h"

RESOURCE("wasi:io/error", "error", error)

handle new_error(error_code code) {
  io_error *made = arena_allocate(sizeof *made);
  made->code = code;
  adopt(&made->object, NULL);
  return error_handle(made);
}

EXPORT("wasi:io/error", "[method]error.to-debug-string")
result_area *error_to_debug_string(io_error *error) {
  return give_bytes(error->code.has_text ? error->code.text : TEXT("the transfer of an HTTP body failed"));
}

EXPORT(HTTP, "http-error-code") result_area *http_error_code(io_error *error) {
  result.number[0] = 1;
  write_error_code(result.byte + 8, error->code);
  return &result;
}

// Payloads, at their offsets from the payload's place

static void optional_text(uint8_t *place, const error_code *error) {
  uint32_t words[3] = {error->has_text, (uint32_t)error->text.data, error->text.length};
  COPY(place, words, sizeof words);
}

static void optional_u32(uint8_t *place, const error_code *error) {
  uint32_t words[2] = {error->has_number, (uint32_t)error->number};
  COPY(place, words, sizeof words);
}

static void optional_u64(uint8_t *place, const error_code *error) {
  uint64_t words[2] = {error->has_number, error->number};
  COPY(place, words, sizeof words);
}

static void dns_error(uint8_t *place, const error_code *error) {
  uint16_t number = (uint16_t)error->number;
  optional_text(place, error);
  place[12] = error->has_number;
  COPY(place + 14, &number, sizeof number);
}

static void tls_alert(uint8_t *place, const error_code *error) {
  place[0] = error->has_number;
  place[1] = (uint8_t)error->number;
  optional_text(place + 4, error);
}

static void field_size(uint8_t *place, const error_code *error) {
  optional_text(place, error);
  optional_u32(place + 12, error);
}

void write_error_code(uint8_t *place, error_code error) {
  uint8_t *payload = place + 8;
  place[0] = (uint8_t)error.code;
  switch (error.code) {
    case DNS_ERROR: dns_error(payload, &error); break;
    case TLS_ALERT_RECEIVED: tls_alert(payload, &error); break;
    case REQUEST_BODY_SIZE:
    case RESPONSE_BODY_SIZE: optional_u64(payload, &error); break;
    case 21: // sizes of header and trailer sections
    case 23:
    case 26:
    case 29: optional_u32(payload, &error); break;
    case 22: // HTTP-request-header-size, which may lack its payload
      payload[0] = 1;
      field_size(payload + 4, &error);
      break;
    case 24: // sizes of single fields
    case 27:
    case 30: field_size(payload, &error); break;
    case 31: // codings, internal-error
    case 32:
    case INTERNAL_ERROR: optional_text(payload, &error); break;
    default: break;
  }
}

// The number of the case, then maybe `+` and a text, then maybe `+` and a number, a line each.
error_code read_error_code(bytes text) {
  error_code error = {parse_number(next_line(&text)), false, false, {0}, 0};
  bytes said = next_line(&text), number = next_line(&text);
  error.has_text = said.length > 0;
  if (error.has_text) error.text = kept((bytes){said.data + 1, said.length - 1});
  error.has_number = number.length > 0;
  if (error.has_number) error.number = parse_number((bytes){number.data + 1, number.length - 1});
  return error;
}
