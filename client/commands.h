// What each command does once its command line has been understood.
//
// Each function answers the exit status: 0, or 1 after it has printed the refusal.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "client/attach.h"
#include "client/completion.h"
#include "client/connection.h"
#include "obraz/v1/access.pb.h"
#include "obraz/v1/disk_service.pb.h"
#include "obraz/v1/folder_service.pb.h"
#include "obraz/v1/image_service.pb.h"
#include "obraz/v1/schedule_service.pb.h"
#include "obraz/v1/snapshot_service.pb.h"
#include "obraz/v1/trash_service.pb.h"
#include "obraz/v1/tree.pb.h"
#include "obraz/v1/usage_service.pb.h"

namespace obraz::client {

// What the command line said, of all commands together; each reads its own.
struct Arguments {
  std::string control, folder;
  bool json = false, quiet = false;
  std::string target, other;  // positional: a name or id, a source, a file
  std::string name, description, family, os, format, sha256;
  std::vector<std::string> names, disks;  // snapshot create
  std::vector<std::string> volumes;       // space
  std::map<std::string, std::string> labels;
  std::vector<std::string> product_ids;
  std::string generation, source_folder, replacement;
  std::string set_name;            // update --name: its presence counts
  std::vector<std::string> given;  // fields that update was given options for
  bool protect = false;            // --delete-protection
  int64_t quota_images = 0, quota_disks = 0, quota_snapshots = 0, quota_bytes = 0;
  std::string image, disk, snapshot, from_disk, from_snapshot, from_image, consumer, idempotency_key;
  int64_t size = 0, min_disk_size = 0;  // bytes; 0: not given
  std::string from_month, to_month;     // usage
  int64_t trash_seconds = 0;            // --trash
  std::string every, start_at;          // of a schedule
  int64_t keep = 0, keep_seconds = 0;   // 0: not given
  std::string snapshot_description;
  std::map<std::string, std::string> snapshot_labels;
  bool async = false;
  bool permanently = false, force = false;  // delete
  std::string role;
  std::vector<std::string> subjects, bindings;
  bool is_public = false, is_private = false;
  std::string filter, order_by;
};

class Commands {
 public:
  explicit Commands(Arguments arguments) : arguments_(std::move(arguments)) {}

  int image_import();
  int image_create();
  int image_list();
  int image_get();
  int image_latest();
  int image_delete();
  int image_verify();
  int image_export();
  int image_update();
  int image_deprecate();
  int image_obsolete();
  int image_restore();
  int disk_create();
  int disk_list();
  int disk_get();
  int disk_update();
  int disk_resize();
  int disk_revert();
  int disk_delete();
  int disk_uri();
  int disk_attach_args();
  int snapshot_create();
  int snapshot_list();
  int snapshot_get();
  int snapshot_delete();
  int snapshot_update();
  int schedule_create();
  int schedule_list();
  int schedule_get();
  int schedule_update();
  int schedule_enable();
  int schedule_disable();
  int schedule_run();
  int schedule_delete();
  int folder_create();
  int folder_list();
  int folder_get();
  int folder_update();
  int folder_delete();
  int usage();
  int trash_list();
  int trash_restore();
  int trash_purge();
  int image_share();
  int access_list();
  int access_set();
  int access_grant();
  int access_revoke();
  int diff();
  int space();
  int tree();
  int completion();
  int operation_list();
  int operation_get();
  int operation_watch();
  int operation_cancel();
  int status();

  // The names that there are for a metavariable of the command line, as far as the daemon tells.
  std::vector<Candidate> names_of(const std::string& metavariable);

 private:
  Outcome<Connection*> connect();
  Outcome<void> call(const std::string& method, const google::protobuf::MessageLite& request,
                     google::protobuf::MessageLite& response);
  int refused(const v1::Error& error);
  // Of a name that there is not: the one that was meant, as it seems; empty: nobody knows.
  std::string meant_by(const v1::Error& error);

  template <typename Request>
  Request new_request() const;  // with the folder
  template <typename Request>
  void describe_new(Request& request) const;
  // Of the system on a disk or image.
  template <typename Request>
  void describe_system(Request& request) const;
  // The mask, and what all updates have.
  template <typename Request>
  void describe_update(Request& request) const;
  template <typename Request>
  void describe_schedule(Request& request) const;
  int set_schedule(bool disabled);
  v1::Quota quota() const;
  int mark_image(v1::Deprecation::State state, const char* done);
  template <typename Resource, typename Request>
  int get(const std::string& method, const Request& request);
  // All pages in one.
  template <typename Request, typename Response, typename Members>
  Outcome<Response> collect(const std::string& method, Request request, Members members);
  template <typename Request, typename Response, typename Members>
  int list(const std::string& method, Request request, Members members);
  template <typename Resource, typename Request, typename Members>
  int change(const std::string& method, Request request, const char* verb, Members members);
  // `what` was asked about; `done` is what became of it.
  template <typename Request>
  int act(const std::string& method, Request request, const std::string& what, const char* done);
  template <typename Request>
  int act(const std::string& method, Request request, const char* done) {
    return act(method, std::move(request), arguments_.target, done);
  }

  // The operation once it has ended, with what there is to see meanwhile.
  Outcome<v1::Operation> await(v1::Operation operation);
  template <typename Request>
  Outcome<v1::Operation> operate(const std::string& method, Request request);
  // What --image, --disk, --snapshot or else --folder names.
  struct NamedResource {
    std::string service, resource;  // the resource: its name or id
    std::string title;              // image/debian
  };
  NamedResource named_resource() const;
  template <typename Request>
  Request resource_request() const;
  int change_access(v1::AccessBindingDelta::Action action);
  int print_operation(const v1::Operation& operation) const;
  // Of the disk that the command is about.
  struct Export {
    NbdAddress address;
    std::string name;
    GuestNeeds needs;
  };
  Outcome<Export> find_export();
  Outcome<std::vector<v1::TreeVolume>> volumes();

  const Arguments arguments_;
  std::unique_ptr<Connection> connection_;
};

}  // namespace obraz::client
