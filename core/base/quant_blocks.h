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

static_assert(sizeof(BlockQ4_0) == 18 && alignof(BlockQ4_0) == 2);
static_assert(sizeof(BlockQ4_1) == 20 && alignof(BlockQ4_1) == 2);
static_assert(sizeof(BlockQ5_0) == 22 && alignof(BlockQ5_0) == 2);
static_assert(sizeof(BlockQ5_1) == 24 && alignof(BlockQ5_1) == 2);
static_assert(sizeof(BlockQ8_0) == 34 && alignof(BlockQ8_0) == 2);
static_assert(sizeof(BlockQ4_K) == 144 && alignof(BlockQ4_K) == 2);
static_assert(sizeof(BlockQ5_K) == 176 && alignof(BlockQ5_K) == 2);
static_assert(sizeof(BlockQ6_K) == 210 && alignof(BlockQ6_K) == 2);

}  // namespace infer
