// What a person reads: tables, one resource as a list of fields, times and refusals.
#pragma once

#include <google/protobuf/timestamp.pb.h>

#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "client/style.h"
#include "obraz/v1/access.pb.h"
#include "obraz/v1/disk.pb.h"
#include "obraz/v1/error.pb.h"
#include "obraz/v1/folder.pb.h"
#include "obraz/v1/image.pb.h"
#include "obraz/v1/operation.pb.h"
#include "obraz/v1/schedule.pb.h"
#include "obraz/v1/snapshot.pb.h"
#include "obraz/v1/status_service.pb.h"
#include "obraz/v1/trash.pb.h"
#include "obraz/v1/usage.pb.h"

namespace obraz::client {

using Row = std::vector<std::string>;

// Columns as wide as their widest cell, two spaces between; the first row is the heading. Where that is too
// wide for the style, the widest columns are shortened, but for ids, and none below its heading.
std::string table(const std::vector<Row>& rows, const Style& style = {});
// "key:   value" lines; fields with an empty value are left out.
std::string fields(const std::vector<Row>& rows, const Style& style = {});

std::string short_time(const google::protobuf::Timestamp& time);  // "2024-05-06 07:08:09", UTC
std::string short_duration(int64_t seconds);                      // "0:05", "1:02:03"
std::string state_of(const v1::Operation& operation);             // "running", "done", "NOT_FOUND"

Row heading(const v1::Image&);
Row heading(const v1::Disk&);
Row heading(const v1::Snapshot&);
Row heading(const v1::Folder&);
Row heading(const v1::SnapshotSchedule&);
Row heading(const v1::AccessBinding&);
Row heading(const v1::TrashedResource&);
Row heading(const v1::UsageRow&);
Row heading(const v1::Operation&);
Row row(const v1::Image& image);
Row row(const v1::Disk& disk);
Row row(const v1::Snapshot& snapshot);
Row row(const v1::Folder& folder);
Row row(const v1::SnapshotSchedule& schedule);
Row row(const v1::AccessBinding& binding);
Row row(const v1::TrashedResource& resource);
Row row(const v1::UsageRow& usage);
Row row(const v1::Operation& operation);
std::vector<Row> details(const v1::Image& image);
std::vector<Row> details(const v1::Disk& disk);
std::vector<Row> details(const v1::Snapshot& snapshot);
std::vector<Row> details(const v1::Folder& folder);
std::vector<Row> details(const v1::SnapshotSchedule& schedule);
std::vector<Row> details(const v1::Operation& operation);
std::vector<Row> details(const v1::DaemonStatus& status);

// On standard error: {"error": {"code", "field", "message"}}, or a line.
void print_refusal(const v1::Error& error, bool json);

}  // namespace obraz::client
