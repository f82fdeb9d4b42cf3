// Loans of sockets: while a guest runs on a thread that may be kept, what it reads comes from its client's socket, and
// what it writes goes there, without the event loop, which has lent the socket and leaves it alone until it has it back.

#include "driver.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

void loan_begin(loan *self, int descriptor, uint64_t length, bool is_chunked) {
  *self = (loan){.descriptor = descriptor, .is_chunked = is_chunked, .left = length};
}

void loan_end(loan *self) { self->descriptor = -1; }

// The end of what a peer sends, and errors, are left for the loop to find out.
static void give_up_unless_later(loan *self, ssize_t result) {
  if (result == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) self->is_over = true;
}

size_t loan_read(loan *self, uint8_t *target, size_t room) {
  if (room > self->left) room = self->left;
  if (room == 0 || self->is_over) return 0;
  ssize_t size = recv(self->descriptor, target, room, MSG_DONTWAIT);
  if (size <= 0) {
    give_up_unless_later(self, size);
    return 0;
  }
  self->left -= size;
  self->moved += size;
  return size;
}

static void begin_chunk(loan *self, size_t size) {
  char *end = (char *)self->lines + self->lines_size;
  self->lines_size += snprintf(end, sizeof self->lines - self->lines_size, "%zx\r\n", size);
  self->chunk_left = size;
}

// Shorten to so many bytes: gives how many there are now.
static size_t shorten(struct iovec *parts, size_t *count, size_t most) {
  size_t size = 0, used = 0;
  for (; used < *count && size < most; used++) {
    if (parts[used].iov_len > most - size) parts[used].iov_len = most - size;
    size += parts[used].iov_len;
  }
  *count = used;
  return size;
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

// After `sent` bytes have left: how many of them were of the data.
static size_t account(loan *self, size_t sent, size_t size, bool ends_chunk) {
  size_t lines = least(sent, self->lines_size);
  self->lines_size -= lines;
  memmove(self->lines, self->lines + lines, self->lines_size);
  sent -= lines;
  size_t data = least(sent, size);
  self->left -= data;
  self->moved += data;
  if (self->is_chunked) self->chunk_left -= data;
  if (ends_chunk && data == size) {
    self->lines_size = 2 - (sent - data);
    memcpy(self->lines, &"\r\n"[sent - data], self->lines_size);
  }
  return data;
}

// Send the beginning of the parts, of which `parts[0]` is left free for the lines in front of them and the last one for
// those behind: how many bytes have left.
size_t loan_write(loan *self, struct iovec *parts, size_t count) {
  if (self->is_over) return 0;
  size_t size = 0;
  for (size_t i = 1; i <= count; i++) size += parts[i].iov_len;
  if (self->is_chunked && self->chunk_left == 0 && size > 0) begin_chunk(self, size);
  size = shorten(parts + 1, &count, self->is_chunked ? self->chunk_left : self->left);
  bool ends_chunk = self->is_chunked && size > 0 && size == self->chunk_left;
  parts[0] = (struct iovec){self->lines, self->lines_size};
  parts[count + 1] = (struct iovec){(void *)"\r\n", ends_chunk ? 2 : 0};
  if (size + self->lines_size == 0) return 0;
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = count + 2};
  ssize_t sent = sendmsg(self->descriptor, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent > 0) return account(self, sent, size, ends_chunk);
  give_up_unless_later(self, sent);
  return 0;
}

// Whether there may be more to read, or room to write, before so many milliseconds are over.
bool loan_wait(int descriptor, bool is_input, int milliseconds) {
  struct pollfd watched = {descriptor, is_input ? POLLIN : POLLOUT, 0};
  return poll(&watched, 1, milliseconds) > 0;
}
