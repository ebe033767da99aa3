#include <cstdio>
#include <memory>
#include <utility>
#include <vector>

#include "backends/registry.h"
#include "core/engine.h"
#include "core/model/model.h"
#include "gguf/reader.h"

/// consumer MODEL PROMPT: what a program outside of this tree writes to complete a text.
namespace {

infer::Result<std::string> complete(const char* path, const char* prompt) {
  INFER_ASSIGN(auto backends, infer::make_backends({.n_threads = 1}));
  std::vector<infer::runtime::Backend*> devices;
  for (const auto& b : backends) devices.push_back(b.get());
  INFER_ASSIGN(auto file, infer::gguf::Reader::open(path));
  INFER_ASSIGN(auto model, infer::model::Model::load(std::move(file)));
  infer::EngineOptions options;
  options.n_ctx = 256;
  INFER_ASSIGN(auto engine, infer::Engine::create(std::move(model), options, devices));
  infer::Request request;
  INFER_ASSIGN(request.prompt, engine->tokenizer().encode(prompt));
  request.max_tokens = 8;
  request.sampling.temp = 0.0f;
  INFER_ASSIGN(const infer::Response response, engine->generate(std::move(request)));
  return response.samples[0].text;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const infer::Result<std::string> text = complete(argv[1], argv[2]);
  if (!text.ok()) {
    std::fprintf(stderr, "%s\n", text.error().message.c_str());
    return 1;
  }
  std::puts(text->c_str());
  return 0;
}
