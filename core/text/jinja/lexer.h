#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace infer::text::jinja {

enum class TokenType : uint8_t {
  kData,        ///< text outside of tags
  kVarBegin,    ///< {{
  kVarEnd,      ///< }}
  kBlockBegin,  ///< {%
  kBlockEnd,    ///< %}
  kName,
  kString,
  kInt,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenType type = TokenType::kEnd;
  int line = 1;
  std::string text{};  ///< data, name, string value, operator
  int64_t integer = 0;
  double number = 0;
};

/// Cuts a template as Jinja does with trim_blocks and lstrip_blocks: comments and raw blocks are
/// gone, white space control is applied. Errors: kInvalidArgument "line N: ...".
Result<std::vector<Token>> tokenize(std::string_view source);

/// "line N: ..." as all errors of a template begin.
Error error_at(int line, std::string_view message);

}  // namespace infer::text::jinja
