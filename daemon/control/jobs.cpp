#include "control/jobs.h"

#include <sched.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>

#include "base/limits.h"
#include "base/log.h"
#include "catalog/rules.h"

namespace obraz {
namespace {

using SteadyTime = std::chrono::steady_clock;
constexpr auto kProgressInterval =
    std::chrono::milliseconds(200);                    // smooth enough for an eye, cheap enough for a log
constexpr auto kSignOfLife = std::chrono::seconds(5);  // without progress; also finds watchers that have gone
constexpr double kRateWeight = 0.3;                    // of the newest interval in the rate shown

// A thread for what blocks.
class Worker {
 public:
  explicit Worker(boost::asio::any_io_executor executor) : executor_(std::move(executor)), thread_(1) {}
  // From here on it runs when nobody else wants the processor. Children that it starts have that from it.
  void give_way() {
    boost::asio::post(thread_, [] {
      const sched_param none{};
      if (::sched_setscheduler(0, SCHED_IDLE, &none) != 0)  // of this thread; it works all the same
        log::warning("work in the background has the priority of any other: {}", std::strerror(errno));
    });
  }

  // Runs `work` there.
  template <typename T>
  boost::asio::awaitable<T> run(std::move_only_function<T()> work) {
    co_return co_await boost::asio::async_initiate<const boost::asio::use_awaitable_t<>, void(T)>(
        [this](auto handler, std::move_only_function<T()> work) {
          auto shared = std::make_shared<decltype(handler)>(std::move(handler));
          boost::asio::post(thread_, [executor = executor_, shared, work = std::move(work)]() mutable {
            T value = work();
            work = nullptr;  // what it holds is destroyed here, not on the control thread
            boost::asio::post(executor, [shared = std::move(shared), value = std::move(value)]() mutable {
              (*shared)(std::move(value));
            });
          });
        },
        boost::asio::use_awaitable, std::move(work));
  }
  // After the last run() has answered; the thread has nothing left to do.
  void join() { thread_.join(); }

 private:
  boost::asio::any_io_executor executor_;
  boost::asio::thread_pool thread_;
};

}  // namespace

class Jobs::Job : public std::enable_shared_from_this<Jobs::Job> {
 public:
  Job(boost::asio::any_io_executor executor, OperationTable& operations, OperationRef operation)
      : executor_(std::move(executor)),
        operations_(operations),
        operation_(std::move(operation)),
        worker_(executor_),
        timer_(executor_) {}

  // Runs `work` on the job's thread.
  template <typename T>
  boost::asio::awaitable<T> on_worker(std::move_only_function<T()> work) {
    return worker_.run(std::move(work));
  }
  // After the last on_worker() has answered.
  void join() { worker_.join(); }

  void set_phase(const char* phase) {
    operation_->message.mutable_metadata()->set_phase(phase);
    tell();
  }

  // Written by the worker, published by poll().
  Progress& progress() { return progress_; }
  boost::asio::awaitable<void> poll() {
    const auto self = shared_from_this();
    while (!polled_) {
      timer_.expires_after(kProgressInterval);
      co_await timer_.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
      if (!polled_)
        publish();
      if (!polled_ && SteadyTime::now() - told_ >= kSignOfLife)
        tell();
    }
  }
  // The bytes and their rate count from here. Nothing runs on the worker.
  void count_anew() {
    progress_.bytes_done = 0;
    progress_.bytes_total = 0;
    v1::OperationMetadata& metadata = *operation_->message.mutable_metadata();
    metadata.clear_bytes_done();
    metadata.clear_bytes_total();
    metadata.clear_bytes_per_second();
    metadata.clear_eta_seconds();
    last_time_ = SteadyTime::now();
  }
  // What there is to tell has been told.
  void stop_polling() {
    publish();
    polled_ = true;
    timer_.cancel();
  }

  void request_stop(Refusal reason) {
    if (!reason_)
      reason_ = std::move(reason);
    stop_.request_stop();
  }
  std::stop_token stop_token() const { return stop_.get_token(); }
  // Why the job ended early, in the words of who asked for it.
  Answer<void> outcome(Answer<void> outcome) const {
    if (reason_)
      return std::unexpected(*reason_);
    return outcome;
  }
  const OperationRef& operation() const { return operation_; }

 private:
  void publish() {
    const uint64_t done = progress_.bytes_done, total = progress_.bytes_total;
    v1::OperationMetadata& metadata = *operation_->message.mutable_metadata();
    if (operation_->message.done() ||
        (done == uint64_t(metadata.bytes_done()) && total == uint64_t(metadata.bytes_total())))
      return;
    const auto now = SteadyTime::now();
    const double seconds = std::chrono::duration<double>(now - last_time_).count();
    if (seconds > 0 && done > 0) {
      const double rate = double(done - uint64_t(metadata.bytes_done())) / seconds;
      rate_ = metadata.bytes_done() > 0 ? kRateWeight * rate + (1 - kRateWeight) * rate_ : rate;
      last_time_ = now;
    }
    metadata.set_bytes_done(int64_t(done));
    metadata.set_bytes_total(int64_t(total));
    metadata.set_bytes_per_second(int64_t(rate_));
    if (rate_ >= 1 && total >= done)
      metadata.set_eta_seconds(int64_t(double(total - done) / rate_ + 0.5));
    else
      metadata.clear_eta_seconds();
    tell();
  }
  void tell() {
    told_ = SteadyTime::now();
    operations_.touch(*operation_);
  }

  boost::asio::any_io_executor executor_;
  OperationTable& operations_;
  OperationRef operation_;
  Worker worker_;
  std::stop_source stop_;
  std::optional<Refusal> reason_;
  Progress progress_;
  boost::asio::steady_timer timer_;
  bool polled_ = false;
  SteadyTime::time_point last_time_ = SteadyTime::now(), told_ = last_time_;
  double rate_ = 0;  // bytes per second
};

Jobs::Jobs(boost::asio::any_io_executor executor, Catalog& catalog, ImageTransfer& transfer,
           const JobsOptions& options)
    : executor_(executor), catalog_(catalog), transfer_(transfer), options_(options), ended_(executor) {}
Jobs::~Jobs() {
  OBRAZ_CHECK(jobs_.empty() && !examining_ && !digesting_);
}

Answer<void> Jobs::check_room() const {
  if (stopping_)
    return refuse(ErrorCode::unavailable, "", "the daemon is stopping");
  if (jobs_.size() >= limits::kMaxRunningOperations)
    return refuse(ErrorCode::resource_exhausted, "",
                  "there are " + std::to_string(jobs_.size()) +
                      " imports, exports and verifications under way; wait for one to end");
  return {};
}

Jobs::JobRef Jobs::begin(const OperationRef& operation) {
  auto job = std::make_shared<Job>(executor_, catalog_.operations(), operation);
  jobs_.emplace(operation.get(), job);
  return job;
}

void Jobs::end(const JobRef& job) {
  job->join();
  jobs_.erase(job->operation().get());
  ended_.notify_all();
}

Answer<OperationRef> Jobs::import(const Caller& caller, const v1::ImportImageRequest& request) {
  if (const auto room = check_room(); !room)
    return std::unexpected(room.error());
  auto ticket = catalog_.begin_import(caller, request);
  if (!ticket)
    return std::unexpected(ticket.error());
  const OperationRef operation = ticket->operation;
  boost::asio::co_spawn(executor_,
                        run_import(begin(operation), std::move(*ticket), request, caller.subject->files),
                        boost::asio::detached);
  return operation;
}

Answer<OperationRef> Jobs::export_image(const Caller& caller, const v1::ExportImageRequest& request) {
  if (const auto room = check_room(); !room)
    return std::unexpected(room.error());
  auto ticket = catalog_.begin_export(caller, request);
  if (!ticket)
    return std::unexpected(ticket.error());
  const OperationRef operation = ticket->operation;
  boost::asio::co_spawn(executor_,
                        run_export(begin(operation), std::move(*ticket), request, caller.subject->files),
                        boost::asio::detached);
  return operation;
}

Answer<OperationRef> Jobs::verify(const Caller& caller, const v1::VerifyImageRequest& request) {
  if (const auto room = check_room(); !room)
    return std::unexpected(room.error());
  auto ticket = catalog_.begin_verify(caller, request);
  if (!ticket)
    return std::unexpected(ticket.error());
  const OperationRef operation = ticket->operation;
  boost::asio::co_spawn(executor_, run_verify(begin(operation), std::move(*ticket)), boost::asio::detached);
  return operation;
}

boost::asio::awaitable<void> Jobs::run_import(JobRef job, ImportTicket ticket, v1::ImportImageRequest request,
                                              FileIdentityRef files) {
  using Opened = Answer<std::unique_ptr<ImageTransfer::Source>>;
  job->set_phase(request.sha256().empty() ? "opening" : "checking");
  boost::asio::co_spawn(executor_, job->poll(), boost::asio::detached);
  std::move_only_function<Opened()> open =
      [transfer = &transfer_,
       spec = ImageTransfer::SourceSpec{request.source(), request.format(),
                                        ticket.image->record.image().source().sha256(), files},
       progress = &job->progress(),
       stop = job->stop_token()] { return transfer->open(spec, *progress, stop); };
  Opened source = co_await job->on_worker<Opened>(std::move(open));
  Answer<void> outcome;
  if (!source)
    outcome = std::unexpected(source.error());
  outcome = job->outcome(std::move(outcome));
  if (outcome)
    outcome = co_await catalog_.start_import(ticket, (*source)->size_bytes(), (*source)->format());
  if (outcome) {
    job->set_phase("copying");
    job->count_anew();
    std::move_only_function<Answer<void>()> copy = [transfer = &transfer_, from = source->get(),
                                                    into = ticket.work_volume(), progress = &job->progress(),
                                                    stop = job->stop_token()] {
      return transfer->import(*from, into, *progress, stop);
    };
    outcome = co_await job->on_worker<Answer<void>>(std::move(copy));
  }
  std::optional<v1::Layout> layout;
  if (outcome) {
    job->set_phase("examining");
    std::move_only_function<Answer<v1::Layout>()> examine =
        [transfer = &transfer_, volume = ticket.work_volume(), stop = job->stop_token()] {
          return transfer->examine(volume, stop);
        };
    Answer<v1::Layout> found = co_await job->on_worker<Answer<v1::Layout>>(std::move(examine));
    if (!found)  // whatever the reason: what cannot be told about it does not make an image worthless
      log::warning("import: {}", found.error().message);
    else if (found->windows() == v1::Layout::WINDOWS_BOOT)
      outcome = refuse(ErrorCode::failed_precondition, "source",
                       "a boot disk of Windows cannot be imported: " + found->windows_evidence());
    else
      layout = std::move(*found);
  }
  job->stop_polling();
  job->set_phase("finishing");
  if (source) {
    std::move_only_function<bool()> close = [opened = std::move(*source)]() mutable {
      opened.reset();
      return true;
    };
    co_await job->on_worker<bool>(std::move(close));
  }
  outcome = job->outcome(std::move(outcome));
  if (outcome)
    outcome = co_await catalog_.finish_import(ticket, std::move(layout));
  if (!outcome) {
    Refusal refusal = std::move(outcome.error());
    co_await catalog_.fail_import(std::move(ticket), std::move(refusal));
  }
  end(job);
  examine_images();
}

void Jobs::examine_images() {
  const auto start = [this](bool& running, auto&& all) {
    if (running || stopping_)
      return;
    running = true;
    boost::asio::co_spawn(executor_, all(), boost::asio::detached);
  };
  start(examining_, [this] {
    // Not idly: what looks at an image has a deadline.
    return find_out<v1::Layout>(
        examining_, Urgency::soon, [this] { return catalog_.next_unexamined(); },
        [this](VolumeId volume, std::stop_token stop) { return transfer_.examine(volume, std::move(stop)); },
        [this](EntryRef image, v1::Layout found) {
          return catalog_.keep_layout(std::move(image), std::move(found));
        });
  });
  if (options_.digest_images)
    start(digesting_, [this] {
      return find_out<std::string>(
          digesting_, Urgency::idle, [this] { return catalog_.next_undigested(); },
          [this](VolumeId volume, std::stop_token stop) {
            Progress unseen;
            return transfer_.digest(volume, ImageTransfer::Pace::background, unseen, std::move(stop));
          },
          [this](EntryRef image, std::string found) {
            return catalog_.keep_digest(std::move(image), std::move(found));
          });
    });
}

template <typename Found>
boost::asio::awaitable<void> Jobs::find_out(
    bool& running, Urgency urgency, std::function<EntryRef()> next,
    std::function<Answer<Found>(VolumeId, std::stop_token)> find,
    std::function<boost::asio::awaitable<void>(EntryRef, Found)> keep) {
  Worker worker(executor_);
  if (urgency == Urgency::idle)
    worker.give_way();
  while (!stopping_) {
    const EntryRef image = next();
    if (!image)
      break;
    std::move_only_function<Answer<Found>()> work =
        [&find, volume = image->volume(), stop = stop_examining_.get_token()] { return find(volume, stop); };
    Answer<Found> found = co_await worker.run<Answer<Found>>(std::move(work));
    if (found)
      co_await keep(image, std::move(*found));
    else if (!stopping_ && image->status() == v1::READY)  // the next start tries again
      log::warning("{}: {}", image->title(), found.error().message);
  }
  worker.join();
  running = false;
  ended_.notify_all();
}

boost::asio::awaitable<void> Jobs::run_export(JobRef job, ReadTicket ticket, v1::ExportImageRequest request,
                                              FileIdentityRef files) {
  job->set_phase("copying");
  boost::asio::co_spawn(executor_, job->poll(), boost::asio::detached);
  ImageTransfer::TargetSpec target{request.path(), request.format().empty() ? "raw" : request.format(),
                                   std::move(files)};
  std::move_only_function<Answer<void>()> copy = [transfer = &transfer_, target = std::move(target),
                                                  from = ticket.image->volume(), progress = &job->progress(),
                                                  stop = job->stop_token()] {
    return transfer->export_to(from, target, *progress, stop);
  };
  Answer<void> outcome = co_await job->on_worker<Answer<void>>(std::move(copy));
  job->stop_polling();
  // One that was finished before it noticed that it should stop is finished.
  if (!outcome)
    outcome = job->outcome(std::move(outcome));
  co_await catalog_.end_read(std::move(ticket), std::move(outcome));
  end(job);
}

boost::asio::awaitable<void> Jobs::run_verify(JobRef job, ReadTicket ticket) {
  job->set_phase("verifying");
  boost::asio::co_spawn(executor_, job->poll(), boost::asio::detached);
  const EntryRef image = ticket.image;
  std::move_only_function<Answer<std::string>()> read = [transfer = &transfer_, volume = image->volume(),
                                                         progress = &job->progress(),
                                                         stop = job->stop_token()] {
    return transfer->digest(volume, ImageTransfer::Pace::at_once, *progress, stop);
  };
  const Answer<std::string> found = co_await job->on_worker<Answer<std::string>>(std::move(read));
  job->stop_polling();
  Answer<void> outcome;
  const std::string known = image->content.digest();
  if (!found) {
    outcome = job->outcome(std::unexpected(found.error()));
  } else if (known.empty()) {
    co_await catalog_.keep_digest(image, *found);
  } else if (*found != known) {
    outcome = refuse(ErrorCode::corruption, "image_id",
                     image->title() + " is not what it was: its digest was " + known + " and is " + *found);
    log::error("{}", outcome.error().message);
  }
  co_await catalog_.end_read(std::move(ticket), std::move(outcome));
  end(job);
}

void Jobs::cancel(const OperationRef& operation, const std::string& subject) {
  const auto job = jobs_.find(operation.get());
  if (job != jobs_.end())
    job->second->request_stop({ErrorCode::cancelled, "", "cancelled by " + subject});
}

boost::asio::awaitable<void> Jobs::stop() {
  stopping_ = true;
  stop_examining_.request_stop();
  for (const auto& [operation, job] : jobs_)
    job->request_stop({ErrorCode::unavailable, "", "interrupted: the daemon was stopped"});
  while (!jobs_.empty() || examining_ || digesting_)
    co_await ended_.wait();
}

}  // namespace obraz
