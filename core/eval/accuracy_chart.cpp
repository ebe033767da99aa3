#include <algorithm>
#include <map>
#include <string>

#include <fmt/format.h>

#include "core/eval/choice_report.h"

namespace infer::eval {
namespace {

constexpr int kBar = 9;       // height of a bar
constexpr int kGap = 7;       // between subjects
constexpr int kLabels = 270;  // width left of the bars
constexpr int kScale = 6;     // pixels a per cent
constexpr int kTop = 64;
constexpr const char* kColours[] = {"#3465a4", "#e08020"};

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

/// Where a share of 0..1 is.
double place(double share) { return kLabels + 100.0 * kScale * share; }

std::string bar(const Proportion& p, int y, const char* colour) {
  const double middle = y + kBar / 2.0;
  return fmt::format(
      "<rect x=\"{}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\" fill=\"{}\"/>\n"
      "<line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#202020\"/>\n",
      kLabels, y, place(p.p) - kLabels, kBar, colour, place(p.low), place(p.high), middle, middle);
}

}  // namespace

std::string accuracy_chart(const std::vector<ChartRun>& runs) {
  std::map<std::string, int> names;
  for (const ChartRun& run : runs) {
    for (const auto& [name, s] : run.summary->subjects()) names[name] = 0;
  }
  const int row = kBar * static_cast<int>(runs.size()) + kGap;
  const int height = kTop + row * (static_cast<int>(names.size()) + 1) + 24;
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
      "{1}\" "
      "font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" "
      "fill=\"white\"/>\n",
      kLabels + 100 * kScale + 30, height);
  for (int percent = 0; percent <= 100; percent += 10) {
    const double x = place(percent / 100.0);
    out += fmt::format(
        "<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\" stroke=\"#d8d8d8\"/>\n"
        "<text x=\"{0:.1f}\" y=\"{3}\" text-anchor=\"middle\">{4}</text>\n",
        x, kTop - 8, height - 20, height - 6, percent);
  }
  for (size_t i = 0; i < runs.size(); ++i) {
    const Proportion p = runs[i].summary->accuracy();
    out += fmt::format(
        "<rect x=\"10\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{}\"/>\n"
        "<text x=\"28\" y=\"{}\">{}: {:.2f} % of {} tasks</text>\n",
        12 + 18 * i, kColours[i % 2], 22 + 18 * i, escaped(runs[i].name), 100.0 * p.p,
        runs[i].summary->n_done());
  }
  const auto add_row = [&](const std::string& name, int y, auto&& share_of) {
    out += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n", kLabels - 8,
                       y + row / 2, escaped(name));
    for (size_t i = 0; i < runs.size(); ++i) {
      const Proportion p = share_of(*runs[i].summary);
      if (p.p >= 0.0) out += bar(p, y + kBar * static_cast<int>(i), kColours[i % 2]);
    }
  };
  int y = kTop;
  add_row("all", y, [](const ChoiceSummary& s) { return s.accuracy(); });
  for (const auto& [name, unused] : names) {
    y += row;
    add_row(name.empty() ? "(no subject)" : name, y, [&](const ChoiceSummary& s) {
      const auto it = s.subjects().find(name);
      return it == s.subjects().end() ? proportion(0, 0)
                                      : proportion(it->second.n_correct, it->second.n);
    });
  }
  // Chance is where guessing would end.
  const double chance = place(runs.front().summary->chance().p);
  out += fmt::format(
      "<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\" stroke=\"#c02020\" "
      "stroke-dasharray=\"4 3\"/>\n</svg>\n",
      chance, kTop - 8, height - 20);
  return out;
}

}  // namespace infer::eval
