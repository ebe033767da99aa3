#pragma once

#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "core/text/jinja/budget.h"
#include "core/text/jinja/value.h"

namespace infer::text::jinja {

struct Tree;

/// A Jinja template as `transformers` runs chat templates: its sandbox, trim_blocks, lstrip_blocks
/// and loop controls. Immutable; safe to share between threads.
///
///   INFER_ASSIGN(const auto t, Template::parse("Hello {{ name }}!"));
///   INFER_ASSIGN(const Text out, t.render({{"name", Value::text("you")}}));
class Template {
 public:
  using Vars = std::vector<std::pair<std::string, Value>>;

  /// Errors: "line N: ..." for what is no template, or needs what is not supported.
  static Result<Template> parse(std::string_view source, const Limits& limits = {});

  /// `now_unix`: what strftime_now shows, local offset applied.
  /// Errors: "line N: ...", kOutOfMemory when a limit is hit.
  Result<Text> render(const Vars& vars, int64_t now_unix = 0) const;

 private:
  Template(std::shared_ptr<const Tree> tree, const Limits& limits)
      : tree_(std::move(tree)), limits_(limits) {}
  std::shared_ptr<const Tree> tree_;
  Limits limits_;
};

}  // namespace infer::text::jinja
