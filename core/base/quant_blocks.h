#pragma once

#include <cstdint>

/// Block layouts as GGUF files store them (little endian, no padding). `d`, `m`, `dmin` are IEEE
/// half bits. Source: the GGUF specification and ggml's published block formats; checked byte for
/// byte against `gguf`-py.
namespace infer {

inline constexpr int kBlock32 = 32;    ///< elements in a legacy block
inline constexpr int kBlock256 = 256;  ///< elements in a K-quant super-block

struct BlockQ4_0 {
  uint16_t d;
  uint8_t qs[16];
};  ///< w[i] = d * (q - 8); low nibbles are 0..15, high 16..31
struct BlockQ4_1 {
  uint16_t d, m;
  uint8_t qs[16];
};  ///< w[i] = d * q + m
struct BlockQ5_0 {
  uint16_t d;
  uint8_t qh[4];
  uint8_t qs[16];
};  ///< w[i] = d * (q - 16); bit i of qh is bit 4 of q[i]
struct BlockQ5_1 {
  uint16_t d, m;
  uint8_t qh[4];
  uint8_t qs[16];
};  ///< w[i] = d * q + m
struct BlockQ8_0 {
  uint16_t d;
  int8_t qs[32];
};  ///< w[i] = d * q
/// 16 sub-blocks of 16; 4-bit scale (low nibble) and min (high) of each; 2-bit levels, four
/// elements 32 apart in a byte; w = d * sc * q - dmin * mn.
struct BlockQ2_K {
  uint8_t scales[16];
  uint8_t qs[64];
  uint16_t d, dmin;
};
/// 16 sub-blocks of 16; 6-bit scales packed in 12 bytes; levels of 2 bits as in Q2_K, their upper
/// bits in hmask (bit i of hmask[l] is that of element 32 * i + l); w = d * (sc - 32) * (q - 4).
struct BlockQ3_K {
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];
  uint16_t d;
};
/// 8 sub-blocks of 32; 6-bit scales and mins packed in 12 bytes; w = d * sc * q - dmin * mn.
struct BlockQ4_K {
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t qs[128];
};
struct BlockQ5_K {
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};
/// 16 sub-blocks of 16; w = d * sc * (q - 32).
struct BlockQ6_K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  uint16_t d;
};
/// w[i] = d * kIq4Levels[q]; nibbles as in Q4_0.
struct BlockIQ4_NL {
  uint16_t d;
  uint8_t qs[16];
};
/// 8 sub-blocks of 32; 6-bit scales: low nibbles in scales_l, upper two bits in scales_h;
/// w = d * (sc - 32) * kIq4Levels[q]; nibbles of each sub-block as in Q4_0.
struct BlockIQ4_XS {
  uint16_t d, scales_h;
  uint8_t scales_l[4];
  uint8_t qs[128];
};

/// Levels of IQ4_NL and IQ4_XS: denser about zero. Source: ggml's table of that format.
inline constexpr int8_t kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};

static_assert(sizeof(BlockQ4_0) == 18 && alignof(BlockQ4_0) == 2);
static_assert(sizeof(BlockQ4_1) == 20 && alignof(BlockQ4_1) == 2);
static_assert(sizeof(BlockQ5_0) == 22 && alignof(BlockQ5_0) == 2);
static_assert(sizeof(BlockQ5_1) == 24 && alignof(BlockQ5_1) == 2);
static_assert(sizeof(BlockQ8_0) == 34 && alignof(BlockQ8_0) == 2);
static_assert(sizeof(BlockQ2_K) == 84 && alignof(BlockQ2_K) == 2);
static_assert(sizeof(BlockQ3_K) == 110 && alignof(BlockQ3_K) == 2);
static_assert(sizeof(BlockQ4_K) == 144 && alignof(BlockQ4_K) == 2);
static_assert(sizeof(BlockQ5_K) == 176 && alignof(BlockQ5_K) == 2);
static_assert(sizeof(BlockQ6_K) == 210 && alignof(BlockQ6_K) == 2);
static_assert(sizeof(BlockIQ4_NL) == 18 && alignof(BlockIQ4_NL) == 2);
static_assert(sizeof(BlockIQ4_XS) == 136 && alignof(BlockIQ4_XS) == 2);

}  // namespace infer
