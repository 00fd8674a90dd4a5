#include "client/cli.h"

#include <fmt/core.h>
#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/util/time_util.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <optional>
#include <string_view>

#include "base/duration.h"
#include "base/size.h"
#include "client/commands.h"
#include "client/completion.h"
#include "client/manual.h"
#include "client/nearest.h"
#include "client/output.h"
#include "man_page.h"
#include "proto/text.h"

namespace obraz::client {
namespace {

constexpr int kWrongCommandLine = 2;
constexpr unsigned kCompletionSeconds = 3;  // nobody waits longer for a word

// The tree of commands. It fills arguments_ and chooses one member of Commands.
class CommandLine {
 public:
  CommandLine() {
    app_.require_subcommand(1);
    app_.add_option("--control", arguments_.control,
                    "the daemon's control socket (default: $OBRAZ_CONTROL, "
                    "./obraz-data/control.sock, /run/obraz/control.sock)")
        ->type_name("PATH");
    app_.add_flag("--json", arguments_.json, "print one JSON document");
    app_.add_flag("-q,--quiet", arguments_.quiet, "print ids only, a line each, and no progress")
        ->excludes("--json");
    folder_ = app_.add_option("--folder", arguments_.folder, "the folder to work in")
                  ->type_name("FOLDER")
                  ->default_str("default");
    add_images();
    add_disks();
    add_snapshots();
    add_schedules();
    add_folders();
    add_trash();
    add_access();
    add_others();
    add_documentation_flags(app_, kManual);
  }

  CLI::App& app() { return app_; }
  int run() {
    Commands commands(arguments_);
    return (commands.*action_)();
  }

 private:
  using Action = int (Commands::*)();

  CLI::App* group(const std::string& name, const std::string& description) {
    CLI::App* group = app_.add_subcommand(name, description);
    group->require_subcommand(1);
    group->fallthrough();
    return group;
  }
  CLI::App* leaf(CLI::App* parent, const std::string& name, const std::string& description, Action action) {
    CLI::App* leaf = parent->add_subcommand(name, description);
    leaf->fallthrough();  // --json and the like may come last
    leaf->callback([this, action] { action_ = action; });
    return leaf;
  }
  void target(CLI::App* leaf, const std::string& name, const std::string& description) {
    leaf->add_option(name, arguments_.target, description)->required();
  }
  CLI::Option* size(CLI::App* leaf, const std::string& name, int64_t& into, const std::string& description) {
    return leaf
        ->add_option_function<std::string>(
            name,
            [&into, name](const std::string& text) {
              const auto bytes = parse_size(text);
              if (!bytes)
                throw CLI::ValidationError(name, "a size is digits and K, M, G or T, for instance 10G");
              into = *bytes;
            },
            description)
        ->type_name("SIZE");
  }
  // What every command that makes or changes a resource takes, but for the name.
  CLI::Option* description(CLI::App* leaf) {
    return leaf->add_option("--description", arguments_.description, "at most 256 characters")
        ->type_name("TEXT");
  }
  CLI::Option* labels(CLI::App* leaf) { return labels(leaf, "--label", arguments_.labels); }
  static CLI::Option* labels(CLI::App* leaf, const std::string& name,
                             std::map<std::string, std::string>& into) {
    return leaf
        ->add_option_function<std::vector<std::string>>(
            name,
            [&into, name](const std::vector<std::string>& labels) {
              for (const std::string& label : labels) {
                const size_t equals = label.find('=');
                if (equals == std::string::npos)
                  throw CLI::ValidationError(name, "a label is KEY=VALUE");
                into[label.substr(0, equals)] = label.substr(equals + 1);
              }
            },
            "may repeat")
        ->type_name("KEY=VALUE")
        ->allow_extra_args(false);
  }
  CLI::Option* protection(CLI::App* leaf) {
    return leaf->add_flag("--delete-protection,!--no-delete-protection", arguments_.protect,
                          "refuse to delete it");
  }
  void describe(CLI::App* leaf) {
    description(leaf);
    labels(leaf);
    protection(leaf);
    changes(leaf);
  }
  // Of the system on a disk or image.
  using Fields = std::vector<std::pair<CLI::Option*, const char*>>;  // options, and the fields they change
  Fields describe_system(CLI::App* leaf) {
    return {{leaf->add_option("--os", arguments_.os, "the operating system on it")
                 ->check(CLI::IsMember({"linux", "windows"})),
             "os"},
            {leaf->add_option("--product-id", arguments_.product_ids, "may repeat")
                 ->allow_extra_args(false)
                 ->type_name("ID"),
             "product_ids"},
            {leaf->add_option("--hardware-generation", arguments_.generation, "legacy: BIOS; 2: UEFI")
                 ->check(CLI::IsMember({"legacy", "2"})),
             "hardware_generation"}};
  }
  // What an update takes. Options that were given are the fields that change.
  void updates(CLI::App* leaf, Fields fields, Action action) {
    fields.emplace_back(leaf->add_option("--name", arguments_.set_name, "another name")->type_name("NAME"),
                        "name");
    fields.emplace_back(description(leaf), "description");
    fields.emplace_back(labels(leaf)->description("all of them anew; may repeat"), "labels");
    fields.emplace_back(leaf->add_flag("--no-labels")->description("takes all labels away"), "labels");
    fields.emplace_back(protection(leaf), "delete_protection");
    changes(leaf);
    leaf->callback([this, fields, action] {
      for (const auto& [option, field] : fields)
        if (option->count() > 0)
          arguments_.given.emplace_back(field);
      if (arguments_.given.empty())
        throw CLI::RequiredError("an option that says what changes");
      action_ = action;
    });
  }
  Fields quotas(CLI::App* leaf) {
    const auto count = [&](const char* name, int64_t& into, const char* what) {
      return leaf->add_option(name, into, std::string("at most so many ") + what + "; 0: no limit")
          ->check(CLI::NonNegativeNumber)
          ->type_name("COUNT");
    };
    return {{count("--quota-images", arguments_.quota_images, "images"), "quota.images"},
            {count("--quota-disks", arguments_.quota_disks, "disks"), "quota.disks"},
            {count("--quota-snapshots", arguments_.quota_snapshots, "snapshots"), "quota.snapshots"},
            {size(leaf, "--quota-bytes", arguments_.quota_bytes,
                  "sizes of all of them together at most; 0: no limit"),
             "quota.bytes"}};
  }
  void from_folder(CLI::App* leaf) {
    leaf->add_option("--from-folder", arguments_.source_folder,
                     "the folder of what it is made from (default: the same)")
        ->type_name("FOLDER");
  }
  // What every list takes.
  CLI::App* listing(CLI::App* parent, const std::string& description, Action action) {
    CLI::App* list = leaf(parent, "list", description, action);
    list->add_option("--filter", arguments_.filter,
                     "only what it holds for, such as 'status = READY AND labels.env IN (dev, test)'")
        ->type_name("FILTER");
    list->add_option("--order-by", arguments_.order_by,
                     "such as 'created_at desc'; of name, created_at and id (default: name)")
        ->type_name("ORDER");
    return list;
  }
  void changes(CLI::App* leaf) {
    leaf->add_option("--idempotency-key", arguments_.idempotency_key,
                     "the same key and command again answer the same operation")
        ->type_name("KEY");
  }
  void named(CLI::App* leaf) {
    leaf->add_option("--name", arguments_.name, "1-63 characters: a-z, 0-9, - and _")
        ->required()
        ->type_name("NAME");
    describe(leaf);
  }
  static CLI::Option* duration(CLI::App* leaf, const std::string& name, int64_t& into,
                               const std::string& description) {
    return leaf
        ->add_option_function<std::string>(
            name,
            [&into, name](const std::string& text) {
              const auto seconds = parse_duration(text);
              if (!seconds)
                throw CLI::ValidationError(name, "a duration is digits and s, m, h or d, for instance 24h");
              into = *seconds;
            },
            description)
        ->type_name("DURATION");
  }
  CLI::Option* trash_window(CLI::App* leaf) {
    return duration(leaf, "--trash", arguments_.trash_seconds,
                    "what is deleted in it can be had back for so long; 0: not at all");
  }
  void deletion(CLI::App* leaf) {
    leaf->add_flag("--permanently", arguments_.permanently, "past the trash of its folder");
    changes(leaf);
  }
  void may_be_async(CLI::App* leaf) {
    leaf->add_flag("--async", arguments_.async,
                   "answer the operation at once instead of waiting for its end");
  }
  void describe_image(CLI::App* leaf) {
    leaf->add_option("--family", arguments_.family, "the family whose newest image this becomes")
        ->type_name("FAMILY");
    describe_system(leaf);
    size(leaf, "--min-disk-size", arguments_.min_disk_size, "the smallest disk to be made from it");
    may_be_async(leaf);
  }

  void add_images() {
    CLI::App* images = group("image", "images: full copies of disks, for making disks");
    CLI::App* import =
        leaf(images, "import", "make an image from a file or an NBD URI", &Commands::image_import);
    target(import, "SOURCE", "a file, or an NBD URI");
    named(import);
    describe_image(import);
    import->add_option("--format", arguments_.format, "the file's format (default: detected)")
        ->check(CLI::IsMember({"raw", "qcow2", "vmdk", "vpc", "vhdx", "vdi"}));
    import->add_option("--sha256", arguments_.sha256, "of the file; another file is refused")
        ->type_name("HEX");
    CLI::App* create =
        leaf(images, "create", "make an image from a disk, a snapshot or an image", &Commands::image_create);
    named(create);
    describe_image(create);
    CLI::App* source = create->add_option_group("source");
    source->add_option("--from-disk", arguments_.from_disk, "a disk")->type_name("DISK");
    source->add_option("--from-snapshot", arguments_.from_snapshot, "a snapshot")->type_name("SNAPSHOT");
    source->add_option("--from-image", arguments_.from_image, "an image")->type_name("IMAGE");
    source->require_option(1);
    from_folder(create);
    listing(images, "list the images of the folder", &Commands::image_list);
    target(leaf(images, "get", "show one image", &Commands::image_get), "IMAGE", "its name or id");
    leaf(images, "latest", "show the newest image of a family", &Commands::image_latest)
        ->add_option("--family", arguments_.family, "the family")
        ->required()
        ->type_name("FAMILY");
    CLI::App* remove =
        leaf(images, "delete", "delete an image; disks made from it stay", &Commands::image_delete);
    target(remove, "IMAGE", "its name or id");
    deletion(remove);
    CLI::App* update = leaf(images, "update", "change what an image says of itself", &Commands::image_update);
    target(update, "IMAGE", "its name or id");
    Fields fields = describe_system(update);
    fields.emplace_back(
        update->add_option("--family", arguments_.family, "another family; empty: none")->type_name("FAMILY"),
        "family");
    fields.emplace_back(
        size(update, "--min-disk-size", arguments_.min_disk_size, "the smallest disk to be made from it"),
        "min_disk_size");
    updates(update, fields, &Commands::image_update);
    CLI::App* deprecate = leaf(images, "deprecate", "have its family pass it over; it still makes disks",
                               &Commands::image_deprecate);
    CLI::App* obsolete =
        leaf(images, "obsolete", "have it make no new disks any more", &Commands::image_obsolete);
    CLI::App* restore = leaf(images, "restore", "take deprecate or obsolete back", &Commands::image_restore);
    for (CLI::App* mark : {deprecate, obsolete, restore}) {
      target(mark, "IMAGE", "its name or id");
      changes(mark);
    }
    for (CLI::App* mark : {deprecate, obsolete})
      mark->add_option("--replacement", arguments_.replacement, "the image to use instead")
          ->type_name("IMAGE");
    CLI::App* share = leaf(images, "share", "let everybody make disks from an image, or nobody else any more",
                           &Commands::image_share);
    target(share, "IMAGE", "its name or id");
    CLI::App* with = share->add_option_group("with");
    with->add_flag("--public", arguments_.is_public, "everybody may see it and make disks from it");
    with->add_flag("--private", arguments_.is_private, "only those to whom it has been granted otherwise");
    with->require_option(1);
    changes(share);
    CLI::App* verify =
        leaf(images, "verify", "read all of an image and compare with its digest", &Commands::image_verify);
    target(verify, "IMAGE", "its name or id");
    may_be_async(verify);
    changes(verify);
    CLI::App* out = leaf(images, "export", "write an image into a new file", &Commands::image_export);
    target(out, "IMAGE", "its name or id");
    out->add_option("FILE", arguments_.other, "the file to make; it must not exist")->required();
    out->add_option("--format", arguments_.format, "the file's format (default: raw)")
        ->check(CLI::IsMember({"raw", "qcow2"}));
    may_be_async(out);
    changes(out);
  }

  void add_disks() {
    CLI::App* disks = group("disk", "disks: writable, served over NBD");
    CLI::App* create =
        leaf(disks, "create", "make a disk, empty or from an image or snapshot", &Commands::disk_create);
    named(create);
    CLI::Option* bytes =
        size(create, "--size", arguments_.size, "rounded up to 4M (default: what the source needs)");
    CLI::App* source = create->add_option_group("source");
    source->add_option("--image", arguments_.image, "an image")->type_name("IMAGE");
    source->add_option("--family", arguments_.family, "the newest image of a family")->type_name("FAMILY");
    source->add_option("--snapshot", arguments_.snapshot, "a snapshot")->type_name("SNAPSHOT");
    source->require_option(0, 1);
    from_folder(create);
    describe_system(create);
    create->callback([this, source, bytes] {
      if (source->count_all() == 0 && bytes->count() == 0)
        throw CLI::RequiredError("one of --image, --family, --snapshot and --size");
      action_ = &Commands::disk_create;
    });
    may_be_async(create);
    listing(disks, "list the disks of the folder", &Commands::disk_list);
    target(leaf(disks, "get", "show one disk", &Commands::disk_get), "DISK", "its name or id");
    CLI::App* update = leaf(disks, "update", "change what a disk says of itself", &Commands::disk_update);
    target(update, "DISK", "its name or id");
    updates(update, describe_system(update), &Commands::disk_update);
    CLI::App* resize = leaf(disks, "resize", "make a disk larger; it may be in use", &Commands::disk_resize);
    target(resize, "DISK", "its name or id");
    size(resize, "--size", arguments_.size, "rounded up to 4M")->required();
    changes(resize);
    CLI::App* revert = leaf(disks, "revert", "make a disk what it was when a snapshot of it was made",
                            &Commands::disk_revert);
    target(revert, "DISK", "its name or id");
    revert->add_option("--snapshot", arguments_.snapshot, "one of the disk's snapshots")
        ->required()
        ->type_name("SNAPSHOT");
    changes(revert);
    CLI::App* remove = leaf(disks, "delete", "delete a disk; its snapshots stay", &Commands::disk_delete);
    target(remove, "DISK", "its name or id");
    deletion(remove);
    remove->add_flag("--force", arguments_.force, "end the sessions of the clients that have it attached");
    target(leaf(disks, "uri", "print the disk's NBD URI", &Commands::disk_uri), "DISK", "its name or id");
    CLI::App* args = leaf(disks, "attach-args", "print how to attach the disk", &Commands::disk_attach_args);
    target(args, "DISK", "its name or id");
    args->add_option("--for", arguments_.consumer, "what attaches it")
        ->required()
        ->check(CLI::IsMember({"qemu", "libvirt", "nbd-client"}));
  }

  void add_snapshots() {
    CLI::App* snapshots = group("snapshot", "snapshots: disks as they were at an instant");
    CLI::App* create =
        leaf(snapshots, "create", "make a snapshot of a disk, or of several at the same instant",
             &Commands::snapshot_create);
    create->add_option("--name", arguments_.names, "one for each --disk, in the same order")
        ->required()
        ->allow_extra_args(false)
        ->type_name("NAME");
    create->add_option("--disk", arguments_.disks, "a disk; may repeat")
        ->required()
        ->allow_extra_args(false)
        ->type_name("DISK");
    describe(create);
    may_be_async(create);
    create->callback([this] {
      if (arguments_.names.size() != arguments_.disks.size())
        throw CLI::ValidationError("snapshot create", "there must be as many --name as --disk");
      action_ = &Commands::snapshot_create;
    });
    listing(snapshots, "list the snapshots of the folder", &Commands::snapshot_list);
    target(leaf(snapshots, "get", "show one snapshot", &Commands::snapshot_get), "SNAPSHOT",
           "its name or id");
    CLI::App* update =
        leaf(snapshots, "update", "change what a snapshot says of itself", &Commands::snapshot_update);
    target(update, "SNAPSHOT", "its name or id");
    updates(update, {}, &Commands::snapshot_update);
    CLI::App* remove = leaf(snapshots, "delete", "delete a snapshot", &Commands::snapshot_delete);
    target(remove, "SNAPSHOT", "its name or id");
    deletion(remove);
  }

  // What a schedule does and keeps; options, and the fields they change.
  Fields describe_schedule(CLI::App* leaf) {
    CLI::Option* every =
        leaf->add_option(
                "--every", arguments_.every,
                "minute, hour, day of the month, month, day of the week, such as '30 2 * * 1-5', in UTC; or "
                "@hourly, @daily, @weekly, @monthly, @yearly")
            ->type_name("EXPRESSION");
    CLI::Option* start =
        leaf->add_option("--start-at", arguments_.start_at, "not before, such as 2030-01-31T00:00:00Z")
            ->type_name("TIME")
            ->check(CLI::Validator(
                [](std::string& text) {
                  google::protobuf::Timestamp time;
                  return google::protobuf::util::TimeUtil::FromString(text, &time)
                             ? std::string()
                             : "a time is like 2030-01-31T00:00:00Z";
                },
                ""));
    CLI::Option* disks = leaf->add_option("--disk", arguments_.disks, "a disk; may repeat")
                             ->allow_extra_args(false)
                             ->type_name("DISK");
    CLI::Option* count =
        leaf->add_option("--keep", arguments_.keep, "the newest so many snapshots of each disk")
            ->check(CLI::PositiveNumber)
            ->type_name("COUNT");
    CLI::Option* age = duration(leaf, "--keep-for", arguments_.keep_seconds, "each snapshot so long");
    count->excludes(age);
    return {{every, "schedule_policy"},
            {start, "schedule_policy"},
            {disks, "disk_ids"},
            {count, "retention_policy"},
            {age, "retention_policy"},
            {labels(leaf, "--snapshot-label", arguments_.snapshot_labels), "snapshot_spec"},
            {leaf->add_option("--snapshot-description", arguments_.snapshot_description, "of each snapshot")
                 ->type_name("TEXT"),
             "snapshot_spec"}};
  }
  void add_schedules() {
    CLI::App* schedules =
        group("schedule", "schedules: snapshots made again and again, and how many are kept");
    CLI::App* create =
        leaf(schedules, "create", "have snapshots of disks made again and again", &Commands::schedule_create);
    named(create);
    for (const auto& [option, field] : describe_schedule(create))
      if (field == std::string_view("disk_ids") || option->check_lname("every"))
        option->required();
    listing(schedules, "list the schedules of the folder", &Commands::schedule_list);
    const auto one = [&](const char* name, const char* description, Action action) {
      CLI::App* command = leaf(schedules, name, description, action);
      target(command, "SCHEDULE", "its name or id");
      return command;
    };
    one("get", "show one schedule", &Commands::schedule_get);
    CLI::App* update = one("update", "change a schedule", &Commands::schedule_update);
    Fields fields = describe_schedule(update);
    fields.emplace_back(update->add_flag("--keep-all")->description("delete no snapshots"),
                        "retention_policy");
    updates(update, fields, &Commands::schedule_update);
    changes(one("enable", "have a schedule make snapshots again, from now on", &Commands::schedule_enable));
    changes(one("disable", "have a schedule make no snapshots any more", &Commands::schedule_disable));
    changes(one("run", "make its snapshots now, too, and delete those it no longer keeps",
                &Commands::schedule_run));
    changes(one("delete", "delete a schedule; its snapshots stay", &Commands::schedule_delete));
  }

  void add_folders() {
    CLI::App* folders = group("folder", "folders: what resources live in");
    CLI::App* create = leaf(folders, "create", "make a folder", &Commands::folder_create);
    named(create);
    quotas(create);
    trash_window(create);
    listing(folders, "list the folders", &Commands::folder_list);
    target(leaf(folders, "get", "show one folder", &Commands::folder_get), "FOLDER", "its name or id");
    CLI::App* update = leaf(folders, "update", "change what a folder says of itself, and its quotas",
                            &Commands::folder_update);
    target(update, "FOLDER", "its name or id");
    Fields fields = quotas(update);
    fields.emplace_back(trash_window(update), "trash_seconds");
    updates(update, fields, &Commands::folder_update);
    CLI::App* remove = leaf(folders, "delete", "delete a folder; it must be empty", &Commands::folder_delete);
    target(remove, "FOLDER", "its name or id");
    changes(remove);
  }

  void add_trash() {
    CLI::App* trash = group("trash", "trash: what was deleted in a folder that keeps it for a while");
    leaf(trash, "list", "list what can be had back, the last deleted first", &Commands::trash_list);
    CLI::App* restore = leaf(trash, "restore", "have something back as it was", &Commands::trash_restore);
    restore->add_option("--name", arguments_.name, "another name for it")->type_name("NAME");
    CLI::App* purge =
        leaf(trash, "purge", "delete something for good, before its time", &Commands::trash_purge);
    for (CLI::App* change : {restore, purge}) {
      target(change, "RESOURCE", "an id, or disk/NAME, snapshot/NAME, image/NAME: the one deleted last");
      changes(change);
    }
  }

  // At most one of an image, a disk and a snapshot.
  CLI::App* name_resource(CLI::App* leaf) {
    CLI::App* resource = leaf->add_option_group("resource");
    resource->add_option("--image", arguments_.image, "of an image")->type_name("IMAGE");
    resource->add_option("--disk", arguments_.disk, "of a disk")->type_name("DISK");
    resource->add_option("--snapshot", arguments_.snapshot, "of a snapshot")->type_name("SNAPSHOT");
    resource->require_option(0, 1);
    return resource;
  }
  // Of the commands on access: what they are about.
  CLI::App* about(CLI::App* access, const char* name, const char* description, Action action) {
    CLI::App* leaf = this->leaf(access, name, description, action);
    CLI::App* resource = name_resource(leaf);
    leaf->callback([this, resource, action] {
      if (resource->count_all() == 0 && folder_->count() == 0)
        throw CLI::RequiredError("one of --folder, --image, --disk and --snapshot");
      action_ = action;
    });
    return leaf;
  }
  void add_access() {
    CLI::App* access = group(
        "access", "access: who may do what with a folder (--folder) or an image, disk or snapshot of it");
    about(access, "list", "show the bindings of a resource", &Commands::access_list);
    CLI::App* set =
        about(access, "set", "put other bindings in place of all those there are", &Commands::access_set);
    set->add_option("--bind", arguments_.bindings, "may repeat; none: takes all away")
        ->type_name("ROLE=SUBJECT")
        ->allow_extra_args(false);
    changes(set);
    const auto delta = [&](const char* name, const char* description, Action action) {
      CLI::App* change = about(access, name, description, action);
      change->add_option("--role", arguments_.role, "see, use images, change, or all of it")
          ->required()
          ->check(CLI::IsMember({"viewer", "images.user", "editor", "admin"}));
      change
          ->add_option("--subject", arguments_.subjects,
                       "user:NAME, group:NAME or allAuthenticatedUsers; may repeat")
          ->required()
          ->type_name("SUBJECT")
          ->allow_extra_args(false);
      changes(change);
    };
    delta("grant", "give a role on a resource", &Commands::access_grant);
    delta("revoke", "take a role on a resource away", &Commands::access_revoke);
  }

  void add_others() {
    CLI::App* diff = leaf(&app_, "diff", "show the ranges in which two volumes differ", &Commands::diff);
    target(diff, "A", "a name, disk/NAME, snapshot/NAME, image/NAME, or an id");
    diff->add_option("B", arguments_.other, "the same")->required();
    leaf(&app_, "space", "show how many bytes deleting volumes would give back, each alone and all together",
         &Commands::space)
        ->add_option("VOLUME", arguments_.volumes,
                     "a name, disk/NAME, snapshot/NAME, image/NAME, or an id; several")
        ->required();
    leaf(&app_, "tree", "show what was made of what, and the bytes of each alone and shared",
         &Commands::tree);
    CLI::App* usage =
        leaf(&app_, "usage", "show for how many hours resources of each folder were there, and how large",
             &Commands::usage);
    usage->add_option("--from", arguments_.from_month, "the first month (default: all that are kept)")
        ->type_name("YEAR-MONTH");
    usage->add_option("--to", arguments_.to_month, "the last month (default: the present one)")
        ->type_name("YEAR-MONTH");
    CLI::App* operations = group("operation", "operations: what was asked for, and what became of it");
    name_resource(leaf(
        operations, "list",
        "list the operations, the newest first; all, or those on one resource, or on a folder and all in it",
        &Commands::operation_list));
    target(leaf(operations, "get", "show one operation", &Commands::operation_get), "OPERATION", "its id");
    target(leaf(operations, "watch", "follow an operation to its end", &Commands::operation_watch),
           "OPERATION", "its id");
    target(leaf(operations, "cancel", "ask an operation to stop, and wait for its end",
                &Commands::operation_cancel),
           "OPERATION", "its id");
    leaf(&app_, "status", "show the store, its space, sessions and health", &Commands::status);
    leaf(&app_, "completion", "print what a shell reads to complete the words of obraz",
         &Commands::completion)
        ->add_option("SHELL", arguments_.target, "the shell")
        ->required()
        ->check(CLI::IsMember(std::vector<std::string>(std::begin(kShells), std::end(kShells))));
  }

  CLI::App app_{"obraz, the client of the block storage daemon obrazd", "obraz"};
  CLI::Option* folder_ = nullptr;
  Arguments arguments_;
  Action action_ = nullptr;
};

// The command or option of `app`, or of the command that was understood last, that is nearest to the word;
// empty: none is near.
std::string nearest(const CLI::App& app, const std::string& word) {
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty())
    at = at->get_subcommands().front();
  std::vector<std::string> known;
  if (word.starts_with("--")) {
    for (; at; at = at->get_parent())
      for (const CLI::Option* option : options_of(*at))
        for (const std::string& name : option->get_lnames())
          known.push_back("--" + name);
  } else {
    for (const CLI::App* command : commands_of(*at))
      known.push_back(command->get_name());
  }
  return nearest_word(word, known);
}

int complete_words(const std::vector<std::string>& words) {
  ::alarm(kCompletionSeconds);
  CommandLine line;
  std::optional<Commands> commands;
  const auto names_of = [&](const std::string& metavariable, const CompletionContext& context) {
    Arguments arguments;
    arguments.control = context.control;
    arguments.folder = context.folder;
    return commands.emplace(std::move(arguments)).names_of(metavariable);
  };
  fmt::print("{}", completion_lines(complete(line.app(), words, names_of)));
  return 0;
}

v1::Error wrong(std::string message) {
  v1::Error error;
  error.set_code(v1::Error::INVALID_ARGUMENT);
  error.set_message(std::move(message));
  return error;
}

}  // namespace

int run(int argc, char** argv) {
  google::protobuf::SetLogHandler(nullptr);  // what does not decode is told in our own words
  if (argc > 1 && argv[1] == std::string_view(kCompleteCommand))
    return complete_words({argv + 2, argv + argc});
  bool json = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    json = json || argument == "--json";
    if (!is_valid_utf8(argument)) {
      print_refusal(wrong("the arguments must be UTF-8: " + valid_utf8(argument)), json);
      return kWrongCommandLine;
    }
  }
  CommandLine line;
  try {
    line.app().parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0)
      return line.app().exit(error);  // help, on standard output
    // "A subcommand is required" helps nobody who has given one.
    const auto unknown = line.app().remaining(true);
    const bool misspelt = dynamic_cast<const CLI::RequiredError*>(&error) && !unknown.empty();
    const bool extra = dynamic_cast<const CLI::ExtrasError*>(&error) && !unknown.empty();
    std::string message = error.what();
    if (misspelt || extra) {
      const auto option =
          std::ranges::find_if(unknown, [](const auto& word) { return word.starts_with("-"); });
      const std::string& word = option == unknown.end() ? unknown.front() : *option;
      message = "there is no command or option " + word;
      if (const std::string meant = nearest(line.app(), word); !meant.empty())
        message += "; did you mean " + meant + "?";
    }
    print_refusal(wrong(std::move(message)), json);
    if (!json)
      fmt::print(stderr, "Run obraz --help, or any command with it, for more.\n");
    return kWrongCommandLine;
  }
  return line.run();
}

}  // namespace obraz::client
