#pragma once

#include <string>
#include <string_view>

namespace infer {

/// A drawing as an SVG file's text, on white, x to the right and y down, in pixels. `style` is more
/// attributes of the element, as they stand in the file: "fill=\"#202020\"".
class Svg {
 public:
  Svg(double width, double height);

  void line(double x1, double y1, double x2, double y2, std::string_view style);
  void rect(double x, double y, double width, double height, std::string_view style);
  void circle(double x, double y, double radius, std::string_view style);
  /// `text` may hold anything.
  void text(double x, double y, std::string_view text, std::string_view style = {});
  /// The file; the drawing is done.
  std::string finish();

 private:
  std::string out_;
};

}  // namespace infer
