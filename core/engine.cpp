#include "core/engine.h"

#include <utility>

namespace infer {

std::string_view name_of(StopReason reason) {
  switch (reason) {
    case StopReason::kNone:
      return "none";
    case StopReason::kEos:
      return "eos";
    case StopReason::kStop:
      return "stop";
    case StopReason::kLength:
      return "length";
    case StopReason::kCancelled:
      return "cancelled";
    case StopReason::kDeadline:
      return "deadline";
    case StopReason::kError:
      return "error";
  }
  return "none";
}

Result<Response> Engine::generate(Request request) {
  INFER_ASSIGN(const RequestId id, submit(std::move(request)));
  return wait(id);
}

}  // namespace infer
