// wasi:random, by ChaCha20 (RFC 8439) under a key that the host draws for each request.

#include "shim.h"

enum { KEY_WORDS = 8, BLOCK_WORDS = 16, BLOCK_SIZE = 64, ROUNDS = 20, MOST = 1 << 24 };

static bool is_seeded;
static uint32_t key[KEY_WORDS];
static uint32_t counter;
static uint32_t block[BLOCK_WORDS];
static size_t used;

static uint32_t rotate(uint32_t value, int bits) { return value << bits | value >> (32 - bits); }

static void quarter_round(uint32_t *state, int a, int b, int c, int d) {
  state[a] += state[b], state[d] = rotate(state[d] ^ state[a], 16);
  state[c] += state[d], state[b] = rotate(state[b] ^ state[c], 12);
  state[a] += state[b], state[d] = rotate(state[d] ^ state[a], 8);
  state[c] += state[d], state[b] = rotate(state[b] ^ state[c], 7);
}

static void next_block(void) {
  // "expand 32-byte k", the key, a counter, and a nonce of zeros: a key serves one stream only.
  uint32_t start[BLOCK_WORDS] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
  COPY(start + 4, key, sizeof key);
  start[12] = counter++;
  COPY(block, start, sizeof block);
  for (int i = 0; i < ROUNDS; i += 2) {
    for (int j = 0; j < 4; j++) quarter_round(block, j, j + 4, j + 8, j + 12);
    for (int j = 0; j < 4; j++) quarter_round(block, j, 4 + (j + 1) % 4, 8 + (j + 2) % 4, 12 + (j + 3) % 4);
  }
  for (int i = 0; i < BLOCK_WORDS; i++) block[i] += start[i];
  used = 0;
}

static uint8_t value_of(uint8_t digit) { return digit >= 'a' ? digit - 'a' + 10 : digit - '0'; }

void seed_random(bytes digits) {
  if (digits.length != 2 * sizeof key) return;
  uint8_t *seed = (uint8_t *)key;
  for (size_t i = 0; i < sizeof key; i++)
    seed[i] = (uint8_t)(value_of(digits.data[2 * i]) << 4 | value_of(digits.data[2 * i + 1]));
  is_seeded = true;
  counter = 0;
  used = BLOCK_SIZE;
}

void forget_seed(void) { is_seeded = false; }

static void fill(uint8_t *target, size_t length) {
  if (!is_seeded) seed_random(ask_host(TEXT("k")));
  for (size_t i = 0; i < length; i++) {
    if (used == BLOCK_SIZE) next_block();
    target[i] = ((uint8_t *)block)[used++];
  }
}

static result_area *random_bytes(uint64_t length) {
  if (length > MOST) fault("it asked for more than 16 MiB of random bytes at a time");
  uint8_t *data = scratch_allocate((size_t)length);
  fill(data, (size_t)length);
  return give_bytes((bytes){data, (size_t)length});
}

static uint64_t random_number(void) {
  uint64_t number;
  fill((uint8_t *)&number, sizeof number);
  return number;
}

EXPORT("wasi:random/random", "get-random-bytes")
result_area *get_random_bytes(uint64_t length) { return random_bytes(length); }

EXPORT("wasi:random/random", "get-random-u64") uint64_t get_random_u64(void) { return random_number(); }

EXPORT("wasi:random/insecure", "get-insecure-random-bytes")
result_area *get_insecure_random_bytes(uint64_t length) { return random_bytes(length); }

EXPORT("wasi:random/insecure", "get-insecure-random-u64")
uint64_t get_insecure_random_u64(void) { return random_number(); }

EXPORT("wasi:random/insecure-seed", "insecure-seed") result_area *insecure_seed(void) {
  fill(result.byte, 16);
  return &result;
}
