#pragma once

#include <cstdint>

#include "gguf/reader.h"

namespace infer::gguf {

/// Tells models apart, not forgeries: a hash of all keys with their values (those set from outside
/// included, "split.*" left out) and of each tensor's name, type, shape and up to 16 samples of 64
/// bytes, spread evenly from its first byte to its last. Independent of how the file is split or
/// laid out. Reads about 1 KiB a tensor. Needs: tensor data (not header_only).
uint64_t content_hash(const Reader& file);

}  // namespace infer::gguf
