#include "core/text/jinja/template.h"

#include "core/text/jinja/interp.h"
#include "core/text/jinja/parser.h"

namespace infer::text::jinja {

Result<Template> Template::parse(std::string_view source, const Limits& limits) {
  INFER_ASSIGN(std::shared_ptr<const Tree> tree, parse_template(source, limits));
  return Template(std::move(tree), limits);
}

Result<Text> Template::render(const Vars& vars, int64_t now_unix) const {
  Budget budget(limits_);
  return Interp(*tree_, vars, now_unix, budget).run();
}

}  // namespace infer::text::jinja
