#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backends/cpu/bench/roofline.h"
#include "backends/cpu/bench/timing.h"
#include "core/base/dtype.h"
#include "core/base/result.h"

/// Times one kernel of the CPU table the way the backend calls it: outputs shared out in tasks over
/// a team of threads. What is missing is what a model adds: other ops between the calls.
namespace infer::cpu::bench {

struct OpSpec {
  std::string op;              ///< a name of op_names()
  DType type = DType::kQ4_0;   ///< linear, prepare, decode: of the weights
  bool precise = false;        ///< linear, prepare: f32 activations
  int64_t m = 1;               ///< rows (of activations, of queries)
  int64_t n = 1024, k = 1024;  ///< linear: w [n, k]; row ops: rows of k
  int64_t n_kv = 512;          ///< attention: slots, the rows of queries are the last
  int64_t n_head = 8, n_kv_head = 8, head_dim = 64;
  bool kv_f32 = false;  ///< attention: K and V in f32 instead of f16
  bool hot = false;     ///< one copy of the weights or of K and V, which may stay in a cache;
                        ///< otherwise enough copies in turn that they cannot
};

struct OpOptions {
  int n_threads = 0;  ///< 0: what the backend would take
  std::string isa;    ///< empty: the best
  bool pin = true;
  Timing timing;
};

struct OpReport {
  std::string isa;
  int n_threads = 1;
  int n_copy = 1;             ///< of the weights or of K and V
  double bytes = 0, ops = 0;  ///< a call reads and writes so much, and multiplies and adds
  Limits::Ops Limits::*limit = &Limits::f32;  ///< for what it multiplies
  std::vector<double> call_s;                 ///< seconds a call, one a sample
};

/// "linear", "attention", ...: what measure_op knows.
std::vector<std::string> op_names();

/// Errors: kInvalidArgument for an unknown op or a shape that it cannot have, kUnsupported for a
/// type without a kernel, kOutOfMemory.
Result<OpReport> measure_op(const OpSpec& spec, const OpOptions& options);

}  // namespace infer::cpu::bench
