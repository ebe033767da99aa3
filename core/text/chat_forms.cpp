#include "core/text/chat_forms.h"

#include <iterator>
#include <span>

#include "core/text/chat_template.h"

// One raw string a form, its file's text.
// clang-format off
namespace infer::text {
namespace {

constexpr std::string_view kNames[] = {
    "chatml", "command-r", "deepseek", "gemma", "granite", "llama2",
    "llama3", "mistral", "phi3", "vicuna", "zephyr"};

constexpr std::string_view kForms[] = {
    // chatml
    R"jinja({%- for message in messages %}
    {{- '<|im_start|>' ~ message.role ~ '\n' ~ message.content ~ '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
)jinja",
    // command-r
    R"jinja({{- bos_token }}
{%- set roles = {'system': 'SYSTEM', 'user': 'USER', 'assistant': 'CHATBOT'} %}
{%- for message in messages %}
    {{- '<|START_OF_TURN_TOKEN|><|' ~ roles[message.role] ~ '_TOKEN|>' ~ message.content.strip() ~ '<|END_OF_TURN_TOKEN|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}
{%- endif %}
)jinja",
    // deepseek
    R"jinja({{- bos_token }}
{%- for message in messages if message.role == 'system' %}
    {{- message.content ~ ('\n\n' if not loop.last else '') }}
{%- endfor %}
{%- for message in messages if message.role != 'system' %}
    {%- if message.role == 'user' %}
        {{- '<\uff5cUser\uff5c>' ~ message.content }}
    {%- else %}
        {{- '<\uff5cAssistant\uff5c>' ~ message.content ~ '<\uff5cend\u2581of\u2581sentence\uff5c>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<\uff5cAssistant\uff5c>' }}
{%- endif %}
)jinja",
    // gemma
    R"jinja({{- bos_token }}
{%- set ns = namespace(system='') %}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- set ns.system = message.content | trim + '\n\n' %}
    {%- else %}
        {%- set role = 'model' if message.role == 'assistant' else message.role %}
        {{- '<start_of_turn>' + role + '\n' + (ns.system if role == 'user' else '') + message.content | trim + '<end_of_turn>\n' }}
        {%- if role == 'user' %}
            {%- set ns.system = '' %}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<start_of_turn>model\n' }}
{%- endif %}
)jinja",
    // granite
    R"jinja({%- for message in messages %}
    {{- '<|start_of_role|>' + message.role + '<|end_of_role|>' + message.content + '<|end_of_text|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_of_role|>assistant<|end_of_role|>' }}
{%- endif %}
)jinja",
    // llama2
    R"jinja({%- set ns = namespace(system='') %}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- set ns.system = '<<SYS>>\n' + message.content | trim + '\n<</SYS>>\n\n' %}
    {%- elif message.role == 'user' %}
        {{- bos_token + '[INST] ' + ns.system + message.content | trim + ' [/INST]' }}
        {%- set ns.system = '' %}
    {%- else %}
        {{- ' ' + message.content | trim + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}
)jinja",
    // llama3
    R"jinja({{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
)jinja",
    // mistral
    R"jinja({%- set ns = namespace(system='') %}
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- set ns.system = message.content + '\n\n' %}
    {%- elif message.role == 'user' %}
        {{- ' [INST] ' + ns.system + message.content + ' [/INST]' }}
        {%- set ns.system = '' %}
    {%- else %}
        {{- ' ' + message.content + eos_token }}
    {%- endif %}
{%- endfor %}
)jinja",
    // phi3
    R"jinja({%- for message in messages %}
    {{- '<|' + message.role + '|>\n' + message.content + '<|end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>\n' }}
{%- endif %}
)jinja",
    // vicuna
    R"jinja({%- if messages[0].role == 'system' %}
    {{- messages[0].content + ' ' }}
    {%- set turns = messages[1:] %}
{%- else %}
    {{- "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions. " }}
    {%- set turns = messages %}
{%- endif %}
{%- for message in turns %}
    {%- if message.role == 'user' %}
        {{- 'USER: ' + message.content + ' ' }}
    {%- else %}
        {{- 'ASSISTANT: ' + message.content + eos_token }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- 'ASSISTANT:' }}
{%- endif %}
)jinja",
    // zephyr
    R"jinja({%- for message in messages %}
    {{- '<|' + message.role + '|>\n' + message.content + eos_token + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>\n' }}
{%- endif %}
)jinja",
};
static_assert(std::size(kNames) == std::size(kForms));

}  // namespace
// clang-format on

std::string_view find_chat_form(std::string_view name) {
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (kNames[i] == name) return kForms[i];
  }
  return {};
}

std::span<const std::string_view> ChatTemplate::builtin_names() { return kNames; }

}  // namespace infer::text
