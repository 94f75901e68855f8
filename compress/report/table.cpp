// Tables of text for the terminal.

#include "compress/report/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace compress {
namespace {

// Columns that a terminal needs for a UTF-8 text: one for each code point.
size_t width(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string pad(const std::string& text, size_t columns, Table::Align align) {
  const std::string blanks(columns > width(text) ? columns - width(text) : 0, ' ');
  return align == Table::Align::kLeft ? text + blanks : blanks + text;
}

void end_line(std::string& text) {
  while (!text.empty() && text.back() == ' ') text.pop_back();
  text += '\n';
}

}  // namespace

void Table::add(std::vector<std::string> row) {
  row.resize(columns_.size());
  rows_.push_back(std::move(row));
}

void Table::add_rule() { rows_.emplace_back(); }

std::string Table::text() const {
  std::vector<size_t> widths;
  for (size_t i = 0; i < columns_.size(); ++i) {
    size_t widest = width(columns_[i].title);
    for (const auto& row : rows_) {
      if (!row.empty()) widest = std::max(widest, width(row[i]));
    }
    widths.push_back(widest);
  }
  std::string text;
  const auto add_row = [&](auto cell) {
    for (size_t i = 0; i < columns_.size(); ++i) {
      text += pad(cell(i), widths[i], columns_[i].align) + (i + 1 < columns_.size() ? "  " : "");
    }
    end_line(text);
  };
  const auto add_line = [&] { add_row([&](size_t i) { return std::string(widths[i], '-'); }); };
  add_row([&](size_t i) { return columns_[i].title; });
  add_line();
  for (const auto& row : rows_) {
    if (row.empty()) {
      add_line();
    } else {
      add_row([&](size_t i) { return row[i]; });
    }
  }
  return text;
}

std::vector<std::vector<std::string>> Table::rows_with_header() const {
  std::vector<std::vector<std::string>> rows(1);
  for (const Column& column : columns_) rows[0].push_back(column.title);
  for (const auto& row : rows_) {
    if (!row.empty()) rows.push_back(row);
  }
  return rows;
}

std::string Table::markdown() const {
  std::string text = "|";
  for (const Column& column : columns_) text += fmt::format(" {} |", column.title);
  text += "\n|";
  for (const Column& column : columns_) text += column.align == Align::kLeft ? " --- |" : " ---: |";
  text += "\n";
  for (const auto& row : rows_) {
    if (row.empty()) continue;
    text += "|";
    for (const std::string& cell : row) text += fmt::format(" {} |", cell);
    text += "\n";
  }
  return text;
}

std::string with_thousands(int64_t number) {
  std::string digits = std::to_string(std::abs(number));
  for (auto i = static_cast<int64_t>(digits.size()) - 3; i > 0; i -= 3) {
    digits.insert(static_cast<size_t>(i), ",");
  }
  return number < 0 ? "-" + digits : digits;
}

std::string figure_text(double figure) {
  if (std::abs(figure) < 1e4 || std::abs(figure) > 1e15) return fmt::format("{:.4g}", figure);
  return with_thousands(std::llround(figure));
}

std::string count_of(int64_t number, std::string_view thing) {
  return fmt::format("{} {}{}", with_thousands(number), thing, number == 1 ? "" : "s");
}

namespace {

// Three significant digits with a decimal prefix.
std::string scaled(double number, const std::string& unit) {
  static constexpr std::array kPrefixes = {"", "k", "M", "G", "T", "P"};
  size_t prefix = 0;
  while (std::abs(number) >= 999.5 && prefix + 1 < kPrefixes.size()) {
    number /= 1000.0;
    ++prefix;
  }
  const std::string suffix = kPrefixes[prefix] + unit;
  const int decimals = prefix == 0 || std::abs(number) >= 99.95 ? 0
                       : std::abs(number) >= 9.995              ? 1
                                                                : 2;
  return suffix.empty() ? fmt::format("{:.{}f}", number, decimals)
                        : fmt::format("{:.{}f} {}", number, decimals, suffix);
}

}  // namespace

std::string bytes_text(int64_t bytes) { return scaled(static_cast<double>(bytes), "B"); }
std::string count_text(double count) { return scaled(count, ""); }

}  // namespace compress
