#pragma once

#include <array>
#include <cstdint>

namespace infer::text {

/// Philox 4x32-10. Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011),
/// section 4.3.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

/// A double in [0, 1) that depends on its arguments only, so that a sample is the same whoever else
/// is in the batch, after preemption, and on any thread. Key: the seed; counter: the position and
/// the stream; the first 53 bits of the block. Stream 0 draws the token; who needs a further number
/// at the same position takes a stream of its own.
double uniform_at(uint64_t seed, uint64_t position, uint32_t stream = 0);

}  // namespace infer::text
