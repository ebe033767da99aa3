#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "backends/cpu/bench/profile_report.h"
#include "core/base/svg.h"

/// Source: Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for
/// multicore architectures" (CACM 52(4), 2009).
namespace infer::cpu::bench {
namespace {

constexpr double kWidth = 1120, kLeft = 64, kRight = 300;  // right of a plot: what its points are
constexpr double kHead = 40;                               // of the page: its title
constexpr double kPanel = 500;                             // height of a test's part of the page
constexpr double kTop = 62, kBottom = 48;                  // of a panel, above and below its plot
constexpr double kChar = 6.1, kLine = 13;                  // of a label, on average
constexpr double kPi = 3.14159265358979;
constexpr const char* kColours[] = {"#3465a4", "#e08020", "#707070"};  // by ProfileRow::Group

struct Box {
  double x0, y0, x1, y1;
  bool overlaps(const Box& o) const { return x0 < o.x1 && o.x0 < x1 && y0 < o.y1 && o.y0 < y1; }
  bool inside(const Box& o) const { return x0 >= o.x0 && x1 <= o.x1 && y0 >= o.y0 && y1 <= o.y1; }
};

/// A logarithmic axis from `low` to `high`, at pixels [begin, end].
struct Axis {
  double low, high, begin, end;
  double at(double v) const {
    return begin + (end - begin) * std::log10(v / low) / std::log10(high / low);
  }
};

/// Calls fn(v, v is a power of ten) for 1, 2 and 5 times each power of ten in [low, high].
template <class Fn>
void for_ticks(double low, double high, Fn&& fn) {
  const int first = static_cast<int>(std::floor(std::log10(low)));
  const int last = static_cast<int>(std::ceil(std::log10(high)));
  for (int power = first; power <= last; ++power) {
    for (const double step : {1.0, 2.0, 5.0}) {
      const double v = step * std::pow(10.0, power);
      if (v >= low * 0.999 && v <= high * 1.001) fn(v, step == 1.0);
    }
  }
}

/// From a tick to a tick around all values, with room.
Axis axis_around(const std::vector<double>& values, double begin, double end) {
  const auto [least, most] = std::ranges::minmax(values);
  Axis axis{least, most, begin, end};
  for_ticks(least * 0.05, least * 0.8, [&](double v, bool) { axis.low = v; });
  bool found = false;
  for_ticks(most * 1.25, most * 20.0, [&](double v, bool) {
    if (!std::exchange(found, true)) axis.high = v;
  });
  return axis;
}

/// One test's roofline.
class Panel {
 public:
  Panel(Svg& svg, const ProfileReport& report, const RooflineReport& roofline, double top)
      : svg_(svg), report_(report), top_(top) {
    plot_ = {kLeft, top + kTop, kWidth - kRight, top + kPanel - kBottom};
    for (const ProfileRow& row : report.rows) {
      // What takes no time, or only moves, has no place here.
      if (row.ops() > 0.0 && row.bytes > 0.0 && report.share(row.seconds) >= 0.002)
        points_.push_back({&row, row.ops() / row.bytes, row.ops() / row.seconds * 1e-9});
    }
    for (const RooflinePoint& p : roofline.points) {
      if (p.isa == report.test.isa && p.n_threads == report.test.n_threads &&
          p.kind != RooflinePoint::Kind::kRead)
        ceilings_.push_back({p.name, best_of(p.per_s) * 1e-9});
    }
    std::ranges::sort(ceilings_, std::greater(), &Ceiling::gop_s);
    std::vector<double> xs, ys;
    for (const Point& p : points_) xs.push_back(p.x), ys.push_back(p.y);
    for (const Ceiling& c : ceilings_) xs.push_back(ridge(c)), ys.push_back(c.gop_s);
    if (!ceilings_.empty()) xs.push_back(4.0 * ridge(ceilings_.front()));  // room for their names
    if (xs.empty()) xs = ys = {1.0};
    x_ = axis_around(xs, plot_.x0, plot_.x1);
    y_ = axis_around(ys, plot_.y1, plot_.y0);
  }

  void draw() {
    svg_.text(kLeft, top_ + 18,
              fmt::format("{}: {:.2f} ms a step, {} thread{}, {}", report_.test.name,
                          report_.step_s * 1e3, report_.test.n_threads,
                          report_.test.n_threads == 1 ? "" : "s", report_.test.isa),
              "font-size=\"14\" font-weight=\"bold\"");
    draw_advice();
    draw_grid();
    for (const Point& p : points_) taken_.push_back(around(p));
    draw_limits();
    for (const Point& p : points_) draw_point(p);
    draw_legend();
  }

 private:
  struct Point {
    const ProfileRow* row;
    double x, y;  ///< ops a byte, GOP/s
  };
  struct Ceiling {
    std::string name;
    double gop_s;
  };

  double read_gb_s() const { return report_.test.limits.read_per_s * 1e-9; }
  /// Where reading and computing take the same time.
  double ridge(const Ceiling& c) const { return read_gb_s() > 0.0 ? c.gop_s / read_gb_s() : 1.0; }
  double radius(const Point& p) const {
    return 3.5 + 16.0 * std::sqrt(std::min(1.0, report_.share(p.row->seconds)));
  }
  const char* colour(const Point& p) const { return kColours[static_cast<size_t>(p.row->group)]; }

  void draw_grid() {
    const auto stroke = [](bool major) {
      return major ? "stroke=\"#d0d0d0\"" : "stroke=\"#eeeeee\"";
    };
    for_ticks(x_.low, x_.high, [&](double v, bool major) {
      svg_.line(x_.at(v), plot_.y0, x_.at(v), plot_.y1, stroke(major));
      svg_.text(x_.at(v), plot_.y1 + 15, fmt::format("{:.6g}", v), "text-anchor=\"middle\"");
    });
    for_ticks(y_.low, y_.high, [&](double v, bool major) {
      svg_.line(plot_.x0, y_.at(v), plot_.x1, y_.at(v), stroke(major));
      svg_.text(plot_.x0 - 6, y_.at(v) + 4, fmt::format("{:.6g}", v), "text-anchor=\"end\"");
    });
    svg_.text((plot_.x0 + plot_.x1) / 2, plot_.y1 + 34, "operations a byte (a multiply-add is two)",
              "text-anchor=\"middle\"");
    const double middle = (plot_.y0 + plot_.y1) / 2;
    svg_.text(16, middle, "GOP/s",
              fmt::format("text-anchor=\"middle\" transform=\"rotate(-90 16 {:.1f})\"", middle));
  }

  /// The slope up to the highest ceiling, and the ceilings to the right of it.
  void draw_limits() {
    const char* stroke = "stroke=\"#202020\" stroke-width=\"1.6\"";
    for (const Ceiling& c : ceilings_) {
      const double y = y_.at(c.gop_s);
      svg_.line(x_.at(std::max(ridge(c), x_.low)), y, plot_.x1, y,
                &c == &ceilings_.front() ? stroke : "stroke=\"#808080\" stroke-dasharray=\"6 4\"");
      const std::string text = fmt::format("{} {:.0f} GOP/s", c.name, c.gop_s);
      const Box box = place([&](int i) {
        const int column = i / 2;
        const double right = plot_.x1 - 6 - column * 24.0;
        const double bottom = i % 2 == 0 ? y - 2 : y + kLine + 2;
        return Box{right - width(text), bottom - kLine, right, bottom};
      });
      write(text, box, "#202020");
    }
    if (ceilings_.empty() || read_gb_s() <= 0.0) return;
    const double x_end = std::min(ridge(ceilings_.front()), x_.high);
    const double x_begin = std::max(x_.low, y_.low / read_gb_s());
    if (x_begin >= x_end) return;
    const auto y_of = [&](double x) { return y_.at(x * read_gb_s()); };
    svg_.line(x_.at(x_begin), y_of(x_begin), x_.at(x_end), y_of(x_end), stroke);
    // The slope's name stands on it, and the labels of points keep away from both.
    const double middle = std::pow(x_begin, 0.3) * std::pow(x_end, 0.7);  // few ops are there
    const double run = x_.at(x_end) - x_.at(x_begin), rise = y_of(x_begin) - y_of(x_end);
    const double angle = -std::atan2(rise, run) * 180.0 / kPi;
    svg_.text(x_.at(middle), y_of(middle) - 6, fmt::format("read {:.1f} GB/s", read_gb_s()),
              fmt::format("text-anchor=\"middle\" transform=\"rotate({:.2f} {:.1f} {:.1f})\"",
                          angle, x_.at(middle), y_of(middle)));
    const int n_part = static_cast<int>(run / 6.0) + 1;
    for (int i = 0; i <= n_part; ++i) {
      const double x = x_.at(x_begin) + run * i / n_part;
      const double y = y_of(x_begin) - rise * i / n_part;
      const bool named = std::abs(x - x_.at(middle)) < 50.0;
      taken_.push_back({x - 3, y - (named ? 22 : 3), x + 3, y + 3});
    }
  }

  Box around(const Point& p) const {
    const double r = radius(p), x = x_.at(p.x), y = y_.at(p.y);
    return {x - r, y - r, x + r, y + r};
  }

  void draw_point(const Point& p) {
    const double r = radius(p), x = x_.at(p.x), y = y_.at(p.y);
    svg_.circle(x, y, r,
                fmt::format("fill=\"{0}\" fill-opacity=\"0.55\" stroke=\"{0}\"", colour(p)));
    // Its number stands beside it: around in wider and wider circles until there is room.
    const std::string number = number_of(p);
    const double w = width(number);
    const Box box = place([&](int i) {
      const int circle = i / 8;
      const double far = r + 2 + 6.0 * circle, angle = (i % 8) * kPi / 4;
      const double cx = x + std::cos(angle) * (far + w / 2), cy = y + std::sin(angle) * (far + 6);
      return Box{cx - w / 2, cy - kLine / 2, cx + w / 2, cy + kLine / 2};
    });
    const double near_x = std::clamp(x, box.x0, box.x1), near_y = std::clamp(y, box.y0, box.y1);
    if (std::hypot(near_x - x, near_y - y) > r + 6)
      svg_.line(x, y, near_x, near_y, "stroke=\"#606060\" stroke-width=\"0.7\"");
    write(number, box, "#202020");
  }

  /// What the numbers are.
  void draw_legend() {
    double y = plot_.y0 + 8;
    for (const Point& p : points_) {
      const double x = plot_.x1 + 16;
      svg_.circle(x + 5, y, 5,
                  fmt::format("fill=\"{0}\" fill-opacity=\"0.55\" stroke=\"{0}\"", colour(p)));
      svg_.text(x + 28, y + 4, number_of(p), "text-anchor=\"end\"");
      svg_.text(x + 36, y + 4, p.row->name);
      svg_.text(x + 36, y + 4 + kLine,
                fmt::format("{:.1f} % of the time, {:.0f} % of roofline ({})",
                            100.0 * report_.share(p.row->seconds), 100.0 * p.row->roofline(),
                            p.row->bound_by_read() ? "read" : "ops"),
                "fill=\"#606060\"");
      y += 2 * kLine + 5;
    }
  }

  /// In as many lines as it takes.
  void draw_advice() {
    constexpr size_t kChars = 180;
    std::string_view rest = report_.advice;
    for (double y = top_ + 35; !rest.empty(); y += kLine) {
      size_t n = rest.size() <= kChars ? rest.size() : rest.rfind(' ', kChars);
      if (n == std::string_view::npos) n = rest.size();
      svg_.text(kLeft, y, rest.substr(0, n), "fill=\"#404040\"");
      rest.remove_prefix(std::min(rest.size(), n + 1));
    }
  }

  /// Its place in the table.
  std::string number_of(const Point& p) const {
    return std::to_string(1 + (p.row - report_.rows.data()));
  }
  static double width(const std::string& text) { return kChar * static_cast<double>(text.size()); }

  /// The first of a label's places that is free.
  template <class PlaceOf>
  Box place(PlaceOf&& place_of) {
    constexpr int kTries = 400;
    Box box = place_of(0);
    for (int i = 0; i < kTries; ++i) {
      const Box next = place_of(i);
      const auto hits = [&](const Box& o) { return next.overlaps(o); };
      if (!next.inside(plot_) || std::ranges::any_of(taken_, hits)) continue;
      box = next;
      break;
    }
    taken_.push_back(box);
    return box;
  }

  void write(const std::string& text, const Box& box, const char* colour) {
    svg_.text((box.x0 + box.x1) / 2, box.y1 - 3, text,
              fmt::format("text-anchor=\"middle\" fill=\"{}\" stroke=\"white\" stroke-width=\"3\" "
                          "paint-order=\"stroke\"",
                          colour));
  }

  Svg& svg_;
  const ProfileReport& report_;
  double top_;
  Box plot_{};
  Axis x_{}, y_{};
  std::vector<Point> points_;
  std::vector<Ceiling> ceilings_;
  std::vector<Box> taken_;
};

}  // namespace

std::string roofline_chart(const std::string& title, const std::vector<ProfileReport>& reports,
                           const RooflineReport& roofline) {
  Svg svg(kWidth, kHead + kPanel * static_cast<double>(reports.size()));
  svg.text(kLeft, 26, title, "font-size=\"15\" font-weight=\"bold\"");
  for (size_t i = 0; i < reports.size(); ++i)
    Panel(svg, reports[i], roofline, kHead + kPanel * static_cast<double>(i)).draw();
  return svg.finish();
}

}  // namespace infer::cpu::bench
