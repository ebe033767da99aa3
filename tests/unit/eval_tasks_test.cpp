#include <cstring>
#include <set>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/eval/choice_task.h"

/// Task files in all their forms, good and hostile.
namespace infer::eval {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Tasks = std::vector<ChoiceTask>;

ChoiceTask sky() {
  ChoiceTask t;
  t.question = "The sky is";
  t.single = {{"blue", "a \"fish\",\nno"}, {1, 0}};
  return t;
}
Tasks two_tasks() {
  ChoiceTask several = sky();
  several.multiple = {{"grey", "red", "blue"}, {1, 0, 1}};
  return {sky(), several};
}
std::string error_of(const Result<Tasks>& r) {
  EXPECT_FALSE(r.ok());
  return r.ok() ? "" : r.error().message;
}
void put(std::string* bytes, size_t at, uint32_t value) {
  std::memcpy(bytes->data() + at, &value, sizeof(value));
}

/// Bytes by hand, after llama.cpp's reader.
TEST(EvalTasks, BinaryLayout) {
  ChoiceTask t;
  t.question = "Q";
  t.single = {{"a", "bc"}, {0, 1}};
  const std::string expected(
      "\1\0\0\0"
      "\10\0\0\0"
      "\1\0\0\0Q"
      "\2\0\0\0"
      "\1\0\0\0a"
      "\2\0\0\0bc"
      "\0\0\0\0"
      "\1\0\0\0"
      "\0\0\0\0",
      8 + 5 + 4 + 5 + 6 + 8 + 4);
  EXPECT_EQ(*write_binary_tasks({t}), expected);
  EXPECT_EQ(*parse_binary_tasks(expected, "f"), Tasks{t});
}

TEST(EvalTasks, EveryFormGivesTheTasksBack) {
  const Tasks tasks = two_tasks();
  EXPECT_EQ(*parse_binary_tasks(*write_binary_tasks(tasks), "f"), tasks);
  const std::string lines = *write_json_tasks(tasks);
  EXPECT_EQ(*parse_json_tasks(lines, "f"), tasks);
  std::string list = "[" + lines + "]";
  list[list.find('\n')] = ',';
  EXPECT_EQ(*parse_json_tasks(list, "f"), tasks);
  const auto csv = parse_csv_tasks("The sky is,blue,\"a \"\"fish\"\",\nno\",A\r\n", "", "f");
  EXPECT_EQ(*csv, Tasks{sky()});
  const auto named =
      parse_csv_tasks("question,choice0,choice1,answer\nThe sky is,blue,red,0\n", "weather", "f");
  ASSERT_TRUE(named.ok());
  EXPECT_EQ(named->at(0).subject, "weather");
  EXPECT_EQ(right_answer(named->at(0)), 0);
}

TEST(EvalTasks, JsonOfMmlu) {
  const auto tasks = parse_json_tasks(
      R"({"subject": "s", "question": "Q", "choices": ["a", "b", "c", "d"], "answer": 2})"
      "\n\n"
      R"({"question": "R", "choices": ["a", "b"], "answer": "B"})",
      "f");
  ASSERT_TRUE(tasks.ok()) << tasks.error().message;
  EXPECT_EQ(tasks->at(0).subject, "s");
  EXPECT_THAT(tasks->at(0).single.labels, ElementsAre(0, 0, 1, 0));
  EXPECT_EQ(right_answer(tasks->at(1)), 1);
}

TEST(EvalTasks, HostileBinaryFiles) {
  const std::string good = *write_binary_tasks(two_tasks());
  for (size_t n = 0; n < good.size(); ++n)
    EXPECT_THAT(error_of(parse_binary_tasks(good.substr(0, n), "f.bin")), HasSubstr("f.bin: "));
  const auto with = [&](size_t at, uint32_t value) {
    std::string bytes = good;
    put(&bytes, at, value);
    return error_of(parse_binary_tasks(bytes, "f.bin"));
  };
  EXPECT_THAT(with(0, 0), HasSubstr("has no tasks"));
  EXPECT_THAT(with(0, 0xffffffff), HasSubstr("cannot hold 4294967295 tasks"));
  EXPECT_THAT(with(4, 3), HasSubstr("task 1 is at 3, not in 12.."));
  EXPECT_THAT(with(8, 0xfffffff0), HasSubstr("task 2 is at 4294967280"));
  uint32_t second = 0;
  std::memcpy(&second, good.data() + 8, sizeof(second));
  EXPECT_THAT(with(4, second), HasSubstr("task 2 overlaps another"));
  EXPECT_THAT(with(12, 0xffffffff), HasSubstr("task 1: the question of 4294967295 bytes"));
  EXPECT_THAT(with(12 + 4 + 10, 101), HasSubstr("task 1: the number of answers = 101"));
}

TEST(EvalTasks, WrongTextFilesAreNamed) {
  const auto json = [](std::string_view text) {
    return error_of(parse_json_tasks(text, "f.json"));
  };
  EXPECT_THAT(json("{\"question\": \"Q\"}\n{"), HasSubstr("f.json: task 1: has neither"));
  EXPECT_THAT(json("\n{"), HasSubstr("f.json: line 2 is not JSON"));
  EXPECT_THAT(json("[1, 2"), HasSubstr("f.json: is not JSON"));
  EXPECT_THAT(json("7"), HasSubstr("task 1: is no JSON object"));
  EXPECT_THAT(json(R"({"question": "Q", "choices": ["a", "b"], "answer": 2})"),
              HasSubstr("key 'answer' = 2, of 2 choices"));
  const size_t deep = 1000000;
  EXPECT_THAT(json(R"({"question": "Q", "choices": ["a", "b"], "answer": )" +
                   std::string(deep, '[') + std::string(deep, ']') + "}"),
              HasSubstr("key 'answer' is neither a letter nor a number"));
  EXPECT_THAT(json(R"({"question": "Q", "choices": ["a", 1], "answer": 0})"),
              HasSubstr("an entry that is no text"));
  EXPECT_THAT(
      json(R"({"question": "Q", "single_correct": {"answers": ["a", "b"], "labels": [1]}})"),
      HasSubstr("not as many labels as answers"));
  EXPECT_THAT(error_of(parse_csv_tasks("a,b\n", "", "f.csv")), HasSubstr("f.csv: row 1 has 2"));
  EXPECT_THAT(error_of(parse_csv_tasks("q,a,b,C\n", "", "f.csv")),
              HasSubstr("row 1: right answer 'C' of 2"));
}

TEST(EvalTasks, TasksThatCannotBeScoredAreNamed) {
  const auto problem = [](auto change) {
    Tasks tasks = two_tasks();
    change(tasks[1]);
    const auto checked = check_tasks(tasks, "f");
    return checked.ok() ? "ok" : checked.error().message;
  };
  EXPECT_EQ(problem([](ChoiceTask&) {}), "ok");
  EXPECT_THAT(problem([](ChoiceTask& t) { t.question.clear(); }),
              HasSubstr("f: task 2: the quest"));
  EXPECT_THAT(problem([](ChoiceTask& t) { t.single.texts[1].clear(); }), HasSubstr("answer 2 is"));
  EXPECT_THAT(problem([](ChoiceTask& t) { t.single = {{"a"}, {1}}; }), HasSubstr("fewer than two"));
  EXPECT_THAT(problem([](ChoiceTask& t) { t.subject = std::string(100000, 's'); }),
              HasSubstr("f: task 2: a subject of 100000 bytes"));
  EXPECT_THAT(problem([](ChoiceTask& t) {
                t.multiple = {std::vector<std::string>(101, "a"), std::vector<int32_t>(101, 1)};
              }),
              HasSubstr("101 answers, above 100"));
  EXPECT_THAT(problem([](ChoiceTask& t) {
                t.single.labels = {1, 7};
              }),
              HasSubstr("label 7 is neither 0 nor 1"));
  EXPECT_THAT(problem([](ChoiceTask& t) {
                t.single.labels = {0, 0};
              }),
              HasSubstr("labelled right"));
}

/// The first of 14,042 that mt19937(1) takes: computed with llama.cpp's loop.
TEST(EvalTasks, SelectionIsThePeers) {
  EXPECT_THAT(select_tasks(3, 0), ElementsAre(0, 1, 2));
  EXPECT_THAT(select_tasks(3, 5), ElementsAre(0, 1, 2));
  EXPECT_THAT(select_tasks(14042, 3), ElementsAre(5855, 14001, 10113));
  const auto some = select_tasks(1000, 600);
  EXPECT_EQ(std::set<int64_t>(some.begin(), some.end()).size(), 600u);
  const auto all = select_hellaswag_tasks(10042, 10042);
  EXPECT_EQ(std::set<int64_t>(all.begin(), all.end()).size(), 10042u);
}

TEST(EvalTasks, Hellaswag) {
  const auto tasks = parse_hellaswag("ctx\n2\na\nb\nc\nd\nother\n0\ne\nf\ng\nh\n", "f");
  ASSERT_TRUE(tasks.ok());
  ASSERT_EQ(tasks->size(), 2u);
  EXPECT_EQ(tasks->at(0).question, "ctx");
  EXPECT_EQ(right_answer(tasks->at(0)), 2);
  EXPECT_THAT(error_of(parse_hellaswag("ctx\n2\na\nb\nc\n", "f")), HasSubstr("5 lines"));
  EXPECT_THAT(error_of(parse_hellaswag("ctx\n4\na\nb\nc\nd\n", "f")),
              HasSubstr("line 2: label '4'"));
}

TEST(EvalTasks, WinograndeRows) {
  const auto tasks = parse_winogrande(
      "0,Sarah was better than Maria so _ got the easier cases.,Sarah,Maria,2\n"
      "1,\"Yes, _ did.\",Ann,Bob,1\n",
      "f");
  ASSERT_TRUE(tasks.ok()) << tasks.error().message;
  EXPECT_EQ(tasks->at(0).before, "Sarah was better than Maria so ");
  EXPECT_EQ(tasks->at(0).after, " got the easier cases.");
  EXPECT_EQ(tasks->at(0).words[1], "Maria");
  EXPECT_EQ(tasks->at(0).answer, 1);
  EXPECT_EQ(tasks->at(1).before, "Yes, ");
  for (const char* bad : {"0,no gap,a,b,1\n", "0,a _ b,a,b\n", "0,a _ b,a,b,3\n", "\n"})
    EXPECT_FALSE(parse_winogrande(bad, "f").ok()) << bad;
}

}  // namespace
}  // namespace infer::eval
