#include "tests/support/tokenizer_files.h"

#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/text/tokenizer.h"
#include "core/text/unicode.h"
#include "tests/support/sentencepiece.h"

namespace infer::test {
namespace {

using Json = nlohmann::json;

struct Row {
  std::string text;
  int32_t type;
};

Result<GgufImage> bpe_image(const std::vector<std::pair<int64_t, Row>>& rows,
                            std::vector<std::string> merges, std::string_view pre,
                            const std::filesystem::path& path) {
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  for (const auto& [id, row] : rows) {
    if (id < 0 || id > 1'000'000) {
      return make_error(ErrorCode::kCorrupt, "{}: token id {}", path.string(), id);
    }
    if (tokens.size() <= static_cast<size_t>(id)) {
      tokens.resize(static_cast<size_t>(id) + 1);
      types.resize(tokens.size(), 5);
    }
    tokens[static_cast<size_t>(id)] = row.text;
    types[static_cast<size_t>(id)] = row.type;
  }
  GgufImage out;
  out.set("general.architecture", std::string("gpt2"));
  out.set("tokenizer.ggml.model", std::string("gpt2"));
  out.set("tokenizer.ggml.pre", std::string(pre));
  out.set("tokenizer.ggml.tokens", std::move(tokens));
  out.set("tokenizer.ggml.token_type", std::move(types));
  out.set("tokenizer.ggml.merges", std::move(merges));
  return out;
}

Result<Json> parse_json(const std::filesystem::path& path) {
  INFER_ASSIGN(const std::string body, read_text(path));
  Json json = Json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return make_error(ErrorCode::kCorrupt, "{}: no JSON", path.string());
  return json;
}

/// A small generator whose stream is the same on every machine (the standard's distributions are
/// not).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {  // splitmix64
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  size_t below(size_t n) { return static_cast<size_t>(next() % n); }

 private:
  uint64_t state_;
};

struct CodeRange {
  uint32_t first, last;
};

// Letters, marks, digits and symbols assigned long ago, so that every Unicode version agrees about
// them.
constexpr CodeRange kScripts[] = {
    {0x61, 0x7a},     {0x41, 0x5a},       {0xc0, 0x17f},      {0x391, 0x3a1},
    {0x3b1, 0x3c9},   {0x410, 0x44f},     {0x531, 0x556},     {0x5d0, 0x5ea},
    {0x621, 0x63a},   {0x64b, 0x652},     {0x660, 0x669},     {0x905, 0x939},
    {0x93e, 0x94c},   {0x966, 0x96f},     {0xe01, 0xe3a},     {0x10d0, 0x10f0},
    {0x1780, 0x17b3}, {0x3041, 0x3093},   {0x30a1, 0x30fa},   {0x4e00, 0x9fa5},
    {0xac00, 0xd7a3}, {0x1100, 0x1112},   {0x300, 0x36f},     {0xff21, 0xff3a},
    {0xff10, 0xff19}, {0x2160, 0x217f},   {0xb2, 0xb3},       {0xbc, 0xbe},
    {0x2200, 0x22ff}, {0x20a0, 0x20ac},   {0x1f600, 0x1f64f}, {0x1f300, 0x1f320},
    {0x2600, 0x26ff}, {0x20000, 0x2a6d6}, {0x10400, 0x1044f}};
constexpr const char* kSnippets[] = {" ",
                                     " ",
                                     " ",
                                     " ",
                                     "  ",
                                     "   ",
                                     "\t",
                                     "\n",
                                     "\n\n",
                                     " \n",
                                     "\r\n",
                                     "\u00a0",
                                     "\u3000",
                                     "\u2003",
                                     "\u200b",
                                     "\u200d",
                                     "\ufeff",
                                     "\u180e",
                                     "\u0085",
                                     "\u2028",
                                     "'s",
                                     "'S",
                                     "'re",
                                     "'LL",
                                     " 'd",
                                     "don't",
                                     "\u2019s",
                                     "0",
                                     "12",
                                     "345",
                                     "6789",
                                     "3.14159",
                                     "1,000,000",
                                     "-1e-9",
                                     "!",
                                     "?!",
                                     "...",
                                     " - ",
                                     "--",
                                     "\u2014",
                                     "(",
                                     ")",
                                     "[x]",
                                     "{}",
                                     "\"",
                                     "``",
                                     "$",
                                     "+",
                                     "<=",
                                     "=>",
                                     "^",
                                     "~",
                                     "|",
                                     "_",
                                     "/*",
                                     "*/",
                                     "//",
                                     "#",
                                     "for (int i = 0; i < n; ++i) {",
                                     "    return x;",
                                     "\\n",
                                     "https://example.org/a?b=c&d=%20",
                                     "a@b.c",
                                     "</s>",
                                     "<s>",
                                     "<b>",
                                     "<|endoftext|>",
                                     "<unk>",
                                     "<0x0A>",
                                     "\u2581",
                                     "\u0120",
                                     "\u010a",
                                     "\ufffd",
                                     "ffi",
                                     "\ufb03",
                                     "\U0001f468\u200d\U0001f469\u200d\U0001f467",
                                     "\U0001f1f0\U0001f1f7",
                                     "\u2764\ufe0f",
                                     "e\u0301",
                                     "\u1e9b\u0323"};

std::string mixed_line(Random& random) {
  std::string line;
  const size_t n_parts = 1 + random.below(24);
  for (size_t i = 0; i < n_parts; ++i) {
    if (random.below(3) == 0) {
      line += kSnippets[random.below(std::size(kSnippets))];
      continue;
    }
    const CodeRange script = kScripts[random.below(std::size(kScripts))];
    const size_t n = 1 + random.below(8);
    for (size_t j = 0; j < n; ++j) {
      text::append_utf8(
          line, script.first + static_cast<uint32_t>(random.below(script.last - script.first + 1)));
    }
    if (random.below(2) == 0) line += ' ';
  }
  return line;
}

}  // namespace

Result<std::string> read_text(const std::filesystem::path& path) {
  std::error_code ec;
  if (!std::filesystem::exists(path, ec))
    return make_error(ErrorCode::kNotFound, "{}: no such file", path.string());
  if (path.extension() != ".gz") {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  const std::string command = "gzip -dc '" + path.string() + "'";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), &pclose);
  if (pipe == nullptr)
    return make_error(ErrorCode::kIo, "{}: gzip cannot be started", path.string());
  std::string out;
  char buffer[1 << 16];
  while (const size_t n = std::fread(buffer, 1, sizeof buffer, pipe.get())) out.append(buffer, n);
  return out;
}

std::vector<std::string> split_lines(std::string_view text) {
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    lines.emplace_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

Result<GgufImage> gpt2_tokenizer(const std::filesystem::path& vocab_json,
                                 const std::filesystem::path& merges_txt, std::string_view pre) {
  INFER_ASSIGN(const Json vocab, parse_json(vocab_json));
  INFER_ASSIGN(const std::string merges_body, read_text(merges_txt));
  std::vector<std::pair<int64_t, Row>> rows;
  for (const auto& [spelling, id] : vocab.items()) {
    rows.emplace_back(id.get<int64_t>(), Row{spelling, spelling == "<|endoftext|>" ? 3 : 1});
  }
  std::vector<std::string> merges = split_lines(merges_body);
  if (!merges.empty() && merges[0].starts_with("#version")) merges.erase(merges.begin());
  return bpe_image(rows, std::move(merges), pre, vocab_json);
}

Result<GgufImage> tokenizer_json(const std::filesystem::path& path, std::string_view pre) {
  INFER_ASSIGN(const Json root, parse_json(path));
  const Json model = root.value("model", Json::object());
  std::vector<std::pair<int64_t, Row>> rows;
  const Json vocab = model.value("vocab", Json::object());
  for (const auto& [spelling, id] : vocab.items()) {
    rows.emplace_back(id.get<int64_t>(), Row{spelling, 1});
  }
  for (const Json& t : root.value("added_tokens", Json::array())) {
    rows.emplace_back(t.at("id").get<int64_t>(),
                      Row{t.at("content").get<std::string>(), t.value("special", false) ? 3 : 4});
  }
  std::vector<std::string> merges;
  for (const Json& m : model.value("merges", Json::array())) {
    merges.push_back(m.is_string() ? m.get<std::string>()
                                   : m.at(0).get<std::string>() + " " + m.at(1).get<std::string>());
  }
  return bpe_image(rows, std::move(merges), pre, path);
}

Result<GgufImage> sentencepiece_tokenizer(const std::filesystem::path& path) {
  INFER_ASSIGN(SentencePieces pieces, read_sentencepiece(path));
  const auto n = static_cast<int64_t>(pieces.pieces.size());
  GgufImage out;
  out.set("general.architecture", std::string("llama"));
  write_sentencepiece(std::move(pieces), n, out);
  return out;
}

std::string unescape_tricky(std::string_view line) {
  std::string out;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] != '\\') {
      out += line[i];
      continue;
    }
    const char c = line[++i];
    if (c == 'x') {
      out += static_cast<char>(std::stoi(std::string(line.substr(i + 1, 2)), nullptr, 16));
      i += 2;
    } else if (c == 'u') {
      const size_t close = line.find('}', i);
      text::append_utf8(out, static_cast<uint32_t>(std::stoul(
                                 std::string(line.substr(i + 2, close - i - 2)), nullptr, 16)));
      i = close;
    } else {
      out += c == 'n' ? '\n' : c == 'r' ? '\r' : c == 't' ? '\t' : c;
    }
  }
  return out;
}

std::vector<std::string> mixed_script_lines(size_t n, uint64_t seed) {
  Random random(seed);
  std::vector<std::string> lines;
  for (size_t i = 0; i < n; ++i) lines.push_back(mixed_line(random));
  return lines;
}

}  // namespace infer::test
