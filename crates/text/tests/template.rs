//! Chat templates: what transformers' Jinja would write, and what a hostile template gets.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use windlass_tensor::Limits;
use windlass_text::{Error, Message, render_chat};

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Written the way Llama 2's is: slices, alternation checks, conditions in a row.
const LLAMA2: &str = "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}";

/// Block tags on their own lines, namespaces, macros, tools: the way newer templates are written.
const TOOLS: &str = r#"{%- macro header(role) -%}
    <|{{ role }}|>
{%- endmacro %}
{%- set ns = namespace(last=0, all='') %}
{%- for m in messages %}
    {%- if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}
    {%- set ns.all = ns.all ~ m.role[0] %}
{%- endfor %}
{{- bos_token }}{{ header('system') }}
{% if tools is defined and tools %}
Tools:
    {%- for tool in tools %}
{{ tool | tojson }}
    {%- endfor %}
{% endif %}
{% for m in messages %}
    {% if loop.index0 > 5 %}{% break %}{% endif %}
{{ header(m.role) }}{{ m.content | trim }}
    {% if m.tool_calls is defined %}{% for c in m.tool_calls %}{{ c.function.name }}({{ c.function.arguments | tojson(indent=2) }}){% endfor %}{% endif %}
{% endfor %}
{{ ns.last }}{{ ns.all }}{% generation %}{{ 'x' in ['x', 'y'] }}{% endgeneration %}
"#;

fn extra() -> Map<String, Value> {
    json!({"bos_token": "<s>", "eos_token": "</s>"}).as_object().unwrap().clone()
}

fn conversation() -> Vec<Message> {
    vec![
        Message::new("system", "Be brief."),
        Message::new("user", " Hi <&> "),
        Message::new("assistant", "Hello"),
        Message::new("user", "Bye"),
    ]
}

fn render(template: &str) -> Result<String, Error> {
    render_chat(template, &conversation(), true, &extra(), &Limits::default())
}

#[test]
fn chatml_is_rendered() {
    let expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi <&> <|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(render(CHATML).unwrap(), expected);
}

#[test]
fn strings_are_put_together_sliced_and_stripped_as_in_python() {
    let expected = "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hi <&> [/INST] Hello </s><s>[INST] Bye [/INST]";
    assert_eq!(render(LLAMA2).unwrap(), expected);
}

#[test]
fn a_template_can_refuse_messages() {
    let twice = [Message::new("user", "a"), Message::new("user", "b")];
    match render_chat(LLAMA2, &twice, false, &extra(), &Limits::default()) {
        Err(Error::Refused(reason)) => assert!(reason.contains("must alternate"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn tools_macros_and_namespaces_work_as_in_transformers() {
    let mut messages = conversation();
    messages[2]
        .extra
        .insert("tool_calls".into(), json!([{"function": {"name": "f", "arguments": {"x": 1, "y": ["é", "<"]}}}]));
    let mut extra = extra();
    extra.insert("tools".into(), json!([{"name": "f", "description": "it's <b>", "z": 1.5, "a": null, "empty": {}}]));
    let text = render_chat(TOOLS, &messages, false, &extra, &Limits::default()).unwrap();
    // Rendered by transformers' environment (jinja2, trim_blocks, lstrip_blocks); see golden/chat.py.
    assert_eq!(text, include_str!("golden/tools.txt"));
}

#[test]
fn the_date_and_several_part_contents_are_known() {
    let year: i32 = render("{{ strftime_now('%Y') }}").unwrap().parse().unwrap();
    assert!(year >= 2024);
    let mut message = Message::new("user", "");
    message.extra.insert("content".into(), json!([{"type": "text", "text": "part"}]));
    let text = render_chat(
        "{% for p in messages[0].content %}{{ p['text'] }}{% endfor %}",
        &[message],
        false,
        &Map::new(),
        &Limits::default(),
    );
    assert_eq!(text.unwrap(), "part");
}

#[test]
fn hostile_templates_are_errors_and_end_soon() {
    let cases = [
        (
            "endless loops",
            "{% for a in range(100000) %}{% for b in range(100000) %}{% set x = 1 %}{% endfor %}{% endfor %}",
        ),
        (
            "doubled text",
            "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        ),
        (
            "added text",
            "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        ),
        (
            "doubled lists",
            "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
        ),
        (
            "shared lists",
            "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        ),
        (
            "shared maps",
            "{% set ns = namespace(x={}) %}{% for i in range(60) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}{{ ns.x == ns.x }}",
        ),
        ("deep lists", "{% set ns = namespace(x=[]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}"),
        (
            "replaced text",
            "{% set x = 'aaaaaaaaaa' %}{{ x|replace('a', x)|replace('a', x)|replace('a', x)|replace('a', x)|replace('a', x)|replace('a', x)|replace('a', x)|replace('a', x)|replace('a', x)|replace('a', x)|replace('a', x) }}",
        ),
        (
            "replaced by method",
            "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(20) %}{% set ns.x = ns.x.replace('a', ns.x) %}{% endfor %}",
        ),
        ("joined text", "{% set x = 'a' * 1000000 %}{{ ([1] * 100000) | join(x) }}"),
        ("joined by method", "{% set x = 'a' * 1000000 %}{{ x.join(['b'] * 100000) }}"),
        ("repeated text", "{{ 'a' * 99999999 }}"),
        ("repeated lists", "{{ ([[1] * 10000] * 10000) | tojson }}"),
        ("wide fields", "{{ '%999999999d' | format(1) }}"),
        ("wide fields by method", "{{ '{:999999999}'.format(1) }}"),
        ("wide indents", "{{ 'a\nb' | indent(999999999) }}"),
        ("wide json", "{{ [1, [2]] | tojson(indent=999999999) }}"),
        (
            "much output",
            "{% for i in range(100000) %}{% for j in range(100) %}{{ 'abcdefghijklmnopqrstuvwxyz' * 100 }}{% endfor %}{% endfor %}",
        ),
        (
            "much text",
            &format!(
                "{{% for i in range(100000) %}}{{% for j in range(1000) %}}{}{{% endfor %}}{{% endfor %}}",
                "x".repeat(20_000)
            ),
        ),
        (
            "captured text",
            &format!(
                "{{% set t %}}{{% for i in range(100000) %}}{{% for j in range(1000) %}}{}{{% endfor %}}{{% endfor %}}{{% endset %}}",
                "x".repeat(20_000)
            ),
        ),
        ("endless recursion", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
        ("doubling recursion", "{% macro m(x) %}{{ m(x ~ x) }}{% endmacro %}{{ m('aaaaaaaaaaaaaaaaa') }}"),
        (
            "captured recursion",
            "{% macro m(x) %}{% set y %}{{ x }}{{ x }}{% endset %}{{ m(y) }}{% endmacro %}{{ m('aaaaaaaaaaaaaaaaa') }}",
        ),
        ("copied text", "{% set x = 'a' * 60000000 %}{% for i in range(100000) %}{% set y = x[1:] %}{% endfor %}"),
        (
            "compared text",
            "{% set x = 'a' * 30000000 %}{% set z = x ~ 'b' %}{% for i in range(100000) %}{% if x ~ 'c' == z %}{% endif %}{% endfor %}",
        ),
        ("deep nesting", &format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000))),
        ("deep blocks", &"{% if 1 %}".repeat(100_000)),
        ("deep lists as written", &format!("{{{{ {}1{} }}}}", "[".repeat(100_000), "]".repeat(100_000))),
        ("not a template", "{{ 'a' "),
        ("files", "{% include '/etc/passwd' %}"),
        ("imports", "{% import '/etc/passwd' as x %}"),
        ("unknown names", "{{ nothing.such.thing() }}"),
        ("unknown filters", "{{ 1 | nothing }}"),
    ];
    for (name, template) in cases {
        let started = Instant::now();
        let result = render(template);
        assert!(matches!(result, Err(Error::Template(_))), "{name}: {:?}", result.map(|text| text.len()));
        assert!(started.elapsed() < Duration::from_secs(20), "{name} took {:?}", started.elapsed());
    }
}

#[test]
fn limits_are_those_of_the_caller() {
    let few = Limits { template_fuel: 10, ..Limits::default() };
    assert!(render_chat(CHATML, &conversation(), true, &extra(), &few).is_err());
    let short = Limits { template_output_bytes: 100, ..Limits::default() };
    assert!(render_chat(CHATML, &conversation(), true, &extra(), &short).is_err());
}
