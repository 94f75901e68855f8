// Tables of text for the terminal.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace compress {

/// A table with a header, columns as wide as their content, numbers to the right.
class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string title;
    Align align = Align::kRight;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  /// Adds a row; missing cells at the end are empty.
  void add(std::vector<std::string> row);
  /// Adds a line across.
  void add_rule();
  bool empty() const { return rows_.empty(); }
  /// The table as text with a newline at the end of every line. No line has trailing blanks.
  std::string text() const;
  /// The header and all rows, without rules.
  std::vector<std::vector<std::string>> rows_with_header() const;
  /// The same as a Markdown table.
  std::string markdown() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;  // an empty row is a rule
};

/// 1234567 as "1,234,567".
std::string with_thousands(int64_t number);
/// Four digits that count, and a whole number with all of its digits: 0.4987, 190,400.
std::string figure_text(double figure);
/// "1 thread", "2 threads".
std::string count_of(int64_t number, std::string_view thing);
/// Bytes as "12.3 kB" (thousands, as file sizes are sold), exact below 1000.
std::string bytes_text(int64_t bytes);
/// Large counts as "40.6 M", exact below 1000.
std::string count_text(double count);

}  // namespace compress
