#include "tools/common/escapes.h"

#include <charconv>

namespace infer::tools {

std::string unescape(const std::string& in) {
  std::string out;
  for (size_t i = 0; i < in.size(); ++i) {
    if (in[i] != '\\' || i + 1 == in.size()) {
      out += in[i];
      continue;
    }
    const char c = in[++i];
    unsigned byte = 0;
    if (c == 'n')
      out += '\n';
    else if (c == 'r')
      out += '\r';
    else if (c == 't')
      out += '\t';
    else if (c == '\\' || c == '"' || c == '\'')
      out += c;
    else if (c == 'x' && i + 2 < in.size() &&
             std::from_chars(in.data() + i + 1, in.data() + i + 3, byte, 16).ptr ==
                 in.data() + i + 3) {
      out += static_cast<char>(byte);
      i += 2;
    } else {
      out += '\\';
      out += c;
    }
  }
  return out;
}

}  // namespace infer::tools
