#include <algorithm>
#include <map>
#include <string>

#include <fmt/format.h>

#include "core/base/svg.h"
#include "core/eval/choice_report.h"

namespace infer::eval {
namespace {

constexpr int kBar = 9;       // height of a bar
constexpr int kGap = 7;       // between subjects
constexpr int kLabels = 270;  // width left of the bars
constexpr int kScale = 6;     // pixels a per cent
constexpr int kTop = 64;
constexpr const char* kColours[] = {"#3465a4", "#e08020"};

std::string fill(const char* colour) { return fmt::format("fill=\"{}\"", colour); }

/// Where a share of 0..1 is.
double place(double share) { return kLabels + 100.0 * kScale * share; }

void add_bar(Svg& svg, const Proportion& p, int y, const char* colour) {
  const double middle = y + kBar / 2.0;
  svg.rect(kLabels, y, place(p.p) - kLabels, kBar, fill(colour));
  svg.line(place(p.low), middle, place(p.high), middle, "stroke=\"#202020\"");
}

}  // namespace

std::string accuracy_chart(const std::vector<ChartRun>& runs) {
  std::map<std::string, int> names;
  for (const ChartRun& run : runs) {
    for (const auto& [name, s] : run.summary->subjects()) names[name] = 0;
  }
  const int row = kBar * static_cast<int>(runs.size()) + kGap;
  const int height = kTop + row * (static_cast<int>(names.size()) + 1) + 24;
  Svg svg(kLabels + 100 * kScale + 30, height);
  for (int percent = 0; percent <= 100; percent += 10) {
    const double x = place(percent / 100.0);
    svg.line(x, kTop - 8, x, height - 20, "stroke=\"#d8d8d8\"");
    svg.text(x, height - 6, std::to_string(percent), "text-anchor=\"middle\"");
  }
  for (size_t i = 0; i < runs.size(); ++i) {
    const Proportion p = runs[i].summary->accuracy();
    const int y = 12 + 18 * static_cast<int>(i);
    svg.rect(10, y, 12, 12, fill(kColours[i % 2]));
    svg.text(28, y + 10,
             fmt::format("{}: {:.2f} % of {} tasks", runs[i].name, 100.0 * p.p,
                         runs[i].summary->n_done()));
  }
  const auto add_row = [&](const std::string& name, int y, auto&& share_of) {
    svg.text(kLabels - 8, y + row / 2.0, name, "text-anchor=\"end\"");
    for (size_t i = 0; i < runs.size(); ++i) {
      const Proportion p = share_of(*runs[i].summary);
      if (p.p >= 0.0) add_bar(svg, p, y + kBar * static_cast<int>(i), kColours[i % 2]);
    }
  };
  int y = kTop;
  add_row("all", y, [](const ChoiceSummary& s) { return s.accuracy(); });
  for (const auto& entry : names) {
    const std::string& name = entry.first;
    y += row;
    add_row(name.empty() ? "(no subject)" : name, y, [&](const ChoiceSummary& s) {
      const auto it = s.subjects().find(name);
      return it == s.subjects().end() ? proportion(0, 0)
                                      : proportion(it->second.n_correct, it->second.n);
    });
  }
  // Chance is where guessing would end.
  const double chance = place(runs.front().summary->chance().p);
  svg.line(chance, kTop - 8, chance, height - 20, "stroke=\"#c02020\" stroke-dasharray=\"4 3\"");
  return svg.finish();
}

}  // namespace infer::eval
