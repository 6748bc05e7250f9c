//! A conversation: turns rendered by the model's template, answers as they come, what was read before not read again.

use windlass_models::{Cache, Decoder};
use windlass_ops::Context;
use windlass_tensor::Limits;
use windlass_text::{Message, Tokenizer, render_chat};

use crate::{Error, FinishReason, Generation, Outcome, Sampler, Settings, TextStream};

/// How a model wants conversations to be written.
#[derive(Clone, Debug, Default)]
pub struct Template {
    /// The Jinja program.
    pub program: String,
    /// Variables beside the messages: `bos_token`, `eos_token`, `enable_thinking`.
    pub variables: serde_json::Map<String, serde_json::Value>,
}

/// A conversation with a model.
pub struct Chat<'a> {
    generation: Generation<'a>,
    tokenizer: &'a Tokenizer,
    template: Template,
    context: usize,
    limits: &'a Limits,
    messages: Vec<Message>,
}

/// What the model said.
#[derive(Clone, Debug)]
pub struct Answer {
    pub text: String,
    /// Tokens of the whole conversation before the answer.
    pub prompt_tokens: usize,
    /// Of these, those that were in memory already.
    pub known_tokens: usize,
    pub outcome: Outcome,
}

impl<'a> Chat<'a> {
    /// A conversation in which nothing was said. It ends when `cache` is full.
    pub fn new(
        decoder: &'a Decoder,
        cache: Cache,
        tokenizer: &'a Tokenizer,
        template: Template,
        limits: &'a Limits,
    ) -> Chat<'a> {
        let context = cache.context();
        let generation = Generation::new(decoder, cache);
        Chat { generation, tokenizer, template, context, limits, messages: Vec::new() }
    }

    /// All messages so far, the system's first.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Forgets what was said, but not what the system message says.
    pub fn reset(&mut self) {
        self.messages.retain(|message| message.role == "system");
    }

    /// Forgets what was said, and begins with this system message, or without one.
    pub fn set_system(&mut self, text: Option<String>) {
        self.messages = text.into_iter().map(|text| Message::new("system", text)).collect();
    }

    /// Says something to the model; `show` sees its answer as it comes and says whether to go on. Where an error comes
    /// back, nothing was said.
    pub fn say(
        &mut self,
        cx: &Context,
        text: &str,
        sampler: &mut Sampler,
        settings: &Settings,
        show: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Answer, Error> {
        self.messages.push(Message::new("user", text));
        let answer = self.answer(cx, sampler, settings, show);
        match &answer {
            Ok(answer) => self.messages.push(Message::new("assistant", answer.text.clone())),
            Err(_) => drop(self.messages.pop()),
        }
        answer
    }

    fn answer(
        &mut self,
        cx: &Context,
        sampler: &mut Sampler,
        settings: &Settings,
        show: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Answer, Error> {
        let text = render_chat(&self.template.program, &self.messages, true, &self.template.variables, self.limits)?;
        // The template writes all special tokens itself.
        let prompt = self.tokenizer.encode(&text, false)?;
        if prompt.len() >= self.context {
            return Err(Error::Full { tokens: prompt.len(), context: self.context });
        }
        let known = self.generation.known(&prompt);
        let (mut stream, mut text) = (TextStream::new(self.tokenizer), String::new());
        let outcome = self.generation.run(cx, &prompt, sampler, settings, &mut |token| {
            let piece = stream.push(token)?;
            text.push_str(&piece);
            Ok(show(&piece))
        })?;
        let rest = stream.finish()?;
        if outcome.finish != FinishReason::Interrupted {
            show(&rest);
        }
        text.push_str(&rest);
        Ok(Answer { text, prompt_tokens: prompt.len(), known_tokens: known, outcome })
    }
}
