#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/text/unicode.h"
#include "tests/support/hf_tokenizer_case.h"

namespace infer::test {
namespace {

using nlohmann::json;
using quantize::HfTokenizerFiles;
using testing::ElementsAre;
using testing::HasSubstr;
using text::TokenId;
using text::TokenKind;

/// Byte-level BPE of 256 letters, "he" and "<s>", "</s>" as control tokens.
json small_bpe() {
  json vocab = json::object();
  for (int b = 0; b < 256; ++b) {
    std::string letter;
    text::append_utf8(letter, text::byte_to_stand_in(static_cast<uint8_t>(b)));
    vocab[letter] = b;
  }
  vocab["he"] = 256;
  const auto special = [](int id, const char* content) {
    return json{{"id", id}, {"content", content}, {"special", true}};
  };
  return {{"added_tokens", {special(257, "<s>"), special(258, "</s>")}},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"h e"}}}}};
}

HfTokenizerFiles folder_of(const json& tokenizer, const json& config = nullptr) {
  HfTokenizerFiles files{.folder = "dir", .tokenizer_json = tokenizer.dump()};
  if (!config.is_null()) files.tokenizer_config = config.dump();
  return files;
}

/// tests/data/hf_folders.json: folders and the ids that transformers gives.
json stored_folders(const char* what) {
  const auto body = read_text("tests/data/hf_folders.json");
  EXPECT_TRUE(body.ok());
  return body.ok() ? json::parse(*body).at(what) : json::array();
}

/// tokenizer.json files and the ids that `tokenizers` gives (tests/data/make_hf_tokenizer.py).
TEST(HfTokenizer, IdsAreThoseOfTokenizers) {
  const json stored = stored_hf_tokenizer();
  ASSERT_TRUE(stored.is_object());
  const auto texts = stored.at("texts").get<std::vector<std::string>>();
  ASSERT_EQ(stored.at("folders").size(), 4u);
  for (const json& folder : stored.at("folders")) {
    const auto what = folder.at("what").get<std::string>();
    const Converted c = convert_files(folder_of(folder.at("tokenizer")), folder.at("n_vocab"));
    ASSERT_NE(c.tokenizer, nullptr) << what << ": " << c.error;
    EXPECT_EQ(c.tokenizer->n_vocab(), folder.at("n_vocab").get<int32_t>());
    for (size_t i = 0; i < texts.size(); ++i) {
      auto ids = c.tokenizer->encode(texts[i], {.add_special = false});
      ASSERT_TRUE(ids.ok()) << ids.error().message;
      EXPECT_EQ(*ids, folder.at("ids").at(i).get<std::vector<TokenId>>())
          << what << ": " << texts[i];
    }
    if (what == "odd") {
      EXPECT_EQ(c.tokenizer->pre_name(), "default");
      EXPECT_EQ(c.notes.size(), 2u);
      continue;
    }
    EXPECT_EQ(c.notes.size(), what == "mistral" ? 1u : 0u) << what;
    EXPECT_EQ(c.tokenizer->model_name(), "llama");
    EXPECT_EQ(c.tokenizer->special().add_space_prefix, what != "gemma");
    EXPECT_TRUE(c.tokenizer->special().add_bos) << what;  // the post_processor says so
    EXPECT_EQ(c.tokenizer->special().bos, 1);
    EXPECT_EQ(c.tokenizer->kind(0), TokenKind::kUnknown);
    EXPECT_EQ(c.tokenizer->kind(1), TokenKind::kControl);
    EXPECT_EQ(c.tokenizer->kind(519), TokenKind::kUnused);
    EXPECT_EQ(c.tokenizer->find("[PAD519]"), 519);
  }
}

TEST(HfTokenizer, SpecialIdsAndWhoSaysThem) {
  HfTokenizerFiles files = folder_of(small_bpe(), {{"bos_token", {{"content", "<s>"}}},
                                                   {"eos_token", "</s>"},
                                                   {"added_tokens_decoder",
                                                    {{"259", {{"content", "<|eot_id|>"}}},
                                                     {"260", {{"content", "\u2581\u2581"}}},
                                                     {"300", {{"content", "far"}}}}}});
  files.config =
      R"({"bos_token_id": 5, "eos_token_id": [5, 6], "pad_token_id": 7, "text_config": {"sep_token_id": 8}})";
  files.generation_config = R"({"eos_token_id": [258, 259, 9999]})";
  files.special_tokens_map = R"({"mask_token": "he", "unk_token": {"content": "?"}})";
  const Converted c = convert_files(files, 264);
  ASSERT_NE(c.tokenizer, nullptr) << c.error;
  const text::SpecialIds& sp = c.tokenizer->special();
  EXPECT_EQ(sp.bos, 257);
  EXPECT_EQ(sp.eos, 258);
  EXPECT_EQ(sp.eot, 259);
  EXPECT_EQ(sp.pad, 7);
  EXPECT_EQ(sp.unk, '?');
  EXPECT_FALSE(sp.add_bos);
  EXPECT_FALSE(sp.add_eos);
  EXPECT_EQ(*c.header->get_int("tokenizer.ggml.seperator_token_id"), 8);
  EXPECT_EQ(*c.header->get_int("tokenizer.ggml.mask_token_id"), 256);
  EXPECT_EQ(c.tokenizer->kind(259), TokenKind::kControl);  // it looks like one
  EXPECT_EQ(c.tokenizer->kind(260), TokenKind::kUserDefined);
  EXPECT_EQ(c.tokenizer->find("  "), 260);
  EXPECT_EQ(c.tokenizer->kind(263), TokenKind::kUnused);
  EXPECT_THAT(c.notes, ElementsAre(HasSubstr("added token 'far' has id 300")));
}

TEST(HfTokenizer, PostProcessorsSayWhatIsAdded) {
  const auto around = [](const json& post, const json& config) {
    json tokenizer = small_bpe();
    tokenizer["post_processor"] = post;
    return convert_files(folder_of(tokenizer, config), 260);
  };
  const auto token = [](const char* id) {
    return json{{"SpecialToken", {{"id", id}, {"type_id", 0}}}};
  };
  const json a = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const json both = {{"type", "TemplateProcessing"}, {"single", {token("<s>"), a, token("</s>")}}};
  Converted c =
      around({{"type", "Sequence"}, {"processors", {{{"type", "ByteLevel"}}, both}}}, nullptr);
  ASSERT_NE(c.tokenizer, nullptr) << c.error;
  EXPECT_THAT(*c.tokenizer->encode("he"), ElementsAre(257, 256, 258));
  EXPECT_THAT(c.notes, ElementsAre());
  c = around({{"type", "TemplateProcessing"}, {"single", {token("<x>"), a}}}, nullptr);
  ASSERT_NE(c.tokenizer, nullptr) << c.error;
  EXPECT_THAT(*c.tokenizer->encode("he"), ElementsAre(256));
  EXPECT_THAT(c.notes, ElementsAre(HasSubstr("adds '<x>', which is no token")));
}

/// add_bos_token and add_eos_token beside a tokenizer.json: the ids are transformers'.
TEST(HfTokenizer, PostProcessorsGoBeforeSettings) {
  const json cases = stored_folders("post");
  ASSERT_EQ(cases.size(), 54u);
  for (const json& entry : cases) {
    json tokenizer = small_bpe();
    tokenizer["post_processor"] = entry.at("post_processor");
    const json& config = entry.at("config");
    const Converted c = convert_files(folder_of(tokenizer, config), 260);
    ASSERT_NE(c.tokenizer, nullptr) << c.error;
    const auto ids = entry.at("ids").get<std::vector<TokenId>>();
    EXPECT_EQ(*c.tokenizer->encode("he"), ids) << entry.dump();
    const bool has_bos = ids.front() == 257, has_eos = ids.back() == 258;
    const auto n_other = (config.value("add_bos_token", has_bos) != has_bos ? 1u : 0u) +
                         (config.value("add_eos_token", has_eos) != has_eos ? 1u : 0u);
    EXPECT_EQ(c.notes.size(), n_other) << entry.dump();
    for (const std::string& note : c.notes) EXPECT_THAT(note, HasSubstr("the latter holds"));
  }
}

TEST(HfTokenizer, ChatTemplates) {
  const json list = {{{"name", "default"}, {"template", "A"}},
                     {{"name", "tool use"}, {"template", "B"}},
                     {{"name", "broken"}}};
  HfTokenizerFiles files = folder_of(small_bpe(), {{"chat_template", list}});
  Converted c = convert_files(files, 260);
  ASSERT_NE(c.header, nullptr) << c.error;
  EXPECT_EQ(*c.header->get_string("tokenizer.chat_template"), "A");
  EXPECT_EQ(*c.header->get_string("tokenizer.chat_template.tool_use"), "B");
  EXPECT_EQ(c.notes.size(), 1u);
  files.chat_template_jinja = "J";
  files.more_templates = {{"rag", "R"}};
  c = convert_files(files, 260);
  EXPECT_EQ(*c.header->get_string("tokenizer.chat_template"), "J");
  EXPECT_EQ(*c.header->get_string("tokenizer.chat_template.rag"), "R");
  EXPECT_EQ(c.header->find("tokenizer.chat_template.tool_use"), nullptr);
  files = folder_of(small_bpe(), {{"chat_template", "S"}});
  files.chat_template_json = R"({"chat_template": "C"})";
  EXPECT_EQ(*convert_files(files, 260).header->get_string("tokenizer.chat_template"), "S");
  files.tokenizer_config.reset();
  EXPECT_EQ(*convert_files(files, 260).header->get_string("tokenizer.chat_template"), "C");
}

/// Which added tokens take in the white space behind them is said by the files, not by a name.
TEST(HfTokenizer, TokensThatStripTheTextBehindThem) {
  const json cases = stored_folders("strips");
  ASSERT_EQ(cases.size(), 2u);
  for (const json& entry : cases) {
    json tokenizer = small_bpe();
    tokenizer["added_tokens"] = entry.at("added_tokens");
    const Converted c = convert_files(folder_of(tokenizer, entry.at("config")), 264);
    ASSERT_NE(c.tokenizer, nullptr) << c.error;
    EXPECT_THAT(c.notes, ElementsAre(HasSubstr("4 added tokens take in the white space behind")));
    for (size_t i = 0; i < entry.at("texts").size(); ++i) {
      const auto text = entry.at("texts").at(i).get<std::string>();
      const auto ids = c.tokenizer->encode(text, {.add_special = false});
      ASSERT_TRUE(ids.ok()) << ids.error().message;
      EXPECT_EQ(*ids, entry.at("ids").at(i).get<std::vector<TokenId>>()) << text;
    }
  }
}

TEST(HfTokenizer, FoldersCalledPhi3DoNotStrip) {
  const auto convert = [](const char* name) {
    gguf::HeaderBuilder out("model.gguf");
    EXPECT_TRUE(out.add_string("general.name", name).ok());
    const auto written =
        quantize::write_tokenizer(folder_of(small_bpe()), {"llama", 260, name}, out, nullptr);
    EXPECT_TRUE(written.ok());
    const auto bytes = out.encode();
    const auto header = gguf::Reader::parse(*bytes, "model.gguf", {.header_only = true});
    EXPECT_EQ((*header)->find("infer.tokenizer.strips_right") != nullptr,
              std::string(name) == "my-Phi-3");
    const auto tokenizer = text::Tokenizer::load(**header);
    EXPECT_TRUE(tokenizer.ok());
    return *(*tokenizer)->encode("</s> he", {.add_special = false});
  };
  EXPECT_THAT(convert("my-Phi-3"), ElementsAre(258, ' ', 256));
  EXPECT_THAT(convert("mine"), ElementsAre(258, ' ', 256));
}

TEST(HfTokenizer, WhatGgufCannotSayIsNoted) {
  json t = small_bpe();
  t["added_tokens"][0]["lstrip"] = true;
  EXPECT_THAT(convert_files(folder_of(t), 260).notes, ElementsAre(HasSubstr("'<s>'")));
  t = small_bpe();
  t["normalizer"] = {{"type", "NFKC"}};
  t["added_tokens"].push_back({{"id", 259}, {"content", "  "}, {"normalized", true}});
  EXPECT_THAT(
      convert_files(folder_of(t), 260).notes,
      ElementsAre(HasSubstr("infer.tokenizer.normalizer"), HasSubstr("before the text is")));
}

TEST(HfTokenizer, MergesThatScoresCannotSayAreCounted) {
  // "abc" is made of "a" and "bc" only, but "ab" and "c" would give it too; "ab" comes twice,
  // apart.
  json t = {{"pre_tokenizer", {{"type", "Metaspace"}, {"prepend_scheme", "always"}}},
            {"model",
             {{"type", "BPE"},
              {"vocab",
               {{"a", 0},
                {"b", 1},
                {"c", 2},
                {"ab", 3},
                {"bc", 4},
                {"abc", 5},
                {"a\u2581", 6},
                {"\u2581", 7}}},
              {"merges", {"a b", "b c", "a bc", "a b", "a \u2581"}}}}};
  const Converted c = convert_files(folder_of(t), 8);
  ASSERT_NE(c.tokenizer, nullptr) << c.error;
  EXPECT_THAT(
      c.notes,
      ElementsAre(
          HasSubstr("(1 pairs make a token without being one, 1 out of order, 1 across words)"),
          HasSubstr("infer.tokenizer.space_prefix")));
  EXPECT_THAT(*c.tokenizer->encode("ab", {.add_special = false}), ElementsAre(7, 3));
  EXPECT_THAT(*c.tokenizer->encode(" ab", {.add_special = false}), ElementsAre(7, 3));
}

TEST(HfTokenizer, RefusalsNameWhatTheyRefuse) {
  const auto with_type = [](const char* type) {
    json t = small_bpe();
    t["model"]["type"] = type;
    return convert_files(folder_of(t), 260).error;
  };
  EXPECT_THAT(with_type("WordPiece"), HasSubstr("dir/tokenizer.json: model.type = 'WordPiece'"));
  EXPECT_THAT(with_type("Unigram"), HasSubstr("model.type = 'Unigram' is not supported"));
  EXPECT_THAT(convert_files({.folder = "dir"}, 260).error,
              HasSubstr("dir: neither tokenizer.model"));
  json t = small_bpe();
  t["model"]["end_of_word_suffix"] = "</w>";
  EXPECT_THAT(convert_files(folder_of(t), 260).error, HasSubstr("end_of_word_suffix = '</w>'"));
  t = small_bpe();
  t["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
  EXPECT_THAT(convert_files(folder_of(t), 260).error, HasSubstr("'BertPreTokenizer'"));
}

}  // namespace
}  // namespace infer::test
