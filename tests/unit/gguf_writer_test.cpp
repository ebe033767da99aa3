#include "gguf/writer.h"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gguf/split.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/temp_folder.h"

namespace infer::test {
namespace {

namespace fs = std::filesystem;
using gguf::Reader;
using gguf::Writer;
using testing::HasSubstr;

class GgufFiles : public TempFolder {
 protected:
  static Bytes read(const std::string& path) {
    const std::string text = slurp(path);
    const auto bytes = std::as_bytes(std::span(text));
    return Bytes(bytes.begin(), bytes.end());
  }
  static void write(const std::string& path, const Bytes& bytes) {
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()),
              static_cast<std::streamsize>(bytes.size()));
    ASSERT_TRUE(out.good());
  }
};
class GgufWriter : public GgufFiles {};
class GgufShards : public GgufFiles {};

#define ASSERT_OK(expr)                                   \
  do {                                                    \
    const auto& result_ = (expr);                         \
    ASSERT_TRUE(result_.ok()) << result_.error().message; \
  } while (false)

/// Writes what a builder holds through the writer, in chunks of `chunk` bytes.
void write_with(Writer& out, const GgufBuilder& b, size_t chunk) {
  const Bytes bytes = b.bytes();
  const auto file = Reader::parse(bytes, "memory");
  ASSERT_OK(file);
  for (const gguf::KeyValue& kv : (*file)->kvs()) ASSERT_OK(out.add(kv));
  Bytes data;
  for (const gguf::TensorInfo& t : (*file)->tensors()) {
    ASSERT_OK(out.add_tensor(t.name, t.view.type,
                             std::span(t.view.ne).first(static_cast<size_t>(t.n_dims))));
    data.insert(data.end(), t.view.data, t.view.data + t.view.n_bytes);
  }
  ASSERT_OK(out.begin());
  for (size_t i = 0; i < data.size(); i += chunk) {
    ASSERT_OK(out.write(std::span(data).subspan(i, std::min(chunk, data.size() - i))));
  }
  ASSERT_OK(out.finish());
}

TEST_F(GgufWriter, WritesTheSameBytesInAnyChunks) {
  for (const uint32_t alignment : {1u, 32u, 256u}) {
    GgufBuilder b = good_gguf();
    b.alignment = alignment;
    b.set<uint32_t>("general.alignment", alignment);
    for (const size_t chunk : {1u, 7u, 1000000u}) {
      auto out = Writer::create(path("a.gguf"));
      ASSERT_OK(out);
      write_with(**out, b, chunk);
      EXPECT_EQ(read(path("a.gguf")), b.bytes())
          << "alignment " << alignment << ", chunk " << chunk;
      EXPECT_EQ((*out)->bytes_written(), static_cast<int64_t>(b.bytes().size()));
    }
  }
  EXPECT_EQ(n_files(), 1);
}

TEST_F(GgufWriter, TypedSettersEncodeAsTheFormatAsks) {
  auto out = Writer::create(path("a.gguf"));
  ASSERT_OK(out);
  Writer& w = **out;
  GgufBuilder b;
  ASSERT_OK(w.add<std::string_view>("s", "text"));
  ASSERT_OK(w.add<uint8_t>("u8", 1));
  ASSERT_OK(w.add<int16_t>("i16", -2));
  ASSERT_OK(w.add<uint32_t>("u32", 3));
  ASSERT_OK(w.add<int64_t>("i64", -4));
  ASSERT_OK(w.add<float>("f32", 0.5f));
  ASSERT_OK(w.add<double>("f64", 0.25));
  ASSERT_OK(w.add<bool>("bool", true));
  ASSERT_OK(w.add_array<int32_t>("ai32", std::vector<int32_t>{1, -1}));
  ASSERT_OK(w.add_array<float>("af32", std::vector<float>{1.5f}));
  ASSERT_OK(w.add_bools("abool", {true, false}));
  ASSERT_OK(w.add_strings("astr", std::vector<std::string_view>{"x", "", "yz"}));
  b.set_string("s", "text").set<uint8_t>("u8", 1).set<int16_t>("i16", -2).set<uint32_t>("u32", 3);
  b.set<int64_t>("i64", -4)
      .set<float>("f32", 0.5f)
      .set<double>("f64", 0.25)
      .set<bool>("bool", true);
  b.set_array<int32_t>("ai32", {1, -1})
      .set_array<float>("af32", {1.5f})
      .set_array<bool>("abool", {true, false});
  b.set_strings("astr", {"x", "", "yz"});
  ASSERT_OK(w.begin());
  ASSERT_OK(w.finish());
  EXPECT_EQ(read(path("a.gguf")), b.bytes());
}

TEST_F(GgufWriter, LeavesNothingBehindUnlessFinished) {
  write(path("a.gguf"), Bytes(3));
  {
    auto out = Writer::create(path("a.gguf"));
    ASSERT_OK(out);
    const int64_t shape[] = {4};
    ASSERT_OK((*out)->add_tensor("t", DType::kF32, shape));
    ASSERT_OK((*out)->begin());
    ASSERT_OK((*out)->write(Bytes(15)));
    const auto early = (*out)->finish();
    ASSERT_FALSE(early.ok());
    EXPECT_THAT(early.error().message, HasSubstr("tensor 't' has 15 of its 16 bytes"));
    const auto more = (*out)->write(Bytes(2));
    ASSERT_FALSE(more.ok());
    EXPECT_THAT(more.error().message, HasSubstr("1 bytes more"));
  }
  EXPECT_EQ(n_files(), 1);
  EXPECT_EQ(read(path("a.gguf")).size(), 3u);  // the old file is still there
}

TEST_F(GgufWriter, InPlaceInAnyOrderFromAnyThread) {
  const GgufBuilder b = good_gguf();
  const Bytes bytes = b.bytes();
  const auto file = *Reader::parse(bytes, "memory");
  auto out = Writer::create(path("a.gguf"));
  ASSERT_OK(out);
  for (const gguf::KeyValue& kv : file->kvs()) ASSERT_OK((*out)->add(kv));
  struct Piece {
    size_t tensor;
    int64_t at;
  };
  std::vector<Piece> pieces;
  for (size_t i = 0; i < file->tensors().size(); ++i) {
    const gguf::TensorInfo& t = file->tensors()[i];
    ASSERT_OK((*out)->add_tensor(t.name, t.view.type,
                                 std::span(t.view.ne).first(static_cast<size_t>(t.n_dims))));
    for (int64_t at = 0; at < t.view.n_bytes; at += 7) pieces.push_back({i, at});
  }
  EXPECT_FALSE((*out)->write_at(0, 0, {}).ok());
  ASSERT_OK((*out)->begin_in_place());
  EXPECT_EQ((*out)->bytes_written(), static_cast<int64_t>(bytes.size()));
  std::reverse(pieces.begin(), pieces.end());
  std::atomic<size_t> next{0};
  std::atomic<int> bad{0};
  const auto work = [&] {
    for (size_t i = next++; i + 1 < pieces.size(); i = next++) {
      const TensorView& v = file->tensors()[pieces[i].tensor].view;
      const auto n = static_cast<size_t>(std::min<int64_t>(7, v.n_bytes - pieces[i].at));
      if (!(*out)->write_at(pieces[i].tensor, pieces[i].at, {v.data + pieces[i].at, n}).ok()) ++bad;
    }
  };
  std::thread other(work);
  work();
  other.join();
  EXPECT_EQ(bad, 0);
  const auto early = (*out)->finish();  // the first seven bytes of the first tensor are missing
  ASSERT_FALSE(early.ok());
  EXPECT_THAT(early.error().message, HasSubstr("tensor 't.f32' has 13 of its 20 bytes"));
  EXPECT_FALSE((*out)->write_at(0, 14, Bytes(7)).ok());
  EXPECT_FALSE((*out)->write_at(0, -1, Bytes(1)).ok());
  EXPECT_FALSE((*out)->write_at(99, 0, {}).ok());
  ASSERT_OK((*out)->write_at(0, 0, {file->tensors()[0].view.data, 7}));
  ASSERT_OK((*out)->finish());
  EXPECT_EQ(read(path("a.gguf")), bytes);
  EXPECT_EQ(n_files(), 1);
}

TEST_F(GgufWriter, RemovesWhatDeadProcessesLeft) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);  // a number that no process has now
  const auto name = [](pid_t pid, std::string_view rest) {
    return "a.gguf." + std::to_string(pid) + std::string(rest);
  };
  const std::string dead = name(child, "-0.tmp");
  const std::vector<std::string> others = {name(getpid(), "-7.tmp"), name(child, "-0.tmp.gguf"),
                                           name(child, "-x.tmp"), "b" + dead, "a.gguf.tmp"};
  write(path(dead), Bytes(3));
  for (const std::string& other : others) write(path(other), Bytes(3));
  ASSERT_OK(Writer::create(path("a.gguf")));
  EXPECT_FALSE(fs::exists(path(dead)));
  for (const std::string& other : others) EXPECT_TRUE(fs::exists(path(other))) << other;
}

TEST_F(GgufWriter, RefusesWhatAFileCannotHold) {
  auto out = Writer::create(path("a.gguf"));
  ASSERT_OK(out);
  Writer& w = **out;
  const auto refused = [&](const Result<void>& r, std::string_view word) {
    ASSERT_FALSE(r.ok()) << word;
    EXPECT_EQ(r.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(r.error().message, HasSubstr(path("a.gguf")));
    EXPECT_THAT(r.error().message, HasSubstr(std::string(word)));
  };
  const int64_t ok[] = {32}, part[] = {33}, zero[] = {32, 0}, minus[] = {-32},
                five[] = {1, 1, 1, 1, 1};
  const int64_t huge[] = {int64_t{1} << 32, int64_t{1} << 32}, bytes[] = {int64_t{1} << 62};
  ASSERT_OK(w.add<uint32_t>("k", 1));
  ASSERT_OK(w.add_tensor("t", DType::kQ4_0, ok));
  refused(w.add<uint32_t>("k", 2), "key 'k' is added twice");
  refused(w.add<uint32_t>("", 2), "0 bytes");
  refused(w.add<uint32_t>(std::string(65536, 'k'), 2), "65536 bytes");
  refused(w.add<uint64_t>("general.alignment", 32), "u32");
  refused(w.add<uint32_t>("general.alignment", 3), "= 3");
  refused(w.add_tensor("t", DType::kF32, ok), "tensor 't' is added twice");
  refused(w.add_tensor(std::string(64, 'n'), DType::kF32, ok), "63 bytes");
  refused(w.add_tensor("", DType::kF32, ok), "tensor ''");
  refused(w.add_tensor("p", DType::kQ4_0, part), "rows of 33");
  refused(w.add_tensor("z", DType::kF32, zero), "dimension 0");
  refused(w.add_tensor("m", DType::kF32, minus), "dimension -32");
  refused(w.add_tensor("f", DType::kF32, five), "5 dimensions");
  refused(w.add_tensor("n", DType::kF32, {}), "0 dimensions");
  refused(w.add_tensor("h", DType::kF32, huge), "tensor 'h'");
  refused(w.add_tensor("b", DType::kF64, bytes), "tensor 'b'");
  refused(w.write(Bytes(1)), "before begin()");
  refused(w.finish(), "before begin()");
  ASSERT_OK(w.begin());
  refused(w.begin(), "twice");
  refused(w.add<uint32_t>("late", 1), "'late'");
  refused(w.add_tensor("late", DType::kF32, ok), "'late'");
}

TEST_F(GgufWriter, NamesTheFileWhenTheSystemRefuses) {
  const auto no_folder = Writer::create(path("none/a.gguf"));
  ASSERT_FALSE(no_folder.ok());
  EXPECT_EQ(no_folder.error().code, ErrorCode::kIo);
  EXPECT_THAT(no_folder.error().message, HasSubstr(path("none/a.gguf")));

  for (const char* device : {"/dev/null", "/tmp"}) {  // no device and no folder is ever replaced
    fs::create_symlink(device, path("link"));
    EXPECT_FALSE(Writer::create(path("link")).ok()) << device;
    EXPECT_TRUE(fs::is_symlink(path("link"))) << device;
    fs::remove(path("link"));
  }

  // A limit on the size of files stands in for a full disk.
  auto out = Writer::create(path("a.gguf"));
  ASSERT_OK(out);
  const int64_t shape[] = {100000};
  ASSERT_OK((*out)->add_tensor("t", DType::kF32, shape));
  ASSERT_OK((*out)->begin());
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{65536, old.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto full = (*out)->write(Bytes(400000));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
  std::signal(SIGXFSZ, old_handler);
  ASSERT_FALSE(full.ok());
  EXPECT_EQ(full.error().code, ErrorCode::kIo);
  EXPECT_THAT(full.error().message, HasSubstr(path("a.gguf") + ": cannot write: "));
  EXPECT_FALSE((*out)->finish().ok());
  EXPECT_EQ(n_files(), 0);  // the temporary file went at once
}

TEST_F(GgufFiles, ReadsWithAndWithoutMmap) {
  for (const uint32_t alignment : {1u, 32u, 8192u}) {
    GgufBuilder b = good_gguf();
    b.alignment = alignment;
    b.set<uint32_t>("general.alignment", alignment);
    write(path("a.gguf"), b.bytes());
    uint64_t sums[2] = {};
    for (const bool use_mmap : {false, true}) {
      const auto file = Reader::open(path("a.gguf"), {.use_mmap = use_mmap});
      ASSERT_OK(file);
      EXPECT_EQ((*file)->is_mmapped(), use_mmap);
      EXPECT_EQ((*file)->path(), path("a.gguf"));
      sums[use_mmap] = touch_everything(**file);
      for (const gguf::TensorInfo& t : (*file)->tensors()) (*file)->release_pages(t);
      EXPECT_EQ(touch_everything(**file), sums[use_mmap]);  // released pages come back
    }
    EXPECT_EQ(sums[0], sums[1]);
  }
}

TEST_F(GgufFiles, RefusesWhatIsNoFile) {
  const auto refused = [](const std::string& p, ErrorCode code, std::string_view word) {
    const auto r = Reader::open(p);
    ASSERT_FALSE(r.ok());
    EXPECT_EQ(r.error().code, code) << r.error().message;
    EXPECT_THAT(r.error().message, HasSubstr(p + ": "));
    EXPECT_THAT(r.error().message, HasSubstr(std::string(word)));
  };
  refused(path("none.gguf"), ErrorCode::kNotFound, "cannot open");
  refused(folder_.string(), ErrorCode::kIo, "folder");
  refused("/dev/zero", ErrorCode::kIo, "regular");
  write(path("empty.gguf"), {});
  refused(path("empty.gguf"), ErrorCode::kCorrupt, "ends inside the magic");
}

void make_shards(const GgufBuilder& b, const std::string& prefix, int64_t max_tensors) {
  const Bytes bytes = b.bytes();
  const auto file = Reader::parse(bytes, "memory");
  ASSERT_OK(file);
  ASSERT_OK(gguf::write_split(**file, prefix, {.max_tensors = max_tensors}));
}

TEST_F(GgufShards, SplitAndMergeGiveBackTheFile) {
  for (const uint32_t alignment : {32u, 64u}) {
    GgufBuilder b = good_gguf();
    b.alignment = alignment;
    b.set<uint32_t>("general.alignment", alignment);
    make_shards(b, path("s"), 2);
    EXPECT_EQ(n_files(), 3);
    for (const bool use_mmap : {false, true}) {
      const auto file = Reader::open(path("s-00001-of-00003.gguf"), {.use_mmap = use_mmap});
      ASSERT_OK(file);
      EXPECT_EQ((*file)->n_shards(), 3);
      ASSERT_EQ((*file)->tensors().size(), 5u);
      EXPECT_EQ((*file)->tensors()[4].shard, 2);
      EXPECT_EQ(*(*file)->get_int("split.count"), 3);
      EXPECT_EQ((*file)->find("split.tensors.count")->type(), gguf::ValueType::kI32);
      touch_everything(**file);
      ASSERT_OK(gguf::write_merged(**file, path("m.gguf")));
    }
    EXPECT_EQ(read(path("m.gguf")), b.bytes());
    fs::remove(path("m.gguf"));
  }
}

TEST_F(GgufShards, SplitsBySizeAndKeepsLargeTensorsWhole) {
  const GgufBuilder b = good_gguf();  // padded: 32, 32, 160, 448, 32
  const Bytes bytes = b.bytes();
  const auto file = Reader::parse(bytes, "memory");
  ASSERT_OK(file);
  const auto n = gguf::write_split(**file, path("s"), {.max_bytes = 64});
  ASSERT_OK(n);
  EXPECT_EQ(*n, 4);  // 32 + 32, 160, 448, 32
  ASSERT_OK(Reader::open(path("s-00001-of-00004.gguf")));
  const auto each = gguf::write_split(**file, path("e"), {.max_bytes = 1});
  ASSERT_OK(each);
  EXPECT_EQ(*each, 5);  // no file without a tensor, not even the first
}

TEST_F(GgufShards, AnotherShardNamesTheFirst) {
  make_shards(good_gguf(), path("s"), 2);
  const auto second = Reader::open(path("s-00002-of-00003.gguf"));
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(second.error().message, HasSubstr(path("s-00001-of-00003.gguf")));
  const auto alone = Reader::open(path("s-00002-of-00003.gguf"), {.all_shards = false});
  ASSERT_OK(alone);
  EXPECT_EQ((*alone)->tensors().size(), 2u);
}

TEST_F(GgufShards, WrongSetsAreRefused) {
  const std::string first = path("s-00001-of-00003.gguf"), third = path("s-00003-of-00003.gguf");
  const auto refused = [&](const std::string& file, std::string_view word) {
    const auto r = Reader::open(file);
    ASSERT_FALSE(r.ok()) << word;
    EXPECT_EQ(r.error().message.find('\n'), std::string::npos);
    EXPECT_THAT(r.error().message, HasSubstr(std::string(word)));
  };
  make_shards(good_gguf(), path("s"), 2);
  const Bytes good_third = read(third);
  fs::remove(third);
  refused(first, third + ": cannot open");

  write(third, read(path("s-00002-of-00003.gguf")));
  refused(first, third + ": split.no = 1");

  const auto rewrite_third = [&](auto&& change) {
    GgufBuilder b;
    b.set<uint16_t>("split.no", 2)
        .set<uint16_t>("split.count", 3)
        .set<int32_t>("split.tensors.count", 5);
    b.add_tensor("t.i8", DType::kI8, {7});
    change(b);
    write(third, b.bytes());
  };
  rewrite_third([](auto&) {});
  ASSERT_OK(Reader::open(first));
  rewrite_third([](auto& b) { b.template set<uint16_t>("split.count", 4); });
  refused(first, "split.count = 4");
  rewrite_third([](auto& b) { b.template set<int32_t>("split.tensors.count", 6); });
  refused(first, "split.tensors.count = 6");
  rewrite_third([](auto& b) { b.remove("split.count"); });
  refused(first, "'split.count' is missing");
  rewrite_third([](auto& b) { b.remove("split.no").remove("split.count"); });
  refused(first, "split.count = 0");
  rewrite_third([](auto& b) { b.tensors[0].name = "t.f16"; });
  refused(first, "tensor name 't.f16'");
  rewrite_third([](auto& b) { b.add_tensor("extra", DType::kI8, {1}); });
  refused(first, "hold 6 tensors");
  rewrite_third([](auto& b) { b.template set<uint16_t>("split.no", 3); });
  refused(first, "'split.no' is u16 3");
  rewrite_third([](auto& b) { b.set_string("split.no", "2"); });
  refused(first, "'split.no' is str '2'");
  write(third, good_third);
  ASSERT_OK(Reader::open(first));

  fs::rename(first, path("renamed.gguf"));
  refused(path("renamed.gguf"), "-00001-of-00003.gguf");
}

}  // namespace
}  // namespace infer::test
