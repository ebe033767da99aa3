#pragma once

#include <cuda_runtime.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cuda/args.h"

/// What the timing of kernels is made of: memory, a timer, the shapes of two models.
namespace infer::cuda::timing {

using Json = nlohmann::ordered_json;
inline constexpr int kRepetitions = 20;

inline void must(cudaError_t error, const std::string& what) {
  if (error != cudaSuccess)
    throw std::runtime_error(fmt::format("{}: {}", what, cudaGetErrorString(error)));
}

/// Device memory with random bytes, or zeros.
class Memory {
 public:
  explicit Memory(int64_t n_bytes, bool random = true) {
    const auto size = static_cast<size_t>(std::max<int64_t>(n_bytes, 256));
    must(cudaMalloc(reinterpret_cast<void**>(&data_), size), fmt::format("{} bytes", size));
    must(cudaMemset(data_, 0, size), "clearing");
    for (size_t at = 0; random && at < size; at += noise().size())
      must(cudaMemcpy(data_ + at, noise().data(), std::min(noise().size(), size - at),
                      cudaMemcpyHostToDevice),
           "filling");
  }
  template <class T>
  explicit Memory(const std::vector<T>& values)
      : Memory(static_cast<int64_t>(values.size() * sizeof(T)), /*random=*/false) {
    must(cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice),
         "copying");
  }
  ~Memory() { cudaFree(data_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  /// Bytes below 60: halves and floats of them are small and finite.
  static const std::vector<char>& noise() {
    static const std::vector<char> bytes = [] {
      std::vector<char> made(size_t{16} << 20);
      std::mt19937 random(1);
      for (char& b : made) b = static_cast<char>(random() % 60);
      return made;
    }();
    return bytes;
  }
  std::byte* data_ = nullptr;
};

/// One GPU, its cache flushed before what is timed.
class Timer {
 public:
  explicit Timer(int64_t l2_bytes) : flush_(2 * l2_bytes, false), flush_bytes_(2 * l2_bytes) {
    must(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
    for (cudaEvent_t& event : events_) must(cudaEventCreate(&event), "event");
  }
  /// Microseconds of each repetition, ascending.
  std::vector<double> run(const std::function<cudaError_t(cudaStream_t)>& launch) {
    std::vector<double> us;
    for (int i = -3; i < kRepetitions; ++i) {
      must(cudaMemsetAsync(flush_.as<char>(), i & 0xff, static_cast<size_t>(flush_bytes_), stream_),
           "flushing");
      must(cudaEventRecord(events_[0], stream_), "event");
      must(launch(stream_), "launch");
      must(cudaEventRecord(events_[1], stream_), "event");
      must(cudaStreamSynchronize(stream_), "kernel");
      float ms = 0;
      must(cudaEventElapsedTime(&ms, events_[0], events_[1]), "event");
      if (i >= 0) us.push_back(1e3 * static_cast<double>(ms));
    }
    std::sort(us.begin(), us.end());
    return us;
  }

 private:
  Memory flush_;
  int64_t flush_bytes_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t events_[2] = {};
};

struct Shape {
  const char* name;
  int n_embd, n_head, n_kv_head, head_dim, n_ff, n_vocab;
};
inline constexpr int kRowsAtMost = 512, kContext = 4096;

/// What all benches of a model share: inputs, room for outputs, row counts on the device.
class Bench {
 public:
  Bench(const Shape& shape, Timer& timer, int n_sm, Json& results);
  void linears();
  void attention();
  void rows();
  void experts();

 private:
  void add(Json what, const std::function<cudaError_t(cudaStream_t)>& launch);
  /// A row count on the device.
  const int32_t* live(int m);
  /// Rows of sequence 0 at slots 0..m - 1.
  Rows prompt_rows(int m);
  KvPool pool() const;
  BlockTable table() const { return {blocks_->as<int32_t>(), kContext / kBlockTok}; }
  struct Product;
  void few_rows(const Product& p);
  void many_rows(const Product& p);
  void product(DType type, const std::vector<int>& n, int k, bool glu);
  void elementwise(int m);

  Shape s_;
  Timer& timer_;
  int n_sm_;
  Json& results_;
  Memory x_, out_, act_, scales_, norm_, k_, v_;
  std::unique_ptr<Memory> slots_, blocks_, zeros_;
  std::vector<std::unique_ptr<Memory>> lives_;
};

}  // namespace infer::cuda::timing
