#include "core/text/tokenizer.h"

#include <algorithm>
#include <optional>

#include "core/base/error.h"
#include "core/text/bpe.h"
#include "core/text/pretokenize.h"
#include "core/text/special.h"
#include "core/text/spm.h"
#include "core/text/unicode.h"
#include "core/text/vocab.h"

namespace infer::text {
namespace {

constexpr size_t kMaxText = size_t{1} << 30;

/// What a byte-level model needs besides its vocabulary.
struct BytePipeline {
  PreTokenizer pre;
  BpeModel bpe;
  std::vector<NormalForm> forms;
};

struct ByteScratch {
  PreTokenizer::Scratch match;
  BpeModel::Scratch merge;
  std::vector<std::string_view> words;
  std::string normal, next;
};

Result<void> encode_valid(std::string_view text, const BytePipeline& pipe, const Vocab& vocab,
                          ByteScratch& s, std::vector<TokenId>& out) {
  for (const NormalForm form : pipe.forms) {
    s.next.clear();
    if (!append_normalized(s.next, text, form))
      return make_error(ErrorCode::kOutOfMemory, "no memory for a normal form");
    s.normal.swap(s.next);
    text = s.normal;
  }
  INFER_TRY(pipe.pre.split(text, s.match, s.words));
  for (const std::string_view word : s.words) pipe.bpe.encode_word(word, vocab, s.merge, out);
  return {};
}

Result<void> encode_bytes(std::string_view text, const BytePipeline& pipe, const Vocab& vocab,
                          ByteScratch& s, std::vector<TokenId>& out) {
  for (size_t at = 0; at < text.size();) {
    const size_t valid = utf8_valid_end(text, at);
    if (valid > at) INFER_TRY(encode_valid(text.substr(at, valid - at), pipe, vocab, s, out));
    const size_t ill = utf8_ill_end(text, valid);
    if (ill > valid) pipe.bpe.encode_word(text.substr(valid, ill - valid), vocab, s.merge, out);
    at = ill;
  }
  return {};
}

}  // namespace

struct Tokenizer::Impl {
  Vocab vocab;
  std::optional<SpecialMatcher> specials;
  std::optional<BytePipeline> bytes;  // model "gpt2"
  std::optional<SpmModel> spm;        // model "llama"
};

Tokenizer::Tokenizer() = default;
Tokenizer::~Tokenizer() = default;

Result<std::shared_ptr<const Tokenizer>> Tokenizer::load(const gguf::Reader& file) {
  std::shared_ptr<Tokenizer> t(new Tokenizer);
  t->impl_ = std::make_unique<Impl>();
  Impl& impl = *t->impl_;
  INFER_ASSIGN(impl.vocab, load_vocab(file));
  impl.specials.emplace(impl.vocab);
  if (impl.vocab.model == VocabModel::kSpm) {
    impl.spm.emplace(impl.vocab);
  } else {
    INFER_ASSIGN(PreSpec spec, read_pre_spec(file, impl.vocab.pre_name));
    auto pre = PreTokenizer::compile(spec.rules, !spec.from_file);
    if (!pre.ok()) return make_error(pre.error().code, "{}: {}", file.path(), pre.error().message);
    INFER_ASSIGN(BpeModel bpe, BpeModel::load(file, impl.vocab, spec.ignore_merges));
    impl.bytes.emplace(BytePipeline{*std::move(pre), std::move(bpe), std::move(spec.forms)});
  }
  return std::shared_ptr<const Tokenizer>(std::move(t));
}

Result<std::vector<TokenId>> Tokenizer::encode(std::string_view text,
                                               const EncodeOptions& options) const {
  const Vocab& vocab = impl_->vocab;
  if (text.size() > kMaxText) {
    return make_error(ErrorCode::kInvalidArgument, "a text of {} bytes is above the limit of {}",
                      text.size(), kMaxText);
  }
  std::vector<TokenId> out;
  out.reserve(text.size() / 3 + 8);
  std::vector<Fragment> fragments;
  std::string normalized;
  std::vector<TextRange> literal(options.literal.begin(), options.literal.end());
  if (impl_->spm) text = impl_->spm->normalize(text, normalized, literal);
  impl_->specials->split(text, options.parse_special, literal, fragments);
  if (options.add_special && vocab.special.add_bos) out.push_back(vocab.special.bos);
  if (impl_->spm) {
    SpmModel::Scratch scratch;
    for (const Fragment& f : fragments) {
      if (f.id >= 0) {
        out.push_back(f.id);
      } else {  // at the beginning or after a special token, so it starts with a space either way
        const std::string_view part = text.substr(f.begin, f.end - f.begin);
        impl_->spm->encode(part, vocab.adds_space(part, f.begin == 0), scratch, out);
      }
    }
  } else {
    ByteScratch scratch;
    for (const Fragment& f : fragments) {
      if (f.id >= 0) {
        out.push_back(f.id);
      } else {
        INFER_TRY(encode_bytes(text.substr(f.begin, f.end - f.begin), *impl_->bytes, vocab, scratch,
                               out));
      }
    }
  }
  if (options.add_special && vocab.special.add_eos) out.push_back(vocab.special.eos);
  return out;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool special) const {
  std::string out;
  bool at_start = impl_->vocab.special.add_space_prefix;
  for (const TokenId id : ids) {
    if (!special && is_hidden(id)) continue;
    std::string_view bytes = piece(id);
    if (is_hidden(id)) {
      out += bytes;
      continue;
    }
    if (at_start && !bytes.empty() && bytes[0] == ' ') bytes.remove_prefix(1);
    at_start = false;
    out += bytes;
  }
  return out;
}

std::string_view Tokenizer::piece(TokenId id) const {
  return impl_->vocab.has(id) ? impl_->vocab.piece[id] : std::string_view();
}
int32_t Tokenizer::n_vocab() const { return impl_->vocab.size(); }
const SpecialIds& Tokenizer::special() const { return impl_->vocab.special; }
TokenKind Tokenizer::kind(TokenId id) const {
  return impl_->vocab.has(id) ? impl_->vocab.kind[id] : TokenKind::kUndefined;
}
bool Tokenizer::is_eog(TokenId id) const {
  return impl_->vocab.has(id) && impl_->vocab.eog_flag[id] != 0;
}
bool Tokenizer::is_hidden(TokenId id) const {
  return impl_->vocab.has(id) && impl_->vocab.is_hidden(id);
}
std::span<const TokenId> Tokenizer::eog_ids() const { return impl_->vocab.eog; }
TokenId Tokenizer::find(std::string_view stored) const { return impl_->vocab.by_text.find(stored); }
std::string_view Tokenizer::model_name() const { return impl_->vocab.model_name; }
std::string_view Tokenizer::pre_name() const { return impl_->vocab.pre_name; }

}  // namespace infer::text
