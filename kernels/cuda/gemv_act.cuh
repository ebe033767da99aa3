#pragma once

#include "kernels/cuda/act_q8.cuh"
#include "kernels/cuda/gemv_params.cuh"

/// Activations of a gemv: a block normalises the rows it needs and keeps them in shared memory,
/// rounded to 8 bits or as f32.
namespace infer::cuda::gemv {

/// At the beginning of shared memory; the activations follow.
struct Header {
  float partial[kWarps][kGemvRows];
  float mean[kGemvRows];
  float factor[kGemvRows];  ///< 1 / sqrt(mean square or variance, + eps)
};
static_assert(sizeof(Header) % 16 == 0);

/// Rows of a pass: row r of the pass is row x_row(r) of x and out_row(r) of the outputs.
struct PassRows {
  const int32_t* pair;
  int share;
  int first, n;
  INFER_DEVICE int out_row(int r) const { return pair != nullptr ? pair[first + r] : first + r; }
  INFER_DEVICE int x_row(int r) const {
    return pair != nullptr ? pair[first + r] / share : first + r;
  }
};

/// Elements [e, e + 4) of a row of k; zeros beyond it. kWhole: k is a multiple of 4.
template <bool kWhole>
INFER_DEVICE float4 load_quad(const float* row, int e, int k) {
  if (e >= k) return {0.0f, 0.0f, 0.0f, 0.0f};
  if (kWhole || k % 4 == 0) return load_readonly<float4>(row + e);
  return {row[e], e + 1 < k ? row[e + 1] : 0.0f, e + 2 < k ? row[e + 2] : 0.0f,
          e + 3 < k ? row[e + 3] : 0.0f};
}

/// Sum over this thread's part of a row: of x - mean, or of its squares.
template <bool kWhole>
INFER_DEVICE float partial_sum(const float* x, int k, bool squares, float mean) {
  float sum = 0.0f;
  for (int e = static_cast<int>(thread_idx().x) * 4; e < k; e += kThreads * 4) {
    const float4 quad = load_quad<kWhole>(x, e, k);
    const float v[4] = {quad.x, quad.y, quad.z, quad.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (!kWhole && e + i >= k) continue;
      const float from_mean = v[i] - mean;
      sum = fmaf(from_mean, squares ? from_mean : 1.0f, sum);
    }
  }
  return sum;
}

/// Mean and factor of the norm for each row of the pass, in the header after the next barrier.
/// Order of a sum: a thread its parts, then the lanes by a butterfly, then the warps.
template <bool kWhole>
INFER_DEVICE void row_statistics(const Params& p, const PassRows& rows, Header& header) {
  if (p.norm.kind == NormKind::kNone) return;
  const bool layer = p.norm.kind == NormKind::kLayer;
  const float inverse_k = 1.0f / static_cast<float>(p.k);
  for (int round = layer ? 0 : 1; round < 2; ++round) {
    sync_threads();  // what the header held before, and its means, have been read or written
#pragma unroll 1
    for (int r = 0; r < rows.n; ++r) {
      const float* x = p.x + static_cast<int64_t>(rows.x_row(r)) * p.k;
      const float mean = layer && round == 1 ? header.mean[r] : 0.0f;
      const float sum = warp_sum(partial_sum<kWhole>(x, p.k, round == 1, mean));
      if (lane_id() == 0) header.partial[warp_id()][r] = sum;
    }
    sync_threads();
    const int r = static_cast<int>(thread_idx().x);
    if (r >= rows.n) continue;
    float sum = 0.0f;
    for (int w = 0; w < kWarps; ++w) sum += header.partial[w][r];
    if (round == 0)
      header.mean[r] = sum * inverse_k;
    else
      header.factor[r] = 1.0f / sqrtf(fmaf(sum, inverse_k, p.norm.eps));
  }
}

/// Elements [e, e + 4) of row r of the pass, normalised; zeros beyond the row.
template <bool kWhole>
INFER_DEVICE float4 normalised_quad(const Params& p, const Header& header, const float* x, int r,
                                    int e) {
  const float4 raw = load_quad<kWhole>(x, e, p.k);
  if (p.norm.kind == NormKind::kNone || e >= p.k) return raw;
  const bool layer = p.norm.kind == NormKind::kLayer;
  const float mean = layer ? header.mean[r] : 0.0f, factor = header.factor[r];
  const float4 one = {1.0f, 1.0f, 1.0f, 1.0f}, zero = {0.0f, 0.0f, 0.0f, 0.0f};
  const float4 w = p.norm.weight != nullptr ? load_quad<kWhole>(p.norm.weight, e, p.k) : one;
  const float4 b = layer && p.norm.bias != nullptr ? load_quad<kWhole>(p.norm.bias, e, p.k) : zero;
  float4 v = {fmaf((raw.x - mean) * factor, w.x, b.x), fmaf((raw.y - mean) * factor, w.y, b.y),
              fmaf((raw.z - mean) * factor, w.z, b.z), fmaf((raw.w - mean) * factor, w.w, b.w)};
  if (kWhole) return v;
  if (e + 1 >= p.k) v.y = 0.0f;  // factor times zero might be a NaN
  if (e + 2 >= p.k) v.z = 0.0f;
  if (e + 3 >= p.k) v.w = 0.0f;
  return v;
}

// --- 8 bits -------------------------------------------------------------------------------------

/// Activations in shared memory are cut into stripes of 128 bytes, one row's after the other's:
/// what differs from row to row is a constant of the address, and neighbours in a stripe differ in
/// their banks.
template <int kRows, int kWidth>
INFER_DEVICE unsigned in_stripes(unsigned i, int row) {
  return (i / kWidth * kRows + static_cast<unsigned>(row)) * kWidth + i % kWidth;
}

/// Rounded activations: pieces of 16 levels, and {d, s} per 32. Lanes of a warp read pieces that
/// are apart; where a piece lies is shuffled within its stripe so that their banks differ: mask and
/// step belong to the weights' type.
struct ActPieces {
  uint4* levels;
  float2* scales;
};
template <class W>
INFER_DEVICE unsigned act_slot(unsigned piece) {
  return piece ^ (piece >> 3 & W::kSwizzleMask) * W::kSwizzleStep;
}
template <int kRows>
INFER_DEVICE unsigned level_at(unsigned slot, int row) {
  return in_stripes<kRows, 8>(slot, row);
}
template <int kRows>
INFER_DEVICE unsigned scale_at(unsigned group, int row) {
  return in_stripes<kRows, 16>(group, row);
}

/// Activations [begin, begin + length) of the pass' rows, kCount a lane. length is a multiple
/// of 32.
template <class W, int kRows>
INFER_DEVICE void fill_q8(const Params& p, const PassRows& rows, const Header& header,
                          const ActPieces& act, int begin, int length) {
  constexpr int kCount = kRows <= 2 ? 16 : 4;  // fewer registers, more shuffles
#pragma unroll 1
  for (int r = 0; r < rows.n; ++r) {
    const float* x = p.x + static_cast<int64_t>(rows.x_row(r)) * p.k;
#pragma unroll 1
    for (int first = 0; first < length; first += kThreads * kCount) {
      const int at = first + static_cast<int>(thread_idx().x) * kCount;
      float v[kCount] = {};
      if (at < length) {
#pragma unroll
        for (int i = 0; i < kCount; i += 4) {
          const float4 quad = normalised_quad<true>(p, header, x, r, begin + at + i);
          v[i] = quad.x, v[i + 1] = quad.y, v[i + 2] = quad.z, v[i + 3] = quad.w;
        }
      }
      const RoundedGroup<kCount> group = round_act_group(v);
      if (at >= length) continue;
      const auto i = static_cast<unsigned>(at);
      auto* words =
          reinterpret_cast<uint32_t*>(act.levels + level_at<kRows>(act_slot<W>(i / 16), r));
      if constexpr (kCount == 16)
        store(words, uint4{group.q[0], group.q[1], group.q[2], group.q[3]});
      else
        words[i % 16 / 4] = group.q[0];
      if (i % kActGroup == 0) act.scales[scale_at<kRows>(i / kActGroup, r)] = {group.d, group.s};
    }
  }
}

// --- f32 ----------------------------------------------------------------------------------------

/// The same for f32: quads of four, shuffled within their stripe.
struct ActQuads {
  float4* quads;
};
template <int kRows>
INFER_DEVICE unsigned quad_at(unsigned quad, int row) {
  return in_stripes<kRows, 8>(quad ^ (quad >> 3 & 7), row);
}

/// length is a multiple of 32, and may reach beyond the row.
template <int kRows>
INFER_DEVICE void fill_f32(const Params& p, const PassRows& rows, const Header& header,
                           const ActQuads& act, int begin, int length) {
#pragma unroll 1
  for (int r = 0; r < rows.n; ++r) {
    const float* x = p.x + static_cast<int64_t>(rows.x_row(r)) * p.k;
    for (int quad = static_cast<int>(thread_idx().x); quad < length / 4; quad += kThreads)
      act.quads[quad_at<kRows>(static_cast<unsigned>(quad), r)] =
          normalised_quad<false>(p, header, x, r, begin + 4 * quad);
  }
}

}  // namespace infer::cuda::gemv
