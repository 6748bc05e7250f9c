//! Conversations in the words of a chat template. What the assistant says is learned, and nothing else.
//!
//! Templates that mark it (`{% generation %}`) are taken at their word. Of others, an answer is what the conversation up to
//! and with it has beyond the conversation before it and the prompt for an answer. Some write an answer in another way once
//! more follows (they leave out what was thought, say); then each answer is an example of its own, with what stood before it.

use std::ops::Range;

use serde_json::{Map, Value as Json};
use windlass_text::{Message, Tokenizer, marks_generation, render_chat, render_marked_chat};

use super::{Draft, Shape};
use crate::data::value::{Object, Value};
use crate::data::{Reading, TrainOn};

/// Messages of one conversation.
const MESSAGES: usize = 10_000;

/// A template, and the special tokens that it mentions.
#[derive(Clone, Debug, Default)]
pub struct ChatTemplate {
    pub program: String,
    pub variables: Map<String, Json>,
}

/// The shape.
pub struct Chat;

impl Shape for Chat {
    fn name(&self) -> &'static str {
        "chat"
    }

    fn needs(&self) -> &'static str {
        "messages or conversations (tools, system)"
    }

    fn columns(&self) -> &'static [&'static str] {
        &["messages", "conversations", "tools", "system"]
    }

    fn fits(&self, has: &dyn Fn(&str) -> bool) -> bool {
        has("messages") || has("conversations")
    }

    fn drafts(&self, row: &Object, how: &Reading) -> Result<Vec<Draft>, String> {
        let template =
            how.template.ok_or("a conversation needs a chat template, and the model has none: give --template")?;
        let messages = messages(row)?;
        let mut extra = template.variables.clone();
        if let Some(tools) = row.get("tools") {
            let tools = match tools {
                Value::Text(text) => {
                    Value::parse(text.as_bytes(), how.limits.nesting).map_err(|e| format!("\"tools\" {e}"))?
                }
                other => other.clone(),
            };
            extra.insert("tools".into(), tools.to_json());
        }
        Rendering { how, program: &template.program, messages: &messages, extra: &extra }.drafts()
    }
}

fn messages(row: &Object) -> Result<Vec<Message>, String> {
    let name = if row.has("messages") { "messages" } else { "conversations" };
    let items = match row.get(name) {
        Some(Value::List(items)) if !items.is_empty() => items,
        Some(Value::List(_)) => return Err(format!("{name:?} is empty")),
        Some(other) => return Err(format!("{name:?} is {}, expected a list of messages", other.kind())),
        None => return Err(format!("{name:?} is missing")),
    };
    if items.len() > MESSAGES {
        return Err(format!("{name:?} has {} messages, the limit is {MESSAGES}", items.len()));
    }
    let mut messages = Vec::with_capacity(items.len() + 1);
    if row.has("system") {
        messages.push(Message::new("system", row.text("system")?));
    }
    for (at, item) in items.iter().enumerate() {
        let Value::Object(fields) = item else {
            return Err(format!("message {} is {}, expected an object", at + 1, item.kind()));
        };
        messages.push(message(fields).map_err(|error| format!("message {}: {error}", at + 1))?);
    }
    Ok(messages)
}

/// A message as OpenAI (`role`, `content`) or as ShareGPT (`from`, `value`) spells it.
fn message(fields: &Object) -> Result<Message, String> {
    let (role, content) = if fields.has("from") { ("from", "value") } else { ("role", "content") };
    let role = match fields.text(role)? {
        "human" => "user",
        "gpt" | "model" | "chatgpt" | "bard" => "assistant",
        "function_response" | "observation" | "function" => "tool",
        other => other,
    };
    let mut message = Message::new(role, "");
    match fields.get(content) {
        Some(Value::Text(text)) => message.content.clone_from(text),
        None if fields.has("tool_calls") => {}
        Some(parts @ Value::List(_)) => _ = message.extra.insert("content".into(), parts.to_json()),
        Some(other) => return Err(format!("{content:?} is {}, expected text", other.kind())),
        None => return Err(format!("{content:?} is missing")),
    }
    for (name, value) in &fields.0 {
        if !matches!(name.as_str(), "role" | "from" | "content" | "value") && *value != Value::Null {
            message.extra.insert(name.clone(), value.to_json());
        }
    }
    Ok(message)
}

struct Rendering<'a> {
    how: &'a Reading<'a>,
    program: &'a str,
    messages: &'a [Message],
    extra: &'a Map<String, Json>,
}

impl Rendering<'_> {
    fn drafts(&self) -> Result<Vec<Draft>, String> {
        if self.how.train_on == TrainOn::All {
            let text = self.text(self.messages.len(), false)?;
            let all = 0..text.len();
            return Ok(vec![Draft::Marked(text, vec![all])]);
        }
        if marks_generation(self.program) {
            let marked = render_marked_chat(self.program, self.messages, self.extra, self.how.limits);
            let (text, learned) = marked.map_err(|error| error.to_string())?;
            return Ok(vec![Draft::Marked(text, learned)]);
        }
        let whole = self.text(self.messages.len(), false)?;
        let (mut learned, mut apart, mut all_in_one) = (Vec::new(), Vec::new(), true);
        for (at, message) in self.messages.iter().enumerate() {
            if message.role != "assistant" {
                continue;
            }
            let until = if at + 1 == self.messages.len() { whole.clone() } else { self.text(at + 1, false)? };
            let answer = self.answer(at, &until)?;
            all_in_one &= whole.starts_with(&until);
            learned.push(answer.clone());
            apart.push((until, answer));
        }
        if all_in_one {
            return Ok(vec![Draft::Marked(whole, learned)]);
        }
        Ok(apart.into_iter().map(|(text, answer)| Draft::Marked(text, vec![answer])).collect())
    }

    fn text(&self, count: usize, prompt: bool) -> Result<String, String> {
        render_chat(self.program, &self.messages[..count], prompt, self.extra, self.how.limits)
            .map_err(|e| e.to_string())
    }

    /// Which bytes of `until` the answer is, message `at`.
    fn answer(&self, at: usize, until: &str) -> Result<Range<usize>, String> {
        if at == 0 {
            return Err("the conversation begins with an answer".into());
        }
        let prompt = self.text(at, true)?;
        let mut start = prompt.len();
        if !until.starts_with(&prompt) {
            // The prompt may open a thought that a finished answer does not have: both begin alike up to a border.
            let before = self.text(at, false)?.trim_end().len();
            let alike = prompt.char_indices().zip(until.chars()).take_while(|((_, a), b)| a == b);
            let border = |c: char| c.is_whitespace() || matches!(c, '>' | ']' | ':');
            let borders = alike.filter(|((_, c), _)| border(*c)).map(|((at, c), _)| at + c.len_utf8());
            start = borders.last().unwrap_or(0);
            if start < before {
                return Err(format!(
                    "the template writes what stands before message {} in another way with it",
                    at + 1
                ));
            }
        }
        Ok(start..self.spoken(until).max(start))
    }

    /// Where an answer ends: white space behind the token that ends a turn is not the model's, which has stopped.
    fn spoken(&self, until: &str) -> usize {
        let trimmed = until.trim_end();
        let ends = |tokenizer: &Tokenizer| {
            let from = trimmed.char_indices().rev().take(40).last().map_or(0, |(at, _)| at);
            let last = tokenizer.encode(&trimmed[from..], false).ok().and_then(|tokens| tokens.last().copied());
            last.is_some_and(|token| tokenizer.is_special(token))
        };
        if self.how.tokenizer.is_some_and(ends) { trimmed.len() } else { until.len() }
    }
}
