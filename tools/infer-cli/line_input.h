#pragma once

#include <memory>
#include <string>

#include "core/base/result.h"

/// Where a conversation's messages come from: a person at a terminal, or a pipe.
namespace infer::tools {

struct Line {
  enum class Kind {
    kText,
    kInterrupt,  ///< Ctrl-C
    kEnd,        ///< Ctrl-D, or the end of the pipe
  };
  Kind kind = Kind::kEnd;
  std::string text;  ///< without its end; with kInterrupt what was typed so far
};

/// Reads line by line. One thread; restore_terminal() from any.
class LineInput {
 public:
  /// With editing and history (kept in memory) where standard input is a terminal and `screen`, the
  /// other end of that terminal, is one too; plain lines otherwise. Sets the locale's character
  /// type to UTF-8.
  static std::unique_ptr<LineInput> open(std::FILE* screen);
  virtual ~LineInput() = default;

  /// `prompt` is shown on a terminal only.
  virtual Result<Line> read(const std::string& prompt) = 0;
  /// Puts the terminal's modes back, before the program is ended in the middle of a line.
  virtual void restore_terminal() {}
  virtual bool is_terminal() const { return false; }
};

/// Whether TERM names a terminal without colours and other escape sequences, or none.
bool is_dumb_terminal();

struct Prompts {
  std::string first, more;
};
/// One message of one or more lines: a line that ends in an odd number of backslashes goes on on
/// the next; """ opens a block of lines that the next """ closes; lines may be pasted. `is_block`
/// tells that it was one of those, which is never a command.
struct Message {
  Line line;
  bool is_block = false;
};
Result<Message> read_message(LineInput& input, const Prompts& prompts);

}  // namespace infer::tools
