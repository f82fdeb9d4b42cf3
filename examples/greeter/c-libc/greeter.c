// demo:greeter/greet in C with the standard library, and thus with WASI imports: GREETING in the environment
// replaces "Hello", and each call is noted on standard error.

#include <stdio.h>
#include <stdlib.h>

typedef struct {
  char *data;
  size_t length;
} string;

__attribute__((export_name("demo:greeter/greet#hello")))
string *hello(char *name, size_t length) {
  static string greeting;
  const char *word = getenv("GREETING");
  int written = asprintf(&greeting.data, "%s, %.*s!", word ? word : "Hello", (int)length, name);
  if (written < 0) abort();
  greeting.length = (size_t)written;
  fprintf(stderr, "greeting %.*s\n", (int)length, name);
  if (length > 0) free(name);
  return &greeting;
}

__attribute__((export_name("cabi_post_demo:greeter/greet#hello")))
void hello_done(string *greeting) { free(greeting->data); }

// The host allocates here whatever it passes in.
__attribute__((export_name("cabi_realloc")))
void *cabi_realloc(void *old, size_t old_size, size_t alignment, size_t size) {
  (void)old_size;
  if (size == 0) return (void *)alignment;
  void *block = realloc(old, size);
  if (!block) abort();
  return block;
}
