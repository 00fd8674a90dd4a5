// Catalog: the resources of a store. Deciding is synchronous and pure (plan_*: rules, state, reserving
// names), then one transaction makes volumes, resources and the operation durable together, then memory
// follows (run).
//
// Invariants: between a decision and its reservation nothing else runs, so of two conflicting calls one wins;
// what is in the store is what a call acknowledged; a resource that is attached, being read or being changed
// is not deleted, and one being deleted is not attached. Every mutating call that was not refused answers an
// operation. Thread: the control thread; it and the StoreAccess outlive the catalog, and no call is under way
// when it ends.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/refusal.h"
#include "catalog/index.h"
#include "catalog/operations.h"
#include "catalog/store_access.h"
#include "catalog/usage.h"
#include "obraz/v1/access.pb.h"
#include "obraz/v1/disk_service.pb.h"
#include "obraz/v1/folder_service.pb.h"
#include "obraz/v1/image_service.pb.h"
#include "obraz/v1/operation_service.pb.h"
#include "obraz/v1/schedule_service.pb.h"
#include "obraz/v1/snapshot_service.pb.h"
#include "obraz/v1/trash_service.pb.h"
#include "obraz/v1/usage_service.pb.h"
#include "obraz/v1/volume_service.pb.h"

namespace obraz {

// What a client of NBD finds under an export name.
struct ExportInfo {
  std::string resource_id;
  std::string name;  // as it was asked for, or canonical in a list
  std::string description;
  VolumeId volume;
  uint64_t size_bytes = 0;
  bool read_only = false;
};

// An image on its way in: made by begin_import(), ended by finish_import() or fail_import().
struct ImportTicket {
  OperationRef operation;
  EntryRef image;
  int64_t min_disk_size = 0;  // as asked for
  bool started = false;       // the store knows of it
  VolumeId work_volume() const { return image->volume(); }
};

// An image that is being read, to be exported or verified; ended by end_read(). It stays until then.
struct ReadTicket {
  OperationRef operation;
  EntryRef image;
};

class Catalog {
 public:
  template <typename T>
  using awaitable = boost::asio::awaitable<T>;

  Catalog(boost::asio::any_io_executor executor, StoreAccess& store, Clock clock = Clock());

  // Reads every resource of the store and ends what a crash or a stop left half-made: images that were being
  // imported are removed, and their operations failed. Once, before anything else.
  awaitable<Answer<void>> load();
  // Ends what goes on in the background. Last, when no call is under way.
  awaitable<void> stop();

  // Ends the sessions of a volume's clients, for whoever wants it detached. Without it nobody can.
  using Disconnect = std::function<awaitable<void>(VolumeId)>;
  void on_disconnect(Disconnect call) { disconnect_ = std::move(call); }
  // What went over the attachments of a volume. Without it nobody knows.
  using AskTraffic = std::function<awaitable<Traffic>(VolumeId)>;
  void on_traffic(AskTraffic call) { ask_traffic_ = std::move(call); }
  // Told of each client of NBD that comes and goes, by its subject.
  using Attached = std::function<void(const Entry&, const Attachment&, bool comes)>;
  void on_attach(Attached call) { on_attach_ = std::move(call); }

  // --- reading
  // --------------------------------------------------------------------------------------------------------
  awaitable<Answer<v1::Image>> get_image(Caller caller, v1::GetImageRequest request);
  awaitable<Answer<v1::Image>> get_latest(Caller caller, v1::GetImageLatestByFamilyRequest request);
  awaitable<Answer<v1::Snapshot>> get_snapshot(Caller caller, v1::GetSnapshotRequest request);
  awaitable<Answer<v1::Disk>> get_disk(Caller caller, v1::GetDiskRequest request);
  Answer<v1::ListImagesResponse> list_images(const Caller& caller, const v1::ListImagesRequest& request);
  Answer<v1::ListDisksResponse> list_disks(const Caller& caller, const v1::ListDisksRequest& request) const;
  Answer<v1::ListSnapshotsResponse> list_snapshots(const Caller& caller,
                                                   const v1::ListSnapshotsRequest& request);
  Answer<v1::Folder> get_folder(const Caller& caller, const v1::GetFolderRequest& request) const;
  Answer<v1::ListFoldersResponse> list_folders(const Caller& caller,
                                               const v1::ListFoldersRequest& request) const;
  awaitable<Answer<v1::DiffResponse>> diff(Caller caller, v1::DiffRequest request);
  awaitable<Answer<v1::SpaceResponse>> space(Caller caller, v1::SpaceRequest request);
  size_t count(Kind kind) const { return index_.count(kind); }
  // KIND/NAME, or KIND/ID where there is no name; empty: no resource has the volume.
  std::string name_of(VolumeId volume) const;

  // --- operations
  // -----------------------------------------------------------------------------------------------------
  OperationTable& operations() { return operations_; }
  // With its response, of what the subject may see.
  v1::Operation view(const Subject& subject, const OperationState& operation) const;
  Answer<v1::ListOperationsResponse> list_operations(const Caller& caller,
                                                     const v1::ListOperationsRequest& request) const;
  // Of one resource, which must still be there; of a folder also of what is in it.
  Answer<v1::ListOperationsResponse> list_operations_of(
      const Caller& caller, Kind kind, const v1::ListResourceOperationsRequest& request) const;

  // --- changing; the operation has ended when they answer
  // --------------------------------------------------------------
  awaitable<Answer<OperationRef>> create_image(Caller caller, v1::CreateImageRequest request);
  awaitable<Answer<OperationRef>> delete_image(Caller caller, v1::DeleteImageRequest request);
  awaitable<Answer<OperationRef>> create_disk(Caller caller, v1::CreateDiskRequest request);
  awaitable<Answer<OperationRef>> resize_disk(Caller caller, v1::ResizeDiskRequest request);
  awaitable<Answer<OperationRef>> revert_disk(Caller caller, v1::RevertDiskRequest request);
  awaitable<Answer<OperationRef>> delete_disk(Caller caller, v1::DeleteDiskRequest request);
  awaitable<Answer<OperationRef>> create_snapshots(Caller caller, v1::CreateSnapshotsRequest request);
  awaitable<Answer<OperationRef>> delete_snapshot(Caller caller, v1::DeleteSnapshotRequest request);
  awaitable<Answer<OperationRef>> update_image(Caller caller, v1::UpdateImageRequest request);
  awaitable<Answer<OperationRef>> update_disk(Caller caller, v1::UpdateDiskRequest request);
  awaitable<Answer<OperationRef>> update_snapshot(Caller caller, v1::UpdateSnapshotRequest request);
  awaitable<Answer<OperationRef>> create_folder(Caller caller, v1::CreateFolderRequest request);
  awaitable<Answer<OperationRef>> update_folder(Caller caller, v1::UpdateFolderRequest request);
  awaitable<Answer<OperationRef>> delete_folder(Caller caller, v1::DeleteFolderRequest request);

  // --- the trash (catalog_trash.cpp)
  Answer<v1::ListTrashResponse> list_trash(const Caller& caller, const v1::ListTrashRequest& request) const;
  awaitable<Answer<OperationRef>> restore(Caller caller, v1::RestoreRequest request);
  awaitable<Answer<OperationRef>> purge(Caller caller, v1::PurgeRequest request);
  // Deletes what has been in the trash for its time. load() has this done from then on. False: it could not
  // be.
  awaitable<bool> purge_expired(google::protobuf::Timestamp now);
  size_t trashed() const { return index_.trashed(); }

  // --- schedules of snapshots (catalog_schedule.cpp)
  Answer<v1::SnapshotSchedule> get_schedule(const Caller& caller,
                                            const v1::GetSnapshotScheduleRequest& request) const;
  Answer<v1::ListSnapshotSchedulesResponse> list_schedules(
      const Caller& caller, const v1::ListSnapshotSchedulesRequest& request) const;
  awaitable<Answer<OperationRef>> create_schedule(Caller caller, v1::CreateSnapshotScheduleRequest request);
  awaitable<Answer<OperationRef>> update_schedule(Caller caller, v1::UpdateSnapshotScheduleRequest request);
  awaitable<Answer<OperationRef>> delete_schedule(Caller caller, v1::DeleteSnapshotScheduleRequest request);
  awaitable<Answer<OperationRef>> run_schedule(Caller caller, v1::RunSnapshotScheduleRequest request);
  // Does what is due. load() has this done from then on. False: it could not be.
  awaitable<bool> run_due_schedules(google::protobuf::Timestamp now);

  // --- usage (catalog_usage.cpp)
  Answer<v1::GetUsageResponse> get_usage(const Caller& caller, const v1::GetUsageRequest& request);
  // One round of counting what resources hold alone and share, with rests between. load() has it done from
  // then on.
  awaitable<void> count_usage(bool gently);

  // --- who may do what; of resources of any kind
  Answer<v1::ListAccessBindingsResponse> list_access(const Caller& caller, Kind kind,
                                                     const v1::ListAccessBindingsRequest& request) const;
  awaitable<Answer<OperationRef>> set_access(Caller caller, Kind kind, v1::SetAccessBindingsRequest request);
  awaitable<Answer<OperationRef>> update_access(Caller caller, Kind kind,
                                                v1::UpdateAccessBindingsRequest request);
  // An operation that the subject may know of: its own, or one on what it may see.
  bool may_see(const Subject& subject, const OperationState& operation) const;
  bool may_cancel(const Subject& subject, const OperationState& operation) const;

  // --- import and export, whose bytes somebody else moves
  // ----------------------------------------------------------- Takes the name; the image is CREATING from
  // now on.
  Answer<ImportTicket> begin_import(const Caller& caller, const v1::ImportImageRequest& request);
  // Makes the work disk of `size_bytes` (of the source, not rounded). `format`: found by now. Where it
  // refuses, the ticket has still to be failed.
  awaitable<Answer<void>> start_import(ImportTicket& ticket, uint64_t size_bytes, std::string format);
  // Turns the work disk, on which `layout` was found, into the image, at once; the operation has then ended.
  // As above.
  awaitable<Answer<void>> finish_import(ImportTicket& ticket, std::optional<v1::Layout> layout);
  // Removes every trace but the operation, which ends with the refusal.
  awaitable<void> fail_import(ImportTicket ticket, Refusal refusal);
  Answer<ReadTicket> begin_export(const Caller& caller, const v1::ExportImageRequest& request);
  Answer<ReadTicket> begin_verify(const Caller& caller, const v1::VerifyImageRequest& request);
  awaitable<void> end_read(ReadTicket ticket, Answer<void> outcome);

  // --- what is on images
  // ------------------------------------------------------------------------------------------------------
  // An image that nobody has looked at, and one that has no digest; null: there is none. Each is answered
  // once.
  EntryRef next_unexamined();
  EntryRef next_undigested();
  // Keeps what was found out about it, unless it is gone by now.
  awaitable<void> keep_layout(EntryRef image, v1::Layout layout);
  awaitable<void> keep_digest(EntryRef image, std::string digest);

  // --- exports by NBD
  // ---------------------------------------------------------------------------------------------------
  Answer<ExportInfo> find_export(const Subject& subject, std::string_view name) const;
  // At most `limit` names that the client can ask for.
  std::vector<ExportInfo> list_exports(const Subject& subject, size_t limit) const;
  // From here to detach() the resource is neither deleted nor reverted. `session`: the caller's number for
  // it, used once.
  Answer<void> attach(std::string_view resource_id, uint64_t session, Attachment attachment);
  void detach(std::string_view resource_id, uint64_t session);
  size_t attachments() const { return attachments_; }

 private:
  // What one call changes. Its operation has begun, its entries are reserved (inserted or busy).
  struct Plan {
    OperationRef operation;
    std::vector<EntryRef> created;  // each gets a volume id before `volumes` is called
    std::vector<EntryRef> removed;
    struct Changed {
      EntryRef entry;
      v1::ResourceRecord after;
      std::string new_name;            // reserved; empty: it keeps its name
      int64_t more_bytes = 0;          // reserved in its folder
      std::optional<Bindings> access;  // instead of `after`
    };
    std::vector<Changed> changed;
    std::function<void(const std::vector<EntryRef>& created, Transaction&)> volumes;
  };
  awaitable<Answer<OperationRef>> run(Answer<Plan> plan);
  void settle(const Plan& plan, bool done);
  awaitable<Status> commit(OperationRef operation, Transaction transaction);

  Answer<Plan> plan_create_image(const Caller& caller, const v1::CreateImageRequest& request);
  Answer<Plan> plan_create_disk(const Caller& caller, const v1::CreateDiskRequest& request);
  Answer<Plan> plan_resize_disk(const Caller& caller, const v1::ResizeDiskRequest& request);
  Answer<Plan> plan_revert_disk(const Caller& caller, const v1::RevertDiskRequest& request);
  Answer<Plan> plan_create_snapshots(const Caller& caller, const v1::CreateSnapshotsRequest& request);
  Answer<Plan> plan_create_folder(const Caller& caller, const v1::CreateFolderRequest& request);
  Answer<Plan> plan_update_folder(const Caller& caller, const v1::UpdateFolderRequest& request);
  Answer<Plan> plan_delete_folder(const Caller& caller, const v1::DeleteFolderRequest& request);
  Answer<Plan> plan_update_disk(const Caller& caller, const v1::UpdateDiskRequest& request);
  Answer<Plan> plan_update_snapshot(const Caller& caller, const v1::UpdateSnapshotRequest& request);
  Answer<Plan> plan_update_image(const Caller& caller, const v1::UpdateImageRequest& request);
  // The end of each update, when the mask and what it says have been found right.
  Answer<Plan> plan_update(const Caller& caller, const EntryRef& entry, v1::ResourceRecord after);
  struct Deletion {  // as asked for, of any kind
    Kind kind;
    const std::string& folder_id;
    const std::string& id;
    std::string_view field;
    bool permanently;
  };
  static Deletion of(const v1::DeleteDiskRequest& request);
  awaitable<Answer<OperationRef>> delete_by_force(Caller caller, v1::DeleteDiskRequest request);
  Answer<Plan> plan_delete(const Caller& caller, const Deletion& deletion);
  Answer<Plan> plan_removal(const Caller& caller, const EntryRef& entry, std::string description);
  Answer<Plan> plan_trash(const Caller& caller, const EntryRef& entry, int64_t seconds);
  Answer<Plan> plan_restore(const Caller& caller, const v1::RestoreRequest& request);
  Answer<Plan> plan_purge(const Caller& caller, const v1::PurgeRequest& request);
  Answer<EntryRef> find_trashed(const Caller& caller, const std::string& folder_id,
                                const std::string& resource) const;
  awaitable<void> keep_trash();

  // Schedules of snapshots.
  v1::SnapshotSchedule schedule_view(const Entry& entry) const;
  static std::optional<int64_t> next_run_of(const Entry& schedule);  // nanoseconds
  template <typename Request>
  Answer<EntryRef> find_schedule(const Caller& caller, Right right, const Request& request) const;
  // The parts of a request, checked, into the schedule.
  template <typename Request>
  Answer<void> take_schedule(const Subject& subject, const std::string& folder,
                             const std::set<std::string>& fields, const Request& request,
                             v1::SnapshotSchedule& schedule) const;
  Answer<Plan> plan_create_schedule(const Caller& caller, const v1::CreateSnapshotScheduleRequest& request);
  Answer<Plan> plan_update_schedule(const Caller& caller, const v1::UpdateSnapshotScheduleRequest& request);
  Answer<Plan> plan_delete_schedule(const Caller& caller, const v1::DeleteSnapshotScheduleRequest& request);
  // Of all its disks that are there, and the schedule with them.
  Answer<Plan> plan_run(const Caller& caller, const EntryRef& schedule, google::protobuf::Timestamp now);
  // Deletes what the schedule no longer keeps.
  awaitable<void> retain(EntryRef schedule, google::protobuf::Timestamp now);
  awaitable<void> keep_schedules();
  awaitable<Answer<void>> detach_all(const Caller& caller, const v1::DeleteDiskRequest& request);

  // Who may do what (catalog_access.cpp).
  Rights rights_of(const Subject& subject, const Entry& entry) const;
  // Whether it is there as far as the subject is concerned: it may see the folder, or something in it.
  bool may_enter(const Subject& subject, const Entry& folder) const;
  Answer<void> check_right(const Subject& subject, Right right, const Entry& entry,
                           std::string_view field) const;
  Index::Visible visible_to(const Subject& subject) const;
  // The newest one of the family on which the subject has the right; null: none.
  EntryRef latest_of_family(const Subject& subject, Right right, const std::string& folder,
                            const std::string& family) const;
  Answer<void> check_superuser(const Subject& subject, std::string_view field, std::string_view what) const;
  // That files can be opened with the subject's rights.
  Answer<void> check_files(const Subject& subject, std::string_view field) const;
  template <typename Request>
  Answer<EntryRef> find_resource(const Caller& caller, Right right, Kind kind, const Request& request) const;
  // A page of those for which `visible` holds.
  Answer<v1::ListOperationsResponse> page_of_operations(int64_t page_size, const std::string& page_token,
                                                        const OperationTable::Visible& visible) const;
  Answer<Plan> plan_set_access(const Caller& caller, const EntryRef& entry, Answer<Bindings> bindings);

  // Steps of deciding (catalog_rules.cpp).
  static Caller daemon_caller(std::string method);  // for what the daemon does by itself
  std::string in_folder(const std::string& folder) const;
  static std::string in_trash(const Index::Contents& contents);
  Answer<EntryRef> find_folder(const Subject& subject, Right right, const std::string& id_or_name,
                               std::string_view field) const;
  // Its id.
  Answer<std::string> folder_of(const Subject& subject, const std::string& folder_id,
                                std::string_view field = "folder_id") const;
  Answer<std::string> folder_for_new(const Subject& subject, const std::string& folder_id) const;
  Answer<std::string> source_folder(const Subject& subject, const std::string& folder,
                                    const std::string& source_folder_id) const;
  Answer<void> check_not_obsolete(const Subject& subject, const Entry& image) const;
  // What the subject may not see is not found; what it may see, but not do, is refused.
  Answer<EntryRef> find(const Subject& subject, Right right, Kind kind, const std::string& folder,
                        const std::string& id_or_name, std::string_view field) const;
  Answer<EntryRef> find_source(const Subject& subject, Right right, Kind kind, const std::string& folder,
                               const std::string& id_or_name, std::string_view field) const;
  Answer<void> check_free(Kind kind, const std::string& folder, const std::string& name,
                          std::string_view field) const;
  Answer<void> check_idle(const Entry& entry, std::string_view field) const;
  Answer<void> check_unused(const Entry& entry, std::string_view verb, std::string_view field) const;
  Answer<void> check_unprotected(const Entry& entry, std::string_view field) const;
  Answer<void> check_room(size_t more) const;
  // What the folder allows: so many more of the kind, and so many bytes.
  Answer<void> check_quota(const std::string& folder, Kind kind, size_t more, uint64_t bytes) const;

  // Has somebody find out what is not known about it.
  void look_later(const EntryRef& entry);
  static EntryRef next_of(std::deque<EntryRef>& queue, bool (*wanted)(const v1::ImageContent&));
  awaitable<void> keep_content(EntryRef image, std::function<void(v1::ImageContent&)> change);
  struct FolderUsage {
    UsageRows rows;
    int64_t as_of = 0;  // nanoseconds; what is there now is in the rows up to it
    std::string name;   // for when the folder is gone
  };
  void load_usage(const v1::UsageRecord& record);
  // Of folders that are gone, what is too old to be kept.
  awaitable<Answer<void>> forget_usage();
  void add_usage(UsageRows& rows, const FolderUsage& usage, const Entry& entry, int64_t now) const;
  void append_usage(Plan& plan, Transaction& transaction);
  void append_usage_rows(const std::string& folder, int64_t now, int from, int to,
                         v1::GetUsageResponse& response) const;
  PutResource usage_record(const std::string& folder, FolderUsage& usage, int64_t now) const;
  // Disks, snapshots and images, those in the trash, too.
  void each_volume_in(const std::string& folder, const std::function<void(const EntryRef&)>& visit) const;
  awaitable<void> keep_usage();

  void begin_background(awaitable<void> task);
  void end_background();  // the last thing that each does

  // Shortens it to what is kept.
  static PutResource content_of(const Entry& image, v1::ImageContent& content);
  template <typename Resource>
  EntryRef new_entry(Kind kind, const Caller& caller, Resource resource);
  void reserve_change(Plan& plan, const EntryRef& entry, v1::ResourceRecord after);
  void insert_default_folder();
  // The volume of a disk/NAME of the folder and so on; of a bare NAME, when only one kind has it.
  Answer<VolumeId> find_volume(const Subject& subject, Right right, const std::string& folder_id,
                               const std::string& name, std::string_view field) const;

  template <typename Response, typename Request, typename Append>
  Answer<Response> list(const Subject& subject, Kind kind, const Request& request, Append append) const;
  static v1::Disk disk_view(const Entry& entry, const Traffic& traffic = {});
  v1::Folder folder_view(const Entry& entry) const;
  // Counts the space of a snapshot or image; in the background, one at a time, or now.
  void measure_later(const EntryRef& entry);
  awaitable<void> measure_all();
  awaitable<void> measure(EntryRef entry);

  boost::asio::any_io_executor executor_;
  StoreAccess& store_;
  Clock clock_;
  Index index_;
  OperationTable operations_;
  size_t attachments_ = 0;
  Attached on_attach_;
  std::deque<EntryRef> to_measure_, to_examine_, to_digest_;
  Disconnect disconnect_;
  AskTraffic ask_traffic_;
  std::map<std::string, FolderUsage> usage_;  // by the folder's id
  bool measuring_ = false, stopping_ = false;
  boost::asio::steady_timer purge_timer_, usage_timer_, schedule_timer_;
  unsigned background_ = 0;  // tasks that go on
  AsyncEvent background_ended_;
};

}  // namespace obraz
