#include "catalog/list_query.h"

namespace obraz {

Answer<ListQuery> ListQuery::parse(int64_t page_size, std::string_view page_token, std::string_view filter,
                                   std::string_view order_by) {
  ListQuery query;
  auto size = rules::page_size(page_size);
  if (!size)
    return std::unexpected(std::move(size.error()));
  query.page_size = *size;
  auto parsed_filter = Filter::parse(filter);
  if (!parsed_filter)
    return std::unexpected(std::move(parsed_filter.error()));
  query.filter = std::move(*parsed_filter);
  auto parsed_order = Order::parse(order_by);
  if (!parsed_order)
    return std::unexpected(std::move(parsed_order.error()));
  query.order = std::move(*parsed_order);
  if (!page_token.empty()) {
    auto after = PageToken::decode(page_token, query.filter, query.order);
    if (!after)
      return std::unexpected(std::move(after.error()));
    query.after = std::move(*after);
  }
  return query;
}

}  // namespace obraz
