// demo:kv/store in C: a fixed table.

#include "component.h"

static const struct {
  bytes key, value;
} TABLE[] = {
    {TEXT("Ada"), TEXT("The engine weaves algebraic patterns.")},
    {TEXT("Grace"), TEXT("It is easier to ask forgiveness than permission.")},
    {TEXT("Edsger"), TEXT("Simplicity is prerequisite for reliability.")},
};

EXPORT("demo:kv/store#get")
optional_bytes *get(uint8_t *data, size_t length) {
  static optional_bytes found;
  bytes key = {data, length};
  found.is_some = false;
  for (size_t i = 0; i < sizeof(TABLE) / sizeof(TABLE[0]); i++)
    if (is_equal(TABLE[i].key, key)) found = (optional_bytes){true, TABLE[i].value};
  return &found;
}

EXPORT("cabi_post_demo:kv/store#get")
void get_done(optional_bytes *found) { (void)found, arena_reset(); }
