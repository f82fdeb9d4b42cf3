// What the shim asks of the host: one function, text there and back.
//
// A question is a letter, and what belongs to it:
//
//   r N       the next part of stream N; waits.      d DATA | e TRAILERS | ! ERROR
//   R N       the same without waiting; also         n (nothing yet)
//   = TEXT    the whole response (serve.c), x if it is packed
//   h HEAD    the head of the response, H if it is packed; its body follows as stream 0
//   w N DATA  send a part of stream N; waits until it may send another.   empty | ! (nobody takes it)
//   o N DATA  the same without waiting; also         n (not taken)
//   e N LINES the end of stream N, with its trailers
//   a N       stream N breaks off
//   s N LINES start a request to the network as number N; its body may follow as stream N
//   c N       give the request up, or what is left of its response
//   t N       the response to it, if there is one.   n | STATUS, fields, the body's first part | ! ERROR
//   p LINES   wait for one of several things: their numbers in the list that are ready
//   m, y      the monotonic clock, in nanoseconds; the time of day, in nanoseconds
//   k         a seed for random numbers, in hexadecimal digits
//   v         the environment: variables (name, value, ...), an empty name, arguments; a zero byte behind each
//   1 0 DATA  what the guest wrote to its standard output
//   2 0 DATA  to its standard error
//   q CODE    the guest exits
//   ! TEXT    the guest broke a rule: its call ends
//
// Fields and trailers are lines `name:value` with an empty line behind. The border is made of text: DATA are packed
// (packing.c), and so are messages that are not UTF-8. A number in front of data or lines is a line of its own.
//
// While the streams N are channels of the host's native helper, it answers `r`, `R`, `w` and `o` there and then, as long
// as there is something to read and room to write (node/engine/driver/channels.c). It keeps what `=` and `x` give, too.

#include "shim.h"

extern void host_ask(const uint8_t *question, size_t length, bytes *answer)
    __attribute__((import_module("host"), import_name("ask")));

bytes ask_host(bytes question) {
  bytes answer;
  host_ask(question.data, question.length, &answer);
  return answer;
}

bytes ask(uint8_t operation, uint32_t number) {
  uint8_t text[1 + NUMBER_SIZE];
  writer question = {text, text};
  put_byte(&question, operation);
  put_number(&question, number);
  return ask_host(written(&question));
}

void fault(const char *problem) {
  static uint8_t text[256] = "!";
  size_t length = 0;
  for (; problem[length] && length < sizeof text - 1; length++) text[1 + length] = problem[length];
  ask_host((bytes){text, 1 + length});
  __builtin_trap();
}
