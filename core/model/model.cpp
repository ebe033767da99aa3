#include "core/model/model.h"

#include <algorithm>
#include <array>
#include <map>
#include <unordered_map>

#include "core/base/error.h"
#include "core/base/quant_types.h"
#include "core/model/adapter.h"
#include "core/model/rope.h"

namespace infer::model {
namespace {

std::string shape_text(std::span<const int64_t> shape) {
  std::string text;
  for (int64_t d : shape) text += (text.empty() ? "" : ", ") + std::to_string(d);
  return "[" + text + "]";
}

bool same_shape(const TensorView& view, const std::vector<int64_t>& want) {
  for (size_t i = 0; i < view.ne.size(); ++i) {
    if (view.ne[i] != (i < want.size() ? want[i] : 1)) return false;
  }
  return true;
}

Result<void> check_tensors(const gguf::Reader& file, const std::vector<TensorSpec>& specs) {
  for (const TensorSpec& spec : specs) {
    const gguf::TensorInfo* t = file.find_tensor(spec.name);
    if (t == nullptr) {
      if (!spec.required) continue;
      return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' {} is missing", file.path(),
                        spec.name, shape_text(spec.shape));
    }
    if (!same_shape(t->view, spec.shape)) {
      return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' has shape {}, expected {}",
                        file.path(), spec.name, shape_text(t->view.ne), shape_text(spec.shape));
    }
  }
  return {};
}

/// A tensor nobody reads means an architecture that only looks like the one it names.
Result<void> check_no_others(const gguf::Reader& file, const std::vector<TensorSpec>& specs,
                             const Hparams& hp) {
  std::unordered_map<std::string_view, bool> known;
  for (const TensorSpec& spec : specs) known.emplace(spec.name, true);
  if (!hp.long_ropes.empty()) {
    known.emplace(kShortFactors, true);
    known.emplace(kLongFactors, true);
  }
  for (const gguf::TensorInfo& t : file.tensors()) {
    if (known.contains(t.name) || t.name == "rope_freqs.weight" ||
        t.name.ends_with(".rotary_emb.inv_freq"))
      continue;
    return make_error(ErrorCode::kUnsupported,
                      "{}: tensor '{}' is not part of this architecture here", file.path(), t.name);
  }
  return {};
}

/// general.file_type, as llama.cpp numbers and names the mixes.
struct FileType {
  int64_t id;
  std::string_view name;
};
constexpr std::array kFileTypes = {
    FileType{0, "F32"},     FileType{1, "F16"},     FileType{2, "Q4_0"},    FileType{3, "Q4_1"},
    FileType{7, "Q8_0"},    FileType{8, "Q5_0"},    FileType{9, "Q5_1"},    FileType{10, "Q2_K"},
    FileType{11, "Q3_K_S"}, FileType{12, "Q3_K_M"}, FileType{13, "Q3_K_L"}, FileType{14, "Q4_K_S"},
    FileType{15, "Q4_K_M"}, FileType{16, "Q5_K_S"}, FileType{17, "Q5_K_M"}, FileType{18, "Q6_K"},
    FileType{25, "IQ4_NL"}, FileType{30, "IQ4_XS"}, FileType{32, "BF16"}};

/// The mix the file says it is, else the type that most of its bytes have.
std::string_view file_type(const gguf::Reader& file) {
  if (const Result<int64_t> id = file.get_int("general.file_type"); id.ok()) {
    for (const FileType& t : kFileTypes) {
      if (t.id == *id) return t.name;
    }
  }
  std::map<DType, int64_t> bytes;
  for (const gguf::TensorInfo& t : file.tensors()) bytes[t.view.type] += t.view.n_bytes;
  const auto most = std::max_element(bytes.begin(), bytes.end(),
                                     [](auto& a, auto& b) { return a.second < b.second; });
  return most == bytes.end() ? "no tensors" : infer::name_of(most->first);
}

}  // namespace

Result<std::shared_ptr<const Model>> Model::load(std::shared_ptr<const gguf::Reader> file) {
  INFER_ASSIGN(const std::string_view arch_name, file->get_string("general.architecture"));
  auto model = std::make_shared<Model>();
  model->arch_ = find_arch(arch_name);
  if (model->arch_ == nullptr) {
    std::string known;
    for (const ArchDef* arch : arch_registry())
      known += (known.empty() ? "" : ", ") + std::string(arch->name);
    return make_error(ErrorCode::kUnsupported,
                      "{}: key 'general.architecture' = {}: not supported (known: {})",
                      file->path(), arch_name, known);
  }
  INFER_ASSIGN(model->hp_, model->arch_->read_hparams(*file));
  const std::vector<TensorSpec> specs = model->arch_->tensors(model->hp_);
  INFER_TRY(check_tensors(*file, specs));
  INFER_TRY(check_no_others(*file, specs, model->hp_));
  INFER_ASSIGN(model->tokenizer_, text::Tokenizer::load(*file));
  if (model->tokenizer_->n_vocab() > model->hp_.n_vocab) {
    return make_error(
        ErrorCode::kCorrupt,
        "{}: key 'tokenizer.ggml.tokens' has {} entries, the output matrix has {} rows",
        file->path(), model->tokenizer_->n_vocab(), model->hp_.n_vocab);
  }
  model->file_ = std::move(file);
  return std::shared_ptr<const Model>(std::move(model));
}

std::string_view Model::chat_template() const {
  const gguf::Value* v = file_->find("tokenizer.chat_template");
  if (v == nullptr) return {};
  const auto text = v->as_string();
  return text.ok() ? *text : std::string_view();
}

std::string Model::description() const {
  int64_t n_param = 0;
  int64_t n_bytes = 0;
  for (const gguf::TensorInfo& t : file_->tensors()) {
    n_param += t.view.n_elem();
    n_bytes += t.view.n_bytes;
  }
  return fmt::format("{}, {}, {}, {:.1f} M parameters, {:.1f} MiB",
                     hp_.name.empty() ? "unnamed" : hp_.name, hp_.arch, file_type(*file_),
                     static_cast<double>(n_param) * 1e-6,
                     static_cast<double>(n_bytes) / (1024.0 * 1024.0));
}

Result<graph::Graph> Model::build_graph(const BuildOptions& options) const {
  graph::Graph g;
  g.arch = hp_.arch;
  g.n_embd = hp_.n_embd;
  g.n_vocab = hp_.n_vocab;
  g.ropes = hp_.takes_long_ropes(options.n_ctx) ? hp_.long_ropes : hp_.ropes;
  std::unordered_map<std::string, TensorView> tensors;
  for (const gguf::TensorInfo& t : file_->tensors()) tensors.emplace(std::string(t.name), t.view);
  graph::Builder builder(&g, std::move(tensors), options.unfused);
  arch_->build(builder, hp_);
  INFER_TRY(attach_adapters(*file_, options.adapters, &g));
  return g;
}

}  // namespace infer::model
