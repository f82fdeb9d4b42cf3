// demo:greeter/greet in C, importing demo:kv/store.

#include "component.h"

IMPORT("demo:kv/store", "get")
void store_get(const uint8_t *key, size_t length, optional_bytes *value);

EXPORT("demo:greeter/greet#hello")
bytes *hello(uint8_t *data, size_t length) {
  static bytes greeting;
  bytes name = {data, length};
  optional_bytes said;
  store_get(data, length, &said);
  greeting = said.is_some ? CONCATENATE(TEXT("Hello, "), name, TEXT("! You said: "), said.value)
                          : CONCATENATE(TEXT("Hello, "), name, TEXT("!"));
  return &greeting;
}

EXPORT("cabi_post_demo:greeter/greet#hello")
void hello_done(bytes *greeting) { (void)greeting, arena_reset(); }
