#include "tools/infer-cli/line_input.h"

#include <histedit.h>
#include <langinfo.h>
#include <termios.h>
#include <unistd.h>

#include <atomic>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/base/error.h"
#include "tools/infer-cli/text_input.h"

namespace infer::tools {
namespace {

constexpr size_t kMaxLineBytes = size_t{64} << 20;
constexpr int kHistoryLines = 1000;
constexpr std::string_view kFence = "\"\"\"";
// Bracketed paste: the terminal marks what was not typed.
constexpr std::string_view kPasteOn = "\033[?2004h";
constexpr std::string_view kPasteOff = "\033[?2004l";
constexpr const char* kPasteBegins = "\033[200~";
constexpr std::wstring_view kPasteEnds = L"\033[201~";

class PipeInput final : public LineInput {
 public:
  Result<Line> read(const std::string&) override {
    Line line;
    INFER_ASSIGN(const LineReader::Kind kind, reader_.next(&line.text));
    if (kind == LineReader::Kind::kTooLong)
      return make_error(ErrorCode::kInvalidArgument, "standard input: a line of more than {} bytes",
                        kMaxLineBytes);
    line.kind = kind == LineReader::Kind::kEnd ? Line::Kind::kEnd : Line::Kind::kText;
    return line;
  }

 private:
  LineReader reader_{stdin, "standard input", kMaxLineBytes};
};

/// A line editor: libedit in its Emacs mode.
class TerminalInput final : public LineInput {
 public:
  explicit TerminalInput(std::FILE* screen)
      : screen_(screen),
        has_modes_(tcgetattr(STDIN_FILENO, &modes_) == 0),
        history_(history_init()),
        edit_(el_init("infer-cli", stdin, screen, stderr)) {
    if (edit_ == nullptr || history_ == nullptr) return;
    HistEvent event;
    history(history_, &event, H_SETSIZE, kHistoryLines);
    history(history_, &event, H_SETUNIQUE, 1);
    el_set(edit_, EL_CLIENTDATA, this);
    el_set(edit_, EL_EDITOR, "emacs");
    el_set(edit_, EL_HIST, history, history_);
    el_set(edit_, EL_PROMPT_ESC, prompt_of, '\1');
    el_set(edit_, EL_SIGNAL, 1);  // window size, Ctrl-Z
    // The wide form: the other one copies name and help, and never frees them.
    el_wset(edit_, EL_ADDFN, L"infer-interrupt", L"leave the line", on_interrupt);
    el_set(edit_, EL_BIND, "^C", "infer-interrupt", nullptr);
    el_set(edit_, EL_BIND, "^R", "em-inc-search-prev", nullptr);
    el_wset(edit_, EL_ADDFN, L"infer-paste", L"insert what was pasted", on_paste);
    el_set(edit_, EL_BIND, kPasteBegins, "infer-paste", nullptr);
    keep_quiet();
  }
  ~TerminalInput() override {
    if (edit_ != nullptr) el_end(edit_);
    if (history_ != nullptr) history_end(history_);
    restore_terminal();
  }
  TerminalInput(const TerminalInput&) = delete;
  TerminalInput& operator=(const TerminalInput&) = delete;

  bool is_usable() const { return edit_ != nullptr && history_ != nullptr; }
  bool is_terminal() const override { return true; }

  Result<Line> read(const std::string& prompt) override {
    prompt_ = prompt;
    interrupted_ = false;
    make_interrupt_a_key();
    mark_pastes(true);
    int n = 0;
    const char* typed = el_gets(edit_, &n);
    mark_pastes(false);
    keep_quiet();
    if (interrupted_) return Line{Line::Kind::kInterrupt, std::move(typed_)};
    if (typed == nullptr || n <= 0) return Line{Line::Kind::kEnd, {}};
    Line line{Line::Kind::kText, std::string(typed, static_cast<size_t>(n))};
    while (line.text.ends_with('\n') || line.text.ends_with('\r')) line.text.pop_back();
    HistEvent event;
    if (!line.text.empty()) history(history_, &event, H_ENTER, line.text.c_str());
    return line;
  }

  void restore_terminal() override {
    if (marks_pastes_) mark_pastes(false);
    if (has_modes_) tcsetattr(STDIN_FILENO, TCSADRAIN, &modes_);
  }

 private:
  /// While a line is edited Ctrl-C is a key; the rest of the time it is a signal. (EL_SETTY cannot
  /// do it: libedit takes such characters over from the terminal again.)
  void make_interrupt_a_key() {
    el_set(edit_, EL_PREP_TERM, 1);
    termios modes{};
    if (tcgetattr(STDIN_FILENO, &modes) != 0) return;
    modes.c_cc[VINTR] = _POSIX_VDISABLE;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &modes);
  }
  /// Between two lines: keys wait for the next one instead of showing up within the answer. Ctrl-C
  /// and Ctrl-Z stay signals.
  void keep_quiet() {
    if (!has_modes_) return;
    termios modes = modes_;
    modes.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    modes.c_cc[VMIN] = 1;
    modes.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &modes);
  }
  void mark_pastes(bool on) {
    if (is_dumb_terminal()) return;
    marks_pastes_ = on;
    const std::string_view text = on ? kPasteOn : kPasteOff;
    std::fflush(screen_);
    (void)!write(fileno(screen_), text.data(), text.size());
  }
  static TerminalInput& self(EditLine* edit) {
    void* data = nullptr;
    el_get(edit, EL_CLIENTDATA, &data);
    return *static_cast<TerminalInput*>(data);
  }
  static char* prompt_of(EditLine* edit) { return self(edit).prompt_.data(); }
  static unsigned char on_interrupt(EditLine* edit, wint_t) {
    TerminalInput& input = self(edit);
    const LineInfo* line = el_line(edit);
    input.typed_.assign(line->buffer, line->lastchar);
    input.interrupted_ = true;
    // What is printed next goes below the whole line.
    el_cursor(edit, static_cast<int>(line->lastchar - line->cursor));
    el_set(edit, EL_REFRESH);
    return CC_EOF;
  }
  /// Lines that are pasted are lines of one message: nothing is sent before a person presses Enter.
  static unsigned char on_paste(EditLine* edit, wint_t) {
    std::wstring text;
    wchar_t c = 0;
    while (!text.ends_with(kPasteEnds) && text.size() < kMaxLineBytes / sizeof(wchar_t) &&
           el_wgetc(edit, &c) == 1) {
      text += c == L'\r' ? L'\n' : c;
    }
    if (text.ends_with(kPasteEnds)) text.resize(text.size() - kPasteEnds.size());
    while (text.ends_with(L'\n')) text.pop_back();
    return el_winsertstr(edit, text.c_str()) == 0 || text.empty() ? CC_REFRESH : CC_ERROR;
  }

  std::FILE* screen_;
  std::atomic<bool> marks_pastes_ = false;
  termios modes_{};
  bool has_modes_;
  History* history_;
  EditLine* edit_;
  std::string prompt_, typed_;
  bool interrupted_ = false;
};

bool goes_on(std::string_view line) {
  const size_t last = line.find_last_not_of('\\');
  const size_t n = line.size() - (last == std::string_view::npos ? 0 : last + 1);
  return n % 2 == 1;
}

/// Reads on until the fence closes; `text` is what stood behind the opening one. Nothing beside a
/// fence is no line of the message.
Result<Message> read_block(LineInput& input, const std::string& more, std::string text) {
  std::vector<std::string> lines;
  for (bool first = true;; first = false) {
    const bool closes = text.ends_with(kFence);
    if (closes) text.resize(text.size() - kFence.size());
    if (!text.empty() || !(first || closes)) lines.push_back(std::move(text));
    if (closes) break;
    INFER_ASSIGN(Line line, input.read(more));
    if (line.kind == Line::Kind::kInterrupt) return Message{std::move(line), true};
    if (line.kind == Line::Kind::kEnd) break;
    text = std::move(line.text);
  }
  return Message{{Line::Kind::kText, fmt::format("{}", fmt::join(lines, "\n"))}, true};
}

}  // namespace

bool is_dumb_terminal() {
  const char* term = std::getenv("TERM");
  return term == nullptr || *term == '\0' || std::string_view(term) == "dumb";
}

std::unique_ptr<LineInput> LineInput::open(std::FILE* screen) {
  std::setlocale(LC_CTYPE, "");
  if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
  if (isatty(STDIN_FILENO) != 0 && isatty(fileno(screen)) != 0) {
    auto terminal = std::make_unique<TerminalInput>(screen);
    if (terminal->is_usable()) return terminal;
  }
  return std::make_unique<PipeInput>();
}

Result<Message> read_message(LineInput& input, const Prompts& prompts) {
  INFER_ASSIGN(Line line, input.read(prompts.first));
  if (line.kind != Line::Kind::kText) return Message{std::move(line), false};
  if (line.text.starts_with(kFence))
    return read_block(input, prompts.more, line.text.substr(kFence.size()));
  std::string all;
  bool is_block = line.text.find('\n') != std::string::npos;
  while (goes_on(line.text)) {
    is_block = true;
    line.text.back() = '\n';
    all += line.text;
    INFER_ASSIGN(line, input.read(prompts.more));
    if (line.kind == Line::Kind::kInterrupt) return Message{std::move(line), true};
    if (line.kind == Line::Kind::kEnd) break;
  }
  all += line.text;
  return Message{{Line::Kind::kText, std::move(all)}, is_block};
}

}  // namespace infer::tools
