#include "quantize/encode/levels.h"
#include "quantize/encode/rows.h"

#define INFER_TEXT_OF(x) #x
#define INFER_TEXT(x) INFER_TEXT_OF(x)

namespace infer::quantize::INFER_ENCODE_LEVEL {

EncodeTable encode_table() {
  EncodeTable t;
  t.isa = INFER_TEXT(INFER_ENCODE_LEVEL);
  t.all_finite = all_finite;
  const auto set = [&t](DType type, EncodeRow plain, EncodeRow best) {
    t.plain[static_cast<int>(type)] = plain;
    t.best[static_cast<int>(type)] = best;
  };
  set(DType::kF32, encode_f32, encode_f32);
  set(DType::kF16, encode_f16, encode_f16);
  set(DType::kBF16, encode_bf16, encode_bf16);
  set(DType::kQ4_0, encode_q4_0, best_q4_0);
  set(DType::kQ4_1, encode_q4_1, best_q4_1);
  set(DType::kQ5_0, encode_q5_0, best_q5_0);
  set(DType::kQ5_1, encode_q5_1, best_q5_1);
  set(DType::kQ8_0, encode_q8_0, best_q8_0);
  set(DType::kQ2_K, encode_q2_k, encode_q2_k);
  set(DType::kQ3_K, encode_q3_k, encode_q3_k);
  set(DType::kQ4_K, encode_q4_k, encode_q4_k);
  set(DType::kQ5_K, encode_q5_k, encode_q5_k);
  set(DType::kQ6_K, encode_q6_k, encode_q6_k);
  set(DType::kIQ4_NL, encode_iq4_nl, encode_iq4_nl);
  return t;
}

}  // namespace infer::quantize::INFER_ENCODE_LEVEL
