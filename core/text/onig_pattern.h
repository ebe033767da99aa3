#pragma once

#include <string>
#include <string_view>

#include "core/base/result.h"

namespace infer::text {

/// A pattern of Oniguruma, the engine behind Hugging Face's tokenizer.json, as PCRE2 reads it with
/// PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE. Patterns that differ in spelling only (escapes, nested
/// classes) come out the same.
/// What is translated: \s, \d and \w are Unicode's; nested classes and &&; {,n} and {n,m}+; \h;
/// (?m). Errors: kUnsupported for what the two engines see differently or what may call itself:
/// back references, named and numbered calls, conditions, callouts, verbs, \K, \G, \X; for a
/// pattern above 8 KiB or nested deeper than 32.
Result<std::string> pcre2_from_onig(std::string_view pattern);

}  // namespace infer::text
