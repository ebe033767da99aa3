#include "quantize/convert/hf_source.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "core/base/checked.h"
#include "core/base/error.h"
#include "core/model/arch.h"
#include "core/model/hf.h"
#include "gguf/describe.h"
#include "gguf/header_builder.h"
#include "gguf/keys.h"
#include "quantize/convert/hf_map.h"
#include "quantize/convert/hf_rows.h"
#include "quantize/convert/hf_tokenizer.h"
#include "quantize/convert/json.h"
#include "quantize/convert/safetensors.h"

namespace infer::quantize {
namespace {

using model::ArchDef;
using model::HfConfig;
using model::HfKeys;
using model::HfValue;
namespace keys = gguf::keys;

class HfSource final : public Source {
 public:
  HfSource(SafeTensors weights, std::vector<MappedTensor> tensors, std::vector<std::byte> bytes)
      : weights_(std::move(weights)), tensors_(std::move(tensors)), bytes_(std::move(bytes)) {}

  /// `name` is the path in errors of readers.
  Result<void> parse(const std::string& name, const std::vector<gguf::KeyOverride>& overrides) {
    INFER_ASSIGN(header_,
                 gguf::Reader::parse(bytes_, name, {.header_only = true, .overrides = overrides}));
    return {};
  }
  const gguf::Reader& header() const override { return *header_; }
  Result<void> read_rows(size_t index, int64_t row, int64_t n_row,
                         std::span<float> out) const override {
    return read_mapped_rows(weights_, tensors_[index], row, n_row, out);
  }
  std::span<const std::byte> stored_rows(size_t index, int64_t row, int64_t n_row) const override {
    return stored_mapped_rows(tensors_[index], row, n_row);
  }
  void release_rows(size_t index, int64_t row, int64_t n_row) const override {
    release_mapped_rows(weights_, tensors_[index], row, n_row);
  }

 private:
  SafeTensors weights_;
  std::vector<MappedTensor> tensors_;  // in the order of the header's
  std::vector<std::byte> bytes_;       // the header, which header_ points into
  std::shared_ptr<const gguf::Reader> header_;
};

/// The text model's settings: those of "text_config", where there is one, before the others.
HfValue text_config(HfValue root) {
  const HfValue* inner = root.find("text_config");
  const auto* members = inner != nullptr ? std::get_if<HfValue::Object>(&inner->value) : nullptr;
  if (members == nullptr) return root;
  HfValue merged{*members};
  auto& all = std::get<HfValue::Object>(merged.value);
  std::set<std::string_view> taken{"text_config"};
  for (const auto& [name, value] : *members) taken.insert(name);
  for (const auto& [name, value] : std::get<HfValue::Object>(root.value)) {
    if (!taken.contains(name)) all.push_back({name, value});
  }
  return merged;
}

Result<const ArchDef*> find_arch(const HfConfig& root) {
  INFER_ASSIGN(const std::vector<std::string> names, root.texts("architectures"));
  std::string known;
  for (const ArchDef* arch : model::arch_registry()) {
    if (arch->hf == nullptr) continue;
    for (const std::string_view name : arch->hf->names) {
      if (!names.empty() && names[0] == name) return arch;
      known += (known.empty() ? "" : ", ") + std::string(name);
    }
  }
  return make_error(ErrorCode::kUnsupported,
                    "{}: key 'architectures' = '{}': not supported (known: {})", root.where(),
                    names.empty() ? "" : gguf::printable(names[0]), known);
}

/// What the folder is called; the model's name for a snapshot in the Hugging Face cache.
std::string name_of_folder(const std::string& folder) {
  std::error_code ec;
  std::filesystem::path path = std::filesystem::canonical(folder, ec);
  if (ec) path = folder;
  if (path.parent_path().filename() == "snapshots") {
    const std::string repo = path.parent_path().parent_path().filename().string();
    if (const size_t at = repo.rfind("--"); at != std::string::npos) return repo.substr(at + 2);
  }
  return path.filename().string();
}

/// "135M", "8x7.2B": as gguf-py's size_label rounds.
std::string size_label(std::span<const MappedTensor> tensors) {
  double shared = 0.0;
  double per_expert = 0.0;
  int64_t n_expert = 0;
  for (const MappedTensor& t : tensors) {
    const auto n = static_cast<double>(t.n_elem());
    if (t.name.find("_exps.") == std::string::npos) {
      shared += n;
    } else {
      n_expert = t.shape.back();
      per_expert += n / static_cast<double>(n_expert);
    }
  }
  double n = shared + per_expert;
  char unit = 'K';
  double scale = 1e-3;
  for (const auto& [limit, letter] : {std::pair(1e12, 'T'), {1e9, 'B'}, {1e6, 'M'}}) {
    if (n <= limit) continue;
    unit = letter;
    scale = 1.0 / limit;
    break;
  }
  n *= scale;
  const std::string label = fmt::format("{:.{}f}{}", n, n < 0.5 ? 2 : n < 9.5 ? 1 : 0, unit);
  return n_expert > 0 ? fmt::format("{}x{}", n_expert, label) : label;
}

std::string shape_text(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

/// Everything that is known on the way from a folder to its source.
class Opener {
 public:
  Opener(std::string folder, const ConvertOptions& options)
      : folder_(std::move(folder)), options_(options), header_(folder_) {}

  Result<std::unique_ptr<Source>> run() {
    const std::string path = (std::filesystem::path(folder_) / "config.json").string();
    INFER_ASSIGN(HfValue root, read_json(path));
    if (!std::holds_alternative<HfValue::Object>(root.value))
      return make_error(ErrorCode::kCorrupt, "{}: not a JSON object", path);
    INFER_ASSIGN(arch_, find_arch(HfConfig(root, path)));
    const HfValue settings = text_config(std::move(root));
    const HfConfig config(settings, path);
    INFER_ASSIGN(SafeTensors weights, SafeTensors::open_folder(folder_));
    std::vector<std::string> notes;
    INFER_ASSIGN(tensors_, map_tensors(weights, *arch_->hf, config, &notes));
    log(notes);
    INFER_TRY(write_keys(config));
    INFER_TRY(check(config));
    for (const MappedTensor& t : tensors_) INFER_TRY(header_.add_tensor(t.name, t.type, t.shape));
    INFER_ASSIGN(std::vector<std::byte> bytes, header_.encode());
    auto source =
        std::make_unique<HfSource>(std::move(weights), std::move(tensors_), std::move(bytes));
    INFER_TRY(source->parse(folder_, options_.overrides));
    return std::unique_ptr<Source>(std::move(source));
  }

 private:
  Result<void> write_keys(const HfConfig& config) {
    const auto embd = std::find_if(tensors_.begin(), tensors_.end(), [](const MappedTensor& t) {
      return t.name == "token_embd.weight" && t.shape.size() == 2;
    });
    if (embd == tensors_.end()) return missing("token_embd.weight", {});
    const int64_t n_vocab = embd->shape[1];
    INFER_ASSIGN(const int64_t wanted, config.integer({"vocab_size"}, n_vocab));
    if (wanted != n_vocab) {
      return make_error(ErrorCode::kCorrupt,
                        "{}: key 'vocab_size' = {}, but the embedding has {} rows", config.where(),
                        wanted, n_vocab);
    }
    const std::string name = options_.name.empty() ? name_of_folder(folder_) : options_.name;
    INFER_TRY(header_.add_string(keys::kArchitecture, arch_->name));
    INFER_TRY(header_.add_string(keys::kType, "model"));
    INFER_TRY(header_.add_string(keys::kName, name));
    INFER_TRY(header_.add_string(keys::kSizeLabel, size_label(tensors_)));
    HfKeys out(std::string(arch_->name), &header_);
    INFER_TRY(arch_->hf->write_keys(config, out));
    INFER_TRY(out.status());
    std::vector<std::string> notes;
    INFER_TRY(write_tokenizer(folder_, {.arch = out.arch(), .n_vocab = n_vocab, .name = name},
                              header_, &notes));
    log(notes);
    // Tensors made of the configuration come first, as llama.cpp's converter writes them.
    std::vector<MappedTensor> computed;
    for (const HfKeys::Tensor& t : out.tensors()) {
      computed.push_back(
          {.name = t.name, .values = t.values, .shape = {static_cast<int64_t>(t.values.size())}});
    }
    n_computed_ = computed.size();
    tensors_.insert(tensors_.begin(), std::make_move_iterator(computed.begin()),
                    std::make_move_iterator(computed.end()));
    return {};
  }

  void log(const std::vector<std::string>& notes) const {
    for (const std::string& note : notes) {
      if (options_.log) options_.log(folder_ + ": " + note);
    }
  }

  /// Hyper-parameters as a reader of the GGUF will read them, its checks included.
  Result<model::Hparams> read_hparams(const HfConfig& config) const {
    gguf::HeaderBuilder probe = header_;
    for (size_t i = 0; i < n_computed_; ++i)
      INFER_TRY(probe.add_tensor(tensors_[i].name, DType::kF32, tensors_[i].shape));
    INFER_ASSIGN(std::vector<std::byte> bytes, probe.encode());
    for (size_t i = 0; i < n_computed_; ++i) {
      const auto values = std::as_bytes(std::span(tensors_[i].values));
      bytes.insert(bytes.end(), values.begin(), values.end());
      bytes.resize(align_up(bytes.size(), static_cast<size_t>(probe.alignment())));
    }
    INFER_ASSIGN(const auto reader, gguf::Reader::parse(bytes, config.where()));
    return arch_->read_hparams(*reader);
  }

  Error missing(std::string_view name, std::span<const int64_t> shape) const {
    const std::string hf = hf_name_of(*arch_->hf, name);
    return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' is missing, which becomes '{}' {}",
                      folder_, hf, name, shape_text(shape));
  }

  /// Every tensor that the architecture wants is there in its shape, and no other.
  Result<void> check(const HfConfig& config) {
    INFER_ASSIGN(const model::Hparams hp, read_hparams(config));
    INFER_ASSIGN(const bool is_tied,
                 config.flag("tie_word_embeddings", arch_->hf->tied_by_default));
    std::map<std::string_view, MappedTensor*> rest;
    for (size_t i = n_computed_; i < tensors_.size(); ++i)
      rest.emplace(tensors_[i].name, &tensors_[i]);
    for (const model::TensorSpec& spec : arch_->tensors(hp)) {
      const auto it = rest.find(spec.name);
      if (it == rest.end()) {
        const bool is_output = spec.name == "output.weight";
        if (spec.required || (is_output && !is_tied)) return missing(spec.name, spec.shape);
        continue;
      }
      MappedTensor& t = *it->second;
      if (t.shape != spec.shape) {
        return make_error(ErrorCode::kCorrupt,
                          "{}: tensor '{}' becomes '{}' {}, but config.json wants {}", folder_,
                          gguf::printable(t.slices[0].t->name), t.name, shape_text(t.shape),
                          shape_text(spec.shape));
      }
      INFER_TRY(set_heads(t, hp));
      rest.erase(it);
    }
    if (rest.empty()) return {};
    const MappedTensor& t = *rest.begin()->second;
    return make_error(ErrorCode::kUnsupported, "{}: tensor '{}' ('{}') is no part of {} here",
                      folder_, gguf::printable(t.slices[0].t->name), t.name, arch_->name);
  }

  Result<void> set_heads(MappedTensor& t, const model::Hparams& hp) const {
    const bool is_k = t.change == model::HfChange::kPermuteK;
    const bool is_fused = t.change == model::HfChange::kSplitQkv;
    if (!is_k && !is_fused && t.change != model::HfChange::kPermuteQ) return {};
    t.n_head = is_k ? hp.n_kv_head(0) : hp.n_head(0);
    const int64_t parts = is_fused ? 3 : 2;
    if (t.shape.back() % (parts * t.n_head) == 0) return {};
    return make_error(ErrorCode::kCorrupt, "{}: tensor '{}': {} rows for {} heads", folder_,
                      gguf::printable(t.slices[0].t->name), t.shape.back(), t.n_head);
  }

  std::string folder_;
  const ConvertOptions& options_;
  gguf::HeaderBuilder header_;
  const ArchDef* arch_ = nullptr;
  std::vector<MappedTensor> tensors_;
  size_t n_computed_ = 0;  // at the front of tensors_
};

}  // namespace

Result<std::unique_ptr<Source>> open_hf(const std::string& folder, const ConvertOptions& options) {
  return Opener(folder, options).run();
}

}  // namespace infer::quantize
