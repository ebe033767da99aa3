#pragma once

#include <string>

namespace infer::tools {

/// \n \r \t \\ \" \' and \xHH, as llama.cpp reads them in -p; anything else stays as it is.
std::string unescape(const std::string& in);

}  // namespace infer::tools
