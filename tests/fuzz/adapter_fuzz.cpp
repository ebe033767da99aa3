#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/model/adapter.h"
#include "tests/support/model_fixture.h"
#include "tests/support/tiny_model.h"

/// Any bytes as an adapter of a tiny model: read, and attached to its graph.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using infer::test::must;
  static const auto kModel =
      must(infer::test::model_of(infer::test::tiny_model("llama"), "model.gguf"));
  const auto check = [](const infer::Error& error) {
    if (error.message.find('\n') != std::string::npos) __builtin_trap();
  };
  auto file = infer::gguf::Reader::parse(std::as_bytes(std::span(data, size)), "fuzz");
  if (!file.ok()) return 0;
  const auto adapter = infer::model::Adapter::load(std::move(file).value());
  if (!adapter.ok()) {
    check(adapter.error());
    return 0;
  }
  const std::shared_ptr<const infer::model::Adapter> adapters[] = {*adapter};
  const auto graph = kModel->build_graph({.unfused = false, .adapters = adapters});
  if (!graph.ok()) {
    check(graph.error());
    return 0;
  }
  for (const auto& set : graph->item_adapters) {
    for (const infer::graph::LowRank& add : set) {
      if (add.a.ne[1] != add.b.ne[0] || add.b.data == nullptr) __builtin_trap();
    }
  }
  return 0;
}
