#include "kernels/cpu/avx2/nonlinear.h"

#include "kernels/cpu/avx2/install.h"

namespace infer::kern::avx2 {

void install_nonlinear(CpuKernels& k) {
  k.rms_norm = rms_norm;
  k.layer_norm = layer_norm;
  k.add = add;
  k.mul = mul;
  k.scale = scale;
  k.softcap = softcap;
  k.glu = glu;
  k.rope = rope;
  k.kv_store = kv_store;
  k.attn_scratch_bytes = attn_scratch_bytes;
  k.attn_spans = attn_spans;
  k.attn_merge = attn_merge;
  k.attn_finish = attn_finish;
  k.logit_stats = logit_stats;
}

}  // namespace infer::kern::avx2
