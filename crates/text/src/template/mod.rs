//! Chat templates: Jinja programs that come with a model, run within bounds.

mod bounded;
mod clock;
mod dumps;

use std::ops::Range;
use std::sync::{Arc, Mutex};

use minijinja::machinery::{self, CompiledTemplate, Instruction, Instructions, TemplateConfig};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error as JinjaError, ErrorKind, State, Value};
use windlass_tensor::Limits;

use crate::Error;
use crate::error::bound;
use bounded::Meter;

/// Calls within calls that a template may make.
const RECURSION: usize = 150;

/// One message of a conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool` or what the model knows besides.
    pub role: String,
    /// The text.
    pub content: String,
    /// Further fields that templates look at, such as `tool_calls` or `name`. A `content` here replaces the text, which is how
    /// messages of several parts are given.
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl Message {
    /// A message of text alone.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Message { role: role.into(), content: content.into(), extra: serde_json::Map::new() }
    }
}

/// Renders a conversation as the text that the model was trained on.
///
/// `extra` are further variables: `bos_token` and `eos_token` (templates expect them), `tools`, `documents`, `enable_thinking` and so
/// on. Errors: the template does not parse, refuses the messages, or wants more steps, memory or output than `limits` allow.
pub fn render_chat(
    template: &str,
    messages: &[Message],
    add_generation_prompt: bool,
    extra: &serde_json::Map<String, serde_json::Value>,
    limits: &Limits,
) -> Result<String, Error> {
    let template = with_generation_marks(template, ("if true", "endif"));
    run(&template, context(messages, add_generation_prompt, extra), limits)
}

/// Whether a template marks what the assistant wrote with `{% generation %}`.
pub fn marks_generation(template: &str) -> bool {
    template.len() != with_generation_marks(template, ("filter generation", "endfilter")).len()
}

/// Renders a conversation, and tells which bytes of the text the template marks as what the assistant wrote.
pub fn render_marked_chat(
    template: &str,
    messages: &[Message],
    extra: &serde_json::Map<String, serde_json::Value>,
    limits: &Limits,
) -> Result<(String, Vec<Range<usize>>), Error> {
    let template = with_generation_marks(template, ("filter generation", "endfilter"));
    let context = context(messages, false, extra);
    unmark(&run(&template, context, limits)?)
}

fn run(template: &str, context: Value, limits: &Limits) -> Result<String, Error> {
    bound(|| "chat template".to_owned(), template.len(), limits.string_bytes)?;
    let refusal = Arc::new(Mutex::new(None));
    let meter = Arc::new(Meter::new(limits));
    let result = render(template, context, &meter, &refusal, limits);
    let refused = refusal.lock().ok().and_then(|mut said| said.take());
    result.map_err(|error| match refused {
        Some(reason) => Error::Refused(reason),
        None if error.kind() == ErrorKind::OutOfFuel => Error::Template(format!(
            "it takes more than {} steps; raise the limit if you trust it",
            limits.template_fuel
        )),
        None => Error::Template(describe(&error)),
    })
}

fn describe(error: &JinjaError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

fn context(
    messages: &[Message],
    add_generation_prompt: bool,
    extra: &serde_json::Map<String, serde_json::Value>,
) -> Value {
    let message = |m: &Message| {
        let mut fields = serde_json::Map::new();
        fields.insert("role".to_owned(), m.role.clone().into());
        fields.insert("content".to_owned(), m.content.clone().into());
        fields.extend(m.extra.clone());
        serde_json::Value::Object(fields)
    };
    let mut all = extra.clone();
    all.insert("messages".to_owned(), messages.iter().map(message).collect());
    all.insert("add_generation_prompt".to_owned(), add_generation_prompt.into());
    value(&serde_json::Value::Object(all))
}

/// JSON as the engine's values; `json` is no deeper than its parser allows.
fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::from(()),
        Json::Bool(v) => Value::from(*v),
        Json::Number(v) => match (v.as_i64(), v.as_u64()) {
            (Some(v), _) => Value::from(v),
            (_, Some(v)) => Value::from(v),
            _ => Value::from(v.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(v) => Value::from(v.as_str()),
        Json::Array(items) => Value::from(items.iter().map(value).collect::<Vec<_>>()),
        Json::Object(map) => Value::from_pairs(map.iter().map(|(key, item)| (key.as_str(), value(item)))),
    }
}

/// `{% generation %}` marks what the assistant wrote, for training; it does not change the text. Here it becomes another block.
fn with_generation_marks(template: &str, (begin, end): (&str, &str)) -> String {
    let mut text = template.to_owned();
    for (mark, stand_in) in [("generation", begin), ("endgeneration", end)] {
        for (open, close) in [("{%", "%}"), ("{%-", "%}"), ("{%", "-%}"), ("{%-", "-%}")] {
            text = text.replace(&format!("{open} {mark} {close}"), &format!("{open} {stand_in} {close}"));
        }
    }
    text
}

/// What stands around marked text while a template runs: characters that no text has.
const MARKS: [char; 2] = ['\u{10fffe}', '\u{10ffff}'];

/// Takes the marks out of a text, and tells where they were.
fn unmark(marked: &str) -> Result<(String, Vec<Range<usize>>), Error> {
    let (mut text, mut ranges, mut open) = (String::with_capacity(marked.len()), Vec::new(), None);
    for piece in marked.split_inclusive(MARKS) {
        let mark = piece.chars().next_back().filter(|last| MARKS.contains(last));
        text.push_str(piece.strip_suffix(MARKS).unwrap_or(piece));
        match (mark, open) {
            (Some(mark), None) if mark == MARKS[0] => open = Some(text.len()),
            (Some(mark), Some(start)) if mark == MARKS[1] => {
                ranges.push(start..text.len());
                open = None;
            }
            (None, _) => {}
            _ => return Err(Error::Template("what it marks as generated is not well nested".to_owned())),
        }
    }
    Ok((text, ranges))
}

fn render(
    source: &str,
    context: Value,
    meter: &Arc<Meter>,
    refusal: &Arc<Mutex<Option<String>>>,
    limits: &Limits,
) -> Result<String, JinjaError> {
    let config = || -> Result<TemplateConfig, JinjaError> {
        let syntax_config = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
        Ok(TemplateConfig { syntax_config, default_auto_escape: Arc::new(|_| AutoEscape::None) })
    };
    // Compiled once to learn which names occur: the stand-ins have names made from them, which must outlive the second program.
    let names = bounded::names(&CompiledTemplate::new("chat template", source, &config()?)?);
    let mut env = environment(meter, refusal);
    bounded::register(&mut env, &names, meter);
    let mut program = CompiledTemplate::new("chat template", source, &config()?)?;
    let mut longest = 1;
    for instructions in std::iter::once(&mut program.instructions).chain(program.blocks.values_mut()) {
        bounded::rewrite(instructions, &names)?;
        longest = longest.max(longest_text(instructions));
    }
    // Text outside of expressions is copied without being asked; steps times its length bound what it can fill.
    env.set_fuel(Some(limits.template_fuel.min(bounded::TEXT_BYTES / longest as u64)));
    let mut text = String::new();
    machinery::eval(
        &env,
        &program.instructions,
        context,
        &program.blocks,
        &mut machinery::make_string_output(&mut text),
        AutoEscape::None,
    )?;
    meter.output(text.len())?;
    Ok(text)
}

fn longest_text(instructions: &Instructions) -> usize {
    let text = |instruction: &Instruction| if let Instruction::EmitRaw(text) = instruction { text.len() } else { 0 };
    (0..).map_while(|i| instructions.get(i)).map(text).max().unwrap_or(0).max(1)
}

/// The functions and filters that chat templates are written against: those of transformers.
fn environment(meter: &Arc<Meter>, refusal: &Arc<Mutex<Option<String>>>) -> Environment<'static> {
    let mut env = Environment::new();
    env.set_recursion_limit(RECURSION);
    let (metered, said) = (Arc::clone(meter), Arc::clone(refusal));
    env.set_formatter(move |out, state, value| {
        metered.emit(value)?;
        minijinja::escape_formatter(out, state, value)
    });
    let metered = Arc::clone(meter);
    env.set_unknown_method_callback(move |state: &mut State, value: &Value, method: &str, args: &[Value]| {
        let all: Vec<Value> = std::iter::once(value).chain(args).cloned().collect();
        metered.guard(method, &all)?;
        let result = minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)?;
        metered.charge(&[&result])?;
        Ok(result)
    });
    env.add_function("raise_exception", move |message: String| -> Result<Value, JinjaError> {
        if let Ok(mut said) = said.lock() {
            *said = Some(message.clone());
        }
        Err(JinjaError::new(ErrorKind::InvalidOperation, message))
    });
    env.add_function("strftime_now", |format: &str| clock::format(format, clock::now()));
    env.add_filter("tojson", dumps::tojson);
    env.add_filter("generation", |text: String| format!("{}{text}{}", MARKS[0], MARKS[1]));
    // Written for people who debug templates; its output can be many times its input.
    env.remove_filter("pprint");
    env.remove_global("debug");
    env
}
