// Methods of texts that give texts, or lists of them.

#include <algorithm>

#include "core/base/error.h"
#include "core/text/jinja/builtins.h"
#include "core/text/jinja/interp.h"
#include "core/text/jinja/text_util.h"

namespace infer::text::jinja {
namespace {

template <Case kTo>
Result<Value> cased(Interp& in, const Value& v, const Bound&) {
  return as_value(change_case(in.budget(), *v.as_text(), kTo));
}

template <bool kLeft, bool kRight>
Result<Value> strip(Interp& in, const Value& v, const Bound& args) {
  TextPtr chars = make_text("");
  if (args.given(0)) {
    INFER_ASSIGN(chars, text_arg("strip", args[0], ""));
    if (chars->bytes.empty()) return v;
  }
  return as_value(strip_text(in.budget(), v.as_text(), chars->bytes, kLeft, kRight));
}

Result<Value> replace(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const TextPtr from, text_arg("replace", args[0], ""));
  INFER_ASSIGN(const TextPtr to, text_arg("replace", args[1], ""));
  INFER_ASSIGN(const int64_t count, int_arg("replace", args[2], -1));
  return as_value(replace_text(in.budget(), *v.as_text(), *from, *to, count));
}

/// Pieces [begin, end) of a text as a list.
Result<Value> pieces(Budget& budget, const TextPtr& text,
                     const std::vector<std::pair<size_t, size_t>>& cuts,
                     ListKind kind = ListKind::kList) {
  std::vector<Value> out;
  for (const auto& [begin, end] : cuts) {
    INFER_ASSIGN(TextPtr one, sub_text(budget, text, begin, end));
    out.emplace_back(std::move(one));
  }
  return make_list(budget, std::move(out), kind);
}

using Cuts = std::vector<std::pair<size_t, size_t>>;

/// At runs of white space.
Cuts split_spaces(std::string_view s, int64_t most) {
  Cuts out;
  for (size_t at = 0;;) {
    while (at < s.size() && is_space(char_at(s, at))) at += char_len(s, at);
    if (at == s.size()) return out;
    const size_t begin = at;
    if (static_cast<int64_t>(out.size()) == most) {  // the rest, with the spaces at its end
      out.emplace_back(begin, s.size());
      return out;
    }
    while (at < s.size() && !is_space(char_at(s, at))) at += char_len(s, at);
    out.emplace_back(begin, at);
  }
}

Cuts split_at(std::string_view s, std::string_view separator, int64_t most) {
  Cuts out;
  size_t begin = 0;
  while (static_cast<int64_t>(out.size()) != most) {
    const size_t hit = find_bytes(s, separator, begin);
    if (hit == s.npos) break;
    out.emplace_back(begin, hit);
    begin = hit + separator.size();
  }
  out.emplace_back(begin, s.size());
  return out;
}

/// The same from the right: the last `most` of the separators found one after the other from there.
Cuts rsplit_at(std::string_view s, std::string_view separator, int64_t most) {
  Cuts out;
  size_t end = s.size();
  while (static_cast<int64_t>(out.size()) != most) {
    const size_t hit = s.substr(0, end).rfind(separator);
    if (hit == s.npos) break;
    out.emplace_back(hit + separator.size(), end);
    end = hit;
  }
  out.emplace_back(0, end);
  std::reverse(out.begin(), out.end());
  return out;
}

Cuts rsplit_spaces(std::string_view s, int64_t most) {
  Cuts all = split_spaces(s, -1);
  if (most < 0 || static_cast<int64_t>(all.size()) <= most) return all;
  const auto rest = all.end() - most - 1;  // the last of the words that stay together
  Cuts out{{0, rest->second}};
  out.insert(out.end(), rest + 1, all.end());
  return out;
}

/// What a search for `what` from the right may cost.
Result<void> charge_search(Budget& budget, std::string_view s, std::string_view what) {
  const auto n = static_cast<int64_t>(s.size());
  const auto m = static_cast<int64_t>(std::min<size_t>(what.size(), 1 << 20));
  return budget.charge(1 + n * (1 + m) / 64);
}

template <bool kFromRight>
Result<Value> split(Interp& in, const Value& v, const Bound& args) {
  const std::string_view s = v.bytes();
  INFER_ASSIGN(const int64_t most, int_arg("split", args[1], -1));
  INFER_TRY(in.budget().charge(static_cast<int64_t>(s.size() / 8)));
  if (!args.given(0))
    return pieces(in.budget(), v.as_text(),
                  kFromRight ? rsplit_spaces(s, most) : split_spaces(s, most));
  INFER_ASSIGN(const TextPtr separator, text_arg("split", args[0], ""));
  if (separator->bytes.empty()) return make_error(ErrorCode::kInvalidArgument, "empty separator");
  if (kFromRight) INFER_TRY(charge_search(in.budget(), s, separator->bytes));
  return pieces(
      in.budget(), v.as_text(),
      kFromRight ? rsplit_at(s, separator->bytes, most) : split_at(s, separator->bytes, most));
}

Result<Value> splitlines(Interp& in, const Value& v, const Bound& args) {
  INFER_TRY(in.budget().charge(static_cast<int64_t>(v.bytes().size() / 8)));
  return pieces(in.budget(), v.as_text(),
                split_lines(v.bytes(), args[0] != nullptr && is_true(*args[0])));
}

template <bool kFromRight>
Result<Value> partition(Interp& in, const Value& v, const Bound& args) {
  const std::string_view s = v.bytes();
  INFER_ASSIGN(const TextPtr separator, text_arg("partition", args[0], ""));
  const std::string_view what = separator->bytes;
  if (what.empty()) return make_error(ErrorCode::kInvalidArgument, "empty separator");
  INFER_TRY(charge_search(in.budget(), s, kFromRight ? what : ""));
  const size_t hit = kFromRight ? s.rfind(what) : find_bytes(s, what, 0);
  Cuts cuts;
  if (hit != s.npos) {
    cuts = {{0, hit}, {hit, hit + what.size()}, {hit + what.size(), s.size()}};
  } else if (kFromRight) {
    cuts = {{0, 0}, {0, 0}, {0, s.size()}};
  } else {
    cuts = {{0, s.size()}, {0, 0}, {0, 0}};
  }
  return pieces(in.budget(), v.as_text(), cuts, ListKind::kTuple);
}

template <bool kPrefix>
Result<Value> remove_affix(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const TextPtr affix, text_arg("removeprefix", args[0], ""));
  const std::string_view s = v.bytes(), what = affix->bytes;
  if (kPrefix ? !s.starts_with(what) : !s.ends_with(what)) return v;
  const size_t begin = kPrefix ? what.size() : 0;
  return as_value(sub_text(in.budget(), v.as_text(), begin, begin + s.size() - what.size()));
}

Result<Value> join(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const ListPtr items, items_of(in.budget(), *args[0]));
  TextBuilder out(in.budget());
  for (size_t i = 0; i < items->items.size(); ++i) {
    if (!items->items[i].is_text())
      return make_error(ErrorCode::kInvalidArgument, "join() needs strings, not {}",
                        type_name(items->items[i]));
    if (i > 0) out.append(*v.as_text());
    out.append(*items->items[i].as_text());
    INFER_TRY(out.state());
  }
  return as_value(out.finish());
}

template <int kSide>
Result<Value> pad(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const int64_t width, int_arg("center", args[0], 0));
  INFER_ASSIGN(const TextPtr fill, text_arg("center", args[1], " "));
  if (count_chars(fill->bytes) != 1)
    return make_error(ErrorCode::kInvalidArgument, "the fill character must be one character");
  return padded(in.budget(), *v.as_text(), width, fill->bytes, kSide);
}

Result<Value> zfill(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const int64_t width, int_arg("zfill", args[0], 0));
  const Text& text = *v.as_text();
  const bool sign = text.bytes.starts_with('-') || text.bytes.starts_with('+');
  const auto n = static_cast<int64_t>(count_chars(text.bytes));
  TextBuilder out(in.budget());
  if (sign) out.append(text, 0, 1);
  out.repeat({"0", {}}, static_cast<size_t>(std::max<int64_t>(width - n, 0)));
  out.append(text, sign ? 1 : 0, text.bytes.size());
  return as_value(out.finish());
}

constexpr MethodDef kMethods[] = {
    {"strip", {"chars"}, strip<true, true>},
    {"lstrip", {"chars"}, strip<true, false>},
    {"rstrip", {"chars"}, strip<false, true>},
    {"split", {"sep,maxsplit"}, split<false>},
    {"rsplit", {"sep,maxsplit"}, split<true>},
    {"splitlines", {"keepends"}, splitlines},
    {"partition", {"sep", 1}, partition<false>},
    {"rpartition", {"sep", 1}, partition<true>},
    {"replace", {"old,new,count", 2}, replace},
    {"upper", {}, cased<Case::kUpper>},
    {"lower", {}, cased<Case::kLower>},
    {"casefold", {}, cased<Case::kLower>},
    {"capitalize", {}, cased<Case::kCapitalize>},
    {"title", {}, cased<Case::kTitle>},
    {"swapcase", {}, cased<Case::kSwap>},
    {"removeprefix", {"prefix", 1}, remove_affix<true>},
    {"removesuffix", {"suffix", 1}, remove_affix<false>},
    {"join", {"iterable", 1}, join},
    {"center", {"width,fillchar", 1}, pad<0>},
    {"ljust", {"width,fillchar", 1}, pad<-1>},
    {"rjust", {"width,fillchar", 1}, pad<1>},
    {"zfill", {"width", 1}, zfill},
};

}  // namespace

std::span<const MethodDef> text_methods() { return kMethods; }

}  // namespace infer::text::jinja
