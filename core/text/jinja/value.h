#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "core/text/jinja/text_value.h"

/// Values of the template language, with Python's meaning. Immutable, except for the attributes of
/// a namespace.
namespace infer::text::jinja {

class Value;
struct List;
class Dict;
using ListPtr = std::shared_ptr<const List>;
using DictPtr = std::shared_ptr<const Dict>;

/// A thing with methods of its own: namespace, loop, macro, function, bound method. Those that can
/// hold themselves are owned by the interpreter and must not be owned by values.
struct Object {
  enum class Kind : uint8_t { kNamespace, kLoop, kMacro, kFunction, kMethod };
  explicit Object(Kind k) : kind(k) {}
  virtual ~Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  const Kind kind;
};
using ObjectPtr = std::shared_ptr<Object>;
/// A reference that owns nothing.
inline ObjectPtr unowned(Object* object) { return ObjectPtr(std::shared_ptr<void>(), object); }

class Value {
 public:
  enum class Kind : uint8_t {
    kUndefined,
    kNone,
    kBool,
    kInt,
    kFloat,
    kText,
    kList,
    kDict,
    kObject
  };

  Value() = default;                        ///< undefined, without a reason
  Value(bool b) : v_(b) {}                  // NOLINT: implicit by design
  Value(int64_t i) : v_(i) {}               // NOLINT
  Value(double d) : v_(d) {}                // NOLINT
  Value(TextPtr t) : v_(std::move(t)) {}    // NOLINT
  Value(ListPtr l) : v_(std::move(l)) {}    // NOLINT
  Value(DictPtr d) : v_(std::move(d)) {}    // NOLINT
  Value(ObjectPtr o) : v_(std::move(o)) {}  // NOLINT
  template <class T>
  Value(T*) = delete;
  static Value none() {
    Value v;
    v.v_ = std::monostate();
    return v;
  }
  static Value undefined(std::string why) {
    Value v;
    v.v_ = std::make_shared<const std::string>(std::move(why));
    return v;
  }
  static Value text(std::string bytes) { return Value(make_text(std::move(bytes))); }

  Kind kind() const { return static_cast<Kind>(v_.index()); }
  bool is(Kind k) const { return kind() == k; }
  bool is_undefined() const { return is(Kind::kUndefined); }
  bool is_none() const { return is(Kind::kNone); }
  bool is_text() const { return is(Kind::kText); }
  /// int and bool, which is an int in Python.
  bool is_int() const { return is(Kind::kInt) || is(Kind::kBool); }
  bool is_number() const { return is_int() || is(Kind::kFloat); }

  bool as_bool() const { return std::get<bool>(v_); }
  int64_t as_int() const { return is(Kind::kBool) ? as_bool() : std::get<int64_t>(v_); }
  double as_double() const {
    return is(Kind::kFloat) ? std::get<double>(v_) : static_cast<double>(as_int());
  }
  const TextPtr& as_text() const { return std::get<TextPtr>(v_); }
  std::string_view bytes() const { return as_text()->bytes; }
  const ListPtr& as_list() const { return std::get<ListPtr>(v_); }
  const DictPtr& as_dict() const { return std::get<DictPtr>(v_); }
  const ObjectPtr& as_object() const { return std::get<ObjectPtr>(v_); }
  /// Why it is undefined.
  std::string_view reason() const;

 private:
  using Reason = std::shared_ptr<const std::string>;
  std::variant<Reason, std::monostate, bool, int64_t, double, TextPtr, ListPtr, DictPtr, ObjectPtr>
      v_;
};

/// Everything that has items in an order; what Python would make of it decides how it prints,
/// whether it can be indexed and when it is true.
enum class ListKind : uint8_t { kList, kTuple, kRange, kGenerator, kKeys, kValues, kItems };

struct List {
  ListKind kind = ListKind::kList;
  int depth = 1;
  std::vector<Value> items;
  int64_t first = 0, stop = 0, step = 1;  ///< kRange: as it prints
  /// Whether it has a length and an order of positions.
  bool is_sequence() const {
    return kind == ListKind::kList || kind == ListKind::kTuple || kind == ListKind::kRange;
  }
};

/// Keys keep the order in which they came first.
class Dict {
 public:
  const std::vector<std::pair<Value, Value>>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  const Value* find(std::string_view key) const;
  /// nullptr when it is missing, or no value that can be a key.
  const Value* find(const Value& key) const;
  int depth() const { return depth_; }

 private:
  friend class DictBuilder;
  int64_t index_of(std::string_view canonical) const;
  std::vector<std::pair<Value, Value>> entries_;
  std::unordered_map<std::string, size_t> index_;  ///< by canonical key
  int depth_ = 1;
};

class DictBuilder {
 public:
  explicit DictBuilder(Budget& budget) : budget_(budget), dict_(std::make_shared<Dict>()) {}
  /// Errors: a key that cannot be one.
  Result<void> set(const Value& key, Value value);
  Result<Value> finish();
  size_t size() const { return dict_->size(); }

 private:
  Budget& budget_;
  std::shared_ptr<Dict> dict_;
};

Result<Value> make_list(Budget& budget, std::vector<Value> items, ListKind kind = ListKind::kList);

/// "str", "int", "list", ... as Python names it in messages.
std::string_view type_name(const Value& v);
bool is_true(const Value& v);
/// The error of using an undefined value.
Error undefined_error(const Value& v);

Result<bool> equal(Budget& budget, const Value& a, const Value& b);
/// `op` is for the message ("<"). Unordered for NaN. Errors: types without an order.
Result<std::partial_ordering> order(Budget& budget, const Value& a, const Value& b,
                                    std::string_view op);
/// `a in b`.
Result<bool> contains(Budget& budget, const Value& item, const Value& in);

/// The items that `for` sees: of a list, keys of a dict, characters of a text, nothing of
/// undefined.
Result<ListPtr> items_of(Budget& budget, const Value& v);
/// Errors: what has no length.
Result<int64_t> length_of(Budget& budget, const Value& v);

/// str(v) and repr(v).
Result<TextPtr> to_text(Budget& budget, const Value& v);
Result<TextPtr> to_repr(Budget& budget, const Value& v);
void append_repr(Budget& budget, TextBuilder& out, const Value& v, int depth);
std::string float_repr(double d);

}  // namespace infer::text::jinja
