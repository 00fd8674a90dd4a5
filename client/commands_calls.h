// What the commands share: how calls are made and their answers shown. Only for commands*.cpp.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "client/commands.h"
#include "client/json.h"
#include "client/output.h"
#include "client/style.h"
#include "obraz/v1/operation_service.pb.h"

namespace obraz::client {

inline void print_json(const google::protobuf::Message& message) {
  fmt::print("{}\n", to_json(message));
}

template <typename Resource>
std::string title(const char* kind, const Resource& resource) {
  return fmt::format("{} {}", kind, resource.name().empty() ? resource.id() : resource.name());
}

// A list of anything into one list of that.
inline constexpr auto kImages = [](auto& response) { return response.mutable_images(); };
inline constexpr auto kDisks = [](auto& response) { return response.mutable_disks(); };
inline constexpr auto kSnapshots = [](auto& response) { return response.mutable_snapshots(); };
inline constexpr auto kSchedules = [](auto& response) { return response.mutable_snapshot_schedules(); };
inline constexpr auto kFolders = [](auto& response) { return response.mutable_folders(); };
inline constexpr auto kUsage = [](auto& response) { return response.mutable_rows(); };
inline constexpr auto kTrash = [](auto& response) { return response.mutable_resources(); };
inline constexpr auto kOperations = [](auto& response) { return response.mutable_operations(); };

inline const char* kind_of(const v1::Image&) {
  return "image";
}
inline const char* kind_of(const v1::Disk&) {
  return "disk";
}
inline const char* kind_of(const v1::Snapshot&) {
  return "snapshot";
}
inline const char* kind_of(const v1::Folder&) {
  return "folder";
}
inline const char* kind_of(const v1::SnapshotSchedule&) {
  return "schedule";
}

template <typename Request>
Request Commands::new_request() const {
  Request request;
  request.set_folder_id(arguments_.folder);
  return request;
}

template <typename Request>
void Commands::describe_new(Request& request) const {
  request.set_description(arguments_.description);
  request.mutable_labels()->insert(arguments_.labels.begin(), arguments_.labels.end());
}

template <typename Request>
void Commands::describe_system(Request& request) const {
  if (!arguments_.os.empty())
    request.mutable_os()->set_type(arguments_.os == "windows" ? v1::Os::WINDOWS : v1::Os::LINUX);
  request.mutable_product_ids()->Add(arguments_.product_ids.begin(), arguments_.product_ids.end());
  if (!arguments_.generation.empty())
    request.set_hardware_generation(arguments_.generation == "legacy" ? v1::LEGACY : v1::GENERATION_2);
}

template <typename Request>
void Commands::describe_update(Request& request) const {
  for (const std::string& field : arguments_.given)
    request.mutable_update_mask()->add_paths(field);
  request.set_name(arguments_.set_name);
  request.set_delete_protection(arguments_.protect);
  describe_new(request);
}

template <typename Resource, typename Request>
int Commands::get(const std::string& method, const Request& request) {
  Resource resource;
  if (const auto called = call(method, request, resource); !called)
    return refused(called.error());
  if (arguments_.json) {
    print_json(resource);
    return 0;
  }
  if constexpr (requires { resource.id(); })
    if (arguments_.quiet) {
      fmt::print("{}\n", resource.id());
      return 0;
    }
  fmt::print("{}", fields(details(resource), style_of(stdout)));
  return 0;
}

template <typename Request, typename Response, typename Members>
Outcome<Response> Commands::collect(const std::string& method, Request request, Members members) {
  Response all;
  if constexpr (requires { request.page_size(); })
    request.set_page_size(1000);
  do {
    Response page;
    request.set_page_token(all.next_page_token());
    if (const auto called = call(method, request, page); !called)
      return std::unexpected(called.error());
    members(all)->MergeFrom(*members(page));
    all.set_next_page_token(page.next_page_token());
  } while (!all.next_page_token().empty());
  return all;
}

template <typename Request, typename Response, typename Members>
int Commands::list(const std::string& method, Request request, Members members) {
  if constexpr (requires { request.filter(); }) {
    request.set_filter(arguments_.filter);
    request.set_order_by(arguments_.order_by);
  }
  auto collected = collect<Request, Response>(method, std::move(request), members);
  if (!collected)
    return refused(collected.error());
  Response& all = *collected;
  if (arguments_.json) {
    print_json(all);
    return 0;
  }
  std::vector<Row> rows;
  for (const auto& member : *members(all)) {
    if (arguments_.quiet) {
      if constexpr (requires { member.id(); })
        fmt::print("{}\n", member.id());
      else
        fmt::print("{}\n", fmt::join(row(member), " "));
      continue;
    }
    if (rows.empty())
      rows.push_back(heading(member));
    rows.push_back(row(member));
  }
  fmt::print("{}", table(rows, style_of(stdout)));
  return 0;
}

template <typename Request>
Outcome<v1::Operation> Commands::operate(const std::string& method, Request request) {
  request.set_idempotency_key(arguments_.idempotency_key);
  v1::Operation operation;
  if (const auto called = call(method, request, operation); !called)
    return std::unexpected(called.error());
  if (arguments_.async)
    return operation;
  auto ended = await(std::move(operation));
  if (ended && ended->has_error())
    return std::unexpected(ended->error());
  return ended;
}

// A call whose outcome is a resource, or several.
template <typename Resource, typename Request, typename Members>
int Commands::change(const std::string& method, Request request, const char* verb, Members members) {
  auto operation = operate(method, std::move(request));
  if (!operation)
    return refused(operation.error());
  if (!operation->done())
    return print_operation(*operation);
  const auto& resources = *members(*operation->mutable_response());
  if (arguments_.quiet) {
    for (const Resource& resource : resources)
      fmt::print("{}\n", resource.id());
  } else if (!arguments_.json) {
    for (const Resource& resource : resources)
      fmt::print("{} {} ({})\n", title(kind_of(resource), resource), verb, resource.id());
  } else if (resources.size() == 1) {
    print_json(resources[0]);
  } else {
    v1::OperationResponse several;
    *members(several) = resources;
    std::string separator = "\n";
    fmt::print("{{\n  \"{}s\": [", kind_of(Resource()));
    for (const Resource& resource : resources) {
      fmt::print("{}    {}", separator, to_json(resource, 2));
      separator = ",\n";
    }
    fmt::print("{}]\n}}\n", resources.empty() ? "" : "\n  ");
  }
  return 0;
}

// A call that leaves no resource behind: its operation is its outcome.
template <typename Request>
int Commands::act(const std::string& method, Request request, const std::string& what, const char* done) {
  const auto operation = operate(method, std::move(request));
  if (!operation)
    return refused(operation.error());
  if (arguments_.json || !operation->done())
    return print_operation(*operation);
  if (!arguments_.quiet)
    fmt::print("{} {}\n", what, done);
  return 0;
}

// A folder lies in no other.
template <typename Request>
Request Commands::resource_request() const {
  const NamedResource target = named_resource();
  Request request;
  request.set_resource_id(target.resource);
  if (target.service != "FolderService")
    request.set_folder_id(arguments_.folder);
  return request;
}

}  // namespace obraz::client
