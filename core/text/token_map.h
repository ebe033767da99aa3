#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace infer::text {

/// From byte strings to token ids: open addressing, at most half full, 8 bytes a slot.
class TokenMap {
 public:
  /// Makes room for n keys. `texts`: text of each id, filled in by the time an id is inserted; must
  /// outlive the map and not move.
  void reset(const std::string_view* texts, size_t n) {
    size_t capacity = 16;
    while (capacity < 2 * n) capacity *= 2;
    slots_.assign(capacity, Slot{});
    mask_ = capacity - 1;
    texts_ = texts;
  }
  /// Id already stored under the text of `id`, or -1 after `id` was stored.
  int32_t insert(int32_t id) {
    const uint64_t h = hash(texts_[id]);
    Slot& slot = slots_[slot_of(texts_[id], h)];
    if (slot.id >= 0) return slot.id;
    slot = {static_cast<uint32_t>(h >> 32), id};
    return -1;
  }
  /// Id stored under `key`, -1 if there is none.
  int32_t find(std::string_view key) const { return slots_[slot_of(key, hash(key))].id; }

 private:
  struct Slot {
    uint32_t tag = 0;
    int32_t id = -1;  // -1: free
  };

  static uint64_t mix(uint64_t x) {
    x *= 0x9e3779b97f4a7c15u;
    return x ^ x >> 29;
  }
  static uint64_t hash(std::string_view key) {
    uint64_t h = key.size();
    size_t at = 0;
    for (; at + 8 <= key.size(); at += 8) {
      uint64_t word;
      std::memcpy(&word, key.data() + at, 8);
      h = mix(h ^ word);
    }
    uint64_t tail = 0;
    for (int shift = 0; at < key.size(); ++at, shift += 8) {
      tail |= static_cast<uint64_t>(static_cast<uint8_t>(key[at])) << shift;
    }
    h = mix(h ^ tail);
    return h ^ h >> 32;
  }
  size_t slot_of(std::string_view key, uint64_t h) const {
    const auto tag = static_cast<uint32_t>(h >> 32);
    size_t i = h & mask_;
    while (slots_[i].id >= 0 && (slots_[i].tag != tag || texts_[slots_[i].id] != key))
      i = (i + 1) & mask_;
    return i;
  }

  std::vector<Slot> slots_ = std::vector<Slot>(1);
  size_t mask_ = 0;
  const std::string_view* texts_ = nullptr;
};

}  // namespace infer::text
