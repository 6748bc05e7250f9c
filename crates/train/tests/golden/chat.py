"""Tokens of conversations, and which of them the assistant wrote, as transformers gives them.

    python chat.py          (transformers; writes chat.json)

Where a template marks generations, the mask is `return_assistant_tokens_mask`. Of others, an answer is what the rendered
conversation with it has beyond the one before it with the prompt for an answer, without white space behind the token that ends
the turn. Templates that write answers in another way once more follows give an example for each answer.
"""
import json
import pathlib

from transformers import PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).parent
TOKENIZERS = HERE.parents[2] / "text" / "tests" / "golden"

TEMPLATES = {
    "marked": ("qwen2", """{%- for message in messages %}
    {%- if message.role == 'assistant' %}
<|im_start|>assistant
{% generation %}{{ message.content | trim }}<|im_end|>{% endgeneration %}

    {%- else %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
<|im_start|>assistant
{% endif %}"""),
    "marked-lines": ("gemma", """{{ bos_token }}{% for message in messages %}
{% if message.role == 'assistant' %}
<start_of_turn>model
{% generation %}
{{ message.content }}<end_of_turn>
{% endgeneration %}
{% else %}
<start_of_turn>{{ message.role }}
{{ message.content }}<end_of_turn>
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
<start_of_turn>model
{% endif %}"""),
    "chatml": ("qwen2", """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""),
    "headers": ("llama3", """{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""),
    "words": ("llama2", """{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"""),
    "thoughts": ("qwen2", """{% for message in messages %}
{% if message.role == 'assistant' %}
<|im_start|>assistant
{% if loop.last %}
<think>
{{ message.reasoning_content | default('') }}
</think>

{% endif %}
{{ message.content }}<|im_end|>
{% else %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}"""),
    "opened-thought": ("qwen2", """{% for message in messages %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
<think>
{% endif %}"""),
}

user = lambda text: {"role": "user", "content": text}
assistant = lambda text, **more: {"role": "assistant", "content": text, **more}
CONVERSATIONS = [
    [user("What is 2 + 2?"), assistant("4")],
    [{"role": "system", "content": "Be brief."}, user("Hi"), assistant("Hello there!\n\nHow are you?"), user("Fine, 日本語?"),
     assistant(" はい 🙂 ", reasoning_content="They ask.")],
    [user("a"), assistant("b"), user("c"), assistant("d"), user("e")],
    [user("Say nothing."), assistant("")],
]


def tokens_of(tokenizer, text, ranges):
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    mask = [0] * len(encoded["input_ids"])
    for start, end in ranges:
        inside = [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if b > start and a < end]
        for i in range(inside[0], inside[-1] + 1) if inside else []:
            mask[i] = 1
    return {"tokens": encoded["input_ids"], "mask": mask}


def spoken(tokenizer, text, start):
    """Where the answer that begins at `start` ends."""
    end = len(text)
    trimmed = len(text.rstrip())
    special = any(text[:trimmed].endswith(token) for token in tokenizer.all_special_tokens)
    return trimmed if special and trimmed >= start else end


def by_prefixes(tokenizer, messages):
    render = lambda count, prompt: tokenizer.apply_chat_template(messages[:count], tokenize=False, add_generation_prompt=prompt)
    whole = render(len(messages), False)
    answers, apart = [], False
    for at, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt, until = render(at, True), render(at + 1, False)
        start = len(pathlib.os.path.commonprefix([prompt, until]))
        if start < len(prompt):
            start = max((until.rfind(border, 0, start) for border in " \n>]:"), default=-1) + 1
        answers.append((until, (start, spoken(tokenizer, until, start))))
        apart |= not whole.startswith(until)
    if apart:
        return [tokens_of(tokenizer, text, [span]) for text, span in answers]
    return [tokens_of(tokenizer, whole, [span for _, span in answers])]


cases = []
for name, (vocabulary, program) in TEMPLATES.items():
    config = json.loads((TOKENIZERS / f"{vocabulary}.config.json").read_text())
    special = {"qwen2": dict(eos_token="<|im_end|>"), "gemma": dict(bos_token="<bos>", eos_token="<eos>"),
               "llama3": dict(bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"), "llama2": dict(bos_token="<s>", eos_token="</s>")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZERS / f"{vocabulary}.json"), **special[vocabulary])
    tokenizer.chat_template = program
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    tokenizer.add_special_tokens({"additional_special_tokens": added})
    for messages in CONVERSATIONS:
        if name == "words":
            messages = [m for m in messages if m["role"] != "system"]
        if "generation %}" in program:
            out = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
            examples = [{"tokens": out["input_ids"], "mask": out["assistant_masks"]}]
        else:
            examples = by_prefixes(tokenizer, messages)
        cases.append({"template": name, "messages": messages, "examples": examples})
templates = {
    name: {"program": program, "tokenizer": vocabulary, "variables": special[vocabulary]}
    for name, (vocabulary, program) in TEMPLATES.items()
}
(HERE / "chat.json").write_text(json.dumps({"templates": templates, "cases": cases}, ensure_ascii=False))
