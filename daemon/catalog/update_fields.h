// What every call that makes or updates a resource may say of it. Only for the catalog's own files.
#pragma once

#include <set>
#include <string>

#include "catalog/rules.h"

namespace obraz {

using Fields = std::set<std::string>;

// What all resources have: into `resource`, as far as `fields` names it.
template <typename Resource, typename Request>
Answer<void> take_common(const Fields& fields, const Request& request, Resource& resource) {
  if (fields.contains("name")) {
    if (const auto legal = rules::check_name(request.name()); !legal)
      return legal;
    resource.set_name(request.name());
  }
  if (fields.contains("description")) {
    if (const auto legal = rules::check_description(request.description()); !legal)
      return legal;
    resource.set_description(request.description());
  }
  if (fields.contains("labels")) {
    if (const auto legal = rules::check_labels({request.labels().begin(), request.labels().end()}); !legal)
      return legal;
    *resource.mutable_labels() = request.labels();
  }
  if (fields.contains("delete_protection"))
    resource.set_delete_protection(request.delete_protection());
  return {};
}

}  // namespace obraz
