#pragma once

#include <string_view>

namespace infer::text {

/// The Jinja text of a built-in chat form, empty when there is none of this name. The same texts
/// are in tests/data/chat_templates, where Python's jinja2 has rendered them.
std::string_view find_chat_form(std::string_view name);

}  // namespace infer::text
