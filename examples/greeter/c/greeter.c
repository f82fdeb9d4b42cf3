// demo:greeter/greet in C.

#include "component.h"

EXPORT("demo:greeter/greet#hello")
bytes *hello(uint8_t *name, size_t length) {
  static bytes greeting;
  greeting = CONCATENATE(TEXT("Hello, "), (bytes){name, length}, TEXT("!"));
  return &greeting;
}

EXPORT("cabi_post_demo:greeter/greet#hello")
void hello_done(bytes *greeting) { (void)greeting, arena_reset(); }
