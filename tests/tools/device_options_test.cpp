#include "tools/common/device_options.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <CLI/CLI.hpp>

namespace infer::tools {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

struct Parsed {
  int code = 0;
  DeviceOptions options;
  std::string out, err;
};

Parsed parse(const std::vector<std::string>& args) {
  Parsed parsed;
  CLI::App app("", "test");
  add_device_options(app, &parsed.options);
  std::vector<std::string> words{"test"};
  words.insert(words.end(), args.begin(), args.end());
  std::vector<char*> argv;
  for (std::string& w : words) argv.push_back(w.data());
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  parsed.code =
      parse_args(app, normalise_args(static_cast<int>(argv.size()), argv.data(), device_aliases()));
  parsed.out = testing::internal::GetCapturedStdout();
  parsed.err = testing::internal::GetCapturedStderr();
  return parsed;
}

struct Applied {
  EngineOptions engine;
  BackendOptions backend;
  std::string error;
};

Applied apply(const std::vector<std::string>& args) {
  const Parsed parsed = parse(args);
  EXPECT_EQ(parsed.code, -1) << parsed.err;
  Applied a;
  const Result<void> done = apply_device_options(parsed.options, &a.engine, &a.backend);
  if (!done.ok()) {
    EXPECT_EQ(done.error().code, ErrorCode::kInvalidArgument);
    a.error = done.error().message;
  }
  return a;
}

TEST(DeviceOptions, DefaultIsAutoOnEverything) {
  const Applied a = apply({});
  EXPECT_EQ(a.engine.n_gpu_layers, kGpuLayersAuto);
  EXPECT_THAT(a.engine.tensor_split, IsEmpty());
  EXPECT_TRUE(a.backend.gpus);
  EXPECT_THAT(a.backend.devices, IsEmpty());
}

TEST(DeviceOptions, SpellingsAreLlamaCpps) {
  for (const char* flag : {"-ngl", "--gpu-layers", "--n-gpu-layers"}) {
    EXPECT_EQ(apply({flag, "7"}).engine.n_gpu_layers, 7);
    EXPECT_EQ(apply({flag, "all"}).engine.n_gpu_layers, kGpuLayersAll);
    EXPECT_EQ(apply({flag, "auto"}).engine.n_gpu_layers, kGpuLayersAuto);
  }
  EXPECT_THAT(apply({"-ts", "3,1"}).engine.tensor_split, ElementsAre(3.0f, 1.0f));
  EXPECT_THAT(apply({"--tensor-split", "0.5/0/2"}).engine.tensor_split,
              ElementsAre(0.5f, 0.0f, 2.0f));
  EXPECT_THAT(apply({"-dev", "cuda:1,cuda:0"}).backend.devices, ElementsAre("cuda:1", "cuda:0"));
}

TEST(DeviceOptions, WithoutGpuLayersNoDriverIsOpened) {
  EXPECT_FALSE(apply({"-ngl", "0"}).backend.gpus);
  EXPECT_FALSE(apply({"--device", "none"}).backend.gpus);
  EXPECT_TRUE(apply({"-ngl", "1"}).backend.gpus);
  EXPECT_TRUE(apply({"-ngl", "0", "--device", "cuda:0"}).backend.gpus);  // is it there?
}

TEST(DeviceOptions, WrongOnesAreNamed) {
  for (const char* wrong : {"-1", "7x", "", "99999999999", "ALL", "1.5"})
    EXPECT_EQ(apply({"--gpu-layers", wrong}).error,
              std::string("-ngl ") + wrong + ": a number of layers, auto or all");
  for (const char* wrong : {"3,", ",", "a", "1,-1", "nan", "inf", "3;1"})
    EXPECT_THAT(apply({"-ts", wrong}).error,
                HasSubstr(std::string("--tensor-split ") + wrong + ": "));
  EXPECT_EQ(apply({"-ts", "0,0"}).error, "--tensor-split 0,0: all shares are 0");
}

TEST(DeviceOptions, WarnsWhereAGpuWasAskedFor) {
  const auto line = [](const std::vector<std::string>& args, const GpuAbsence& absence) {
    return no_gpu_warning(parse(args).options, absence);
  };
  const GpuAbsence none{.why = "no CUDA device", .built = true, .failed = false, .left_out = {}};
  const GpuAbsence failed{
      .why = "the driver is too old", .built = true, .failed = true, .left_out = {}};
  EXPECT_EQ(line({}, {}), "");
  EXPECT_EQ(line({"-ngl", "7"}, {}), "");  // there is one
  EXPECT_EQ(line({}, none), "");
  EXPECT_EQ(line({"-ngl", "0"}, {}), "");
  EXPECT_EQ(line({"-ngl", "7"}, none),
            "-ngl 7: no GPU (no CUDA device); everything runs on the CPU");
  EXPECT_EQ(line({"-ngl", "all"}, none),
            "-ngl all: no GPU (no CUDA device); everything runs on the CPU");
  EXPECT_EQ(line({"-ts", "3,1"}, none),
            "--tensor-split 3,1: no GPU (no CUDA device); everything runs on the CPU");
  EXPECT_EQ(line({}, failed), "no GPU (the driver is too old); everything runs on the CPU");
  const auto note = [](const std::vector<std::string>& args, const GpuAbsence& absence) {
    return no_gpu_note(parse(args).options, absence);
  };
  EXPECT_EQ(note({}, none), "no GPU (no CUDA device): everything runs on the CPU");
  EXPECT_EQ(note({"-ngl", "7"}, none), "");  // one line is enough
  EXPECT_EQ(note({}, failed), "");
  EXPECT_EQ(
      note({}, {.why = "built without CUDA", .built = false, .failed = false, .left_out = {}}), "");
  EXPECT_EQ(note({}, {}), "");
  EXPECT_EQ(line({"--device", "none"}, {}), "");
  EXPECT_EQ(line({"--device", "none", "-ngl", "7"}, {}),
            "-ngl 7: --device none; everything runs on the CPU");
}

TEST(DeviceOptions, WarnsWhereAGpuCannotHelp) {
  const auto line = [](const std::vector<std::string>& args) {
    return tap_warning(parse(args).options);
  };
  const std::string why = ": importance matrices are collected on the CPU, no GPU takes part";
  EXPECT_EQ(line({}), "");
  EXPECT_EQ(line({"-ngl", "0"}), "");
  EXPECT_EQ(line({"-ngl", "7", "--device", "none"}), "");
  EXPECT_EQ(line({"-ngl", "7"}), "-ngl 7" + why);
  EXPECT_EQ(line({"-dev", "cuda:0"}), "--device cuda:0" + why);
}

TEST(DeviceOptions, ListsDevicesAndLeaves) {
  const Parsed got = parse({"--list-devices"});
  EXPECT_EQ(got.code, 0);
  EXPECT_EQ(got.err, "");
  EXPECT_THAT(got.out, HasSubstr("cpu: "));
  const auto backends = make_backends({});
  ASSERT_TRUE(backends.ok());
  if (backends->size() == 1) {
    EXPECT_THAT(got.out, HasSubstr("\nno GPU: "));
  }
}

TEST(DeviceOptions, DevicesThatThereAreNotAreErrors) {
  const auto error = [](std::vector<std::string> devices) {
    BackendOptions o;
    o.devices = std::move(devices);
    const auto backends = make_backends(o);
    if (backends.ok()) return std::string("made");
    EXPECT_EQ(backends.error().code, ErrorCode::kInvalidArgument);
    return backends.error().message;
  };
  EXPECT_THAT(error({"gpu"}), HasSubstr("device 'gpu': devices are called cuda:0"));
  for (const char* name : {"", "cuda", "cuda:", "cuda:x", "cuda:-1", "cuda:0x", "cpu"})
    EXPECT_THAT(error({name}), HasSubstr("devices are called"));
  EXPECT_THAT(error({"cuda:0", "CUDA0"}), HasSubstr("device 'CUDA0' is named twice"));
  EXPECT_NE(error({"cuda:77"}), "made");
}

TEST(DeviceOptions, TheCpuIsTheLastBackend) {
  GpuAbsence absence;
  const auto backends = make_backends({}, &absence);
  ASSERT_TRUE(backends.ok());
  EXPECT_EQ(backends->back()->describe().name, "cpu");
  EXPECT_FALSE(backends->back()->describe().is_gpu);
  EXPECT_EQ(backends->size() == 1, !absence.why.empty());
  BackendOptions off;
  off.gpus = false;
  const auto alone = make_backends(off);
  ASSERT_TRUE(alone.ok());
  EXPECT_EQ(alone->size(), 1u);
}

}  // namespace
}  // namespace infer::tools
