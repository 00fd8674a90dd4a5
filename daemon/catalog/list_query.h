// ListQuery: what a list call asks for: which resources, in which order, how many, and from where on.
//
// Invariants: the position belongs to the filter and the order. Pure; any thread.
#pragma once

#include <optional>
#include <string_view>

#include "base/refusal.h"
#include "catalog/filter.h"
#include "catalog/order.h"
#include "catalog/rules.h"

namespace obraz {

struct ListQuery {
  Filter filter;
  Order order;
  unsigned page_size = 0;
  std::optional<PageToken> after;  // the last of the page before

  // Of a List…Request. Refuses what is wrong with one of its fields, by the field's name.
  template <typename Request>
  static Answer<ListQuery> of(const Request& request) {
    return parse(request.page_size(), request.page_token(), request.filter(), request.order_by());
  }
  static Answer<ListQuery> parse(int64_t page_size, std::string_view page_token, std::string_view filter,
                                 std::string_view order_by);
};

}  // namespace obraz
