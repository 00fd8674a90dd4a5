#include "nbd/send_queue.h"

#include <algorithm>
#include <cerrno>

namespace obraz::nbd {

void SendQueue::push(Reply& reply, std::coroutine_handle<> waiter) {
  OBRAZ_CHECK(!finished_);
  reply.waiter_ = waiter;
  reply.next_ = nullptr;
  if (tail_)
    tail_->next_ = &reply;
  else
    head_ = &reply;
  tail_ = &reply;
  // The sender runs at the end of the ready queue, after everybody who is about to push as well.
  changed_.notify_all();
}

size_t SendQueue::gather(std::span<iovec> into) const {
  size_t count = 0, bytes = 0;
  for (const Reply* reply = head_; reply; reply = reply->next_)
    for (size_t i = reply->first_; i < reply->count_; ++i) {
      if (count == into.size() || bytes == kMaxBytes)
        return count;
      iovec part = reply->parts_[i];
      part.iov_len = std::min(part.iov_len, kMaxBytes - bytes);
      bytes += part.iov_len;
      into[count++] = part;
    }
  return count;
}

void SendQueue::complete_front() {
  Reply* reply = head_;
  head_ = reply->next_;
  if (!head_)
    tail_ = nullptr;
  reactor_.enqueue(reply->waiter_);
}

void SendQueue::advance(size_t sent) {
  while (head_) {
    iovec& part = head_->parts_[head_->first_];
    const size_t here = std::min(sent, part.iov_len);
    part.iov_base = static_cast<std::byte*>(part.iov_base) + here;
    part.iov_len -= here;
    sent -= here;
    if (part.iov_len > 0)
      return;
    if (++head_->first_ == head_->count_)
      complete_front();
    if (sent == 0)
      return;
  }
}

void SendQueue::lose() {
  lost_ = true;
  ::shutdown(file_.fd, SHUT_RDWR);
  while (head_)
    complete_front();
}

Task<void> SendQueue::run() {
  std::array<iovec, kMaxParts> parts;
  msghdr message{};
  for (;;) {
    while (!head_ && !finished_ && !lost_)
      co_await changed_.wait();
    if (!head_)
      co_return;
    message.msg_iov = parts.data();
    message.msg_iovlen = gather(parts);
    sending_since_us_ = reactor_.now_us();
    const int sent = co_await reactor_.send_message(file_, message);
    sending_since_us_ = 0;
    if (sent > 0)
      advance(size_t(sent));
    else if (sent != -EINTR)
      lose();
  }
}

}  // namespace obraz::nbd
