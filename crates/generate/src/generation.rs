//! One text: a prompt, and what the model makes of it.

use std::time::{Duration, Instant};

use windlass_models::{Cache, Decoder, Wanted};
use windlass_ops::Context;
use windlass_tensor::{Tensor, TypedTensor};

use crate::{Error, Sampler};

/// Most tokens of a prompt that are run at a time.
pub const BATCH: usize = 512;

/// When to stop.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Most tokens to generate.
    pub tokens: usize,
    /// Tokens that end a text; they are not part of it.
    pub end: Vec<u32>,
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended the text, or a stop text came.
    Stop,
    /// As many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
    /// The caller said so.
    Interrupted,
}

impl FinishReason {
    /// As `--json` spells it.
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Context => "context",
            FinishReason::Interrupted => "interrupted",
        }
    }
}

/// What was generated, and how fast.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub tokens: Vec<u32>,
    pub finish: FinishReason,
    /// Running the prompt.
    pub prompt: Duration,
    /// All steps after the first token.
    pub decode: Duration,
}

/// A model, the tokens it has seen, and how the next one is chosen.
pub struct Generation<'a> {
    decoder: &'a Decoder,
    cache: Cache,
    /// All tokens in the cache.
    history: Vec<u32>,
}

impl<'a> Generation<'a> {
    /// A text that begins with nothing.
    pub fn new(decoder: &'a Decoder, cache: Cache) -> Self {
        Self { decoder, cache, history: Vec::new() }
    }

    /// Runs `prompt`, of which a beginning that was run before is not run again, then generates. `each` sees every token
    /// as it comes and says whether to go on.
    pub fn run(
        &mut self,
        cx: &Context,
        prompt: &[u32],
        sampler: &mut Sampler,
        settings: &Settings,
        each: &mut dyn FnMut(u32) -> Result<bool, Error>,
    ) -> Result<Outcome, Error> {
        let start = Instant::now();
        let mut logits = self.prompt(cx, prompt)?;
        let prompt = start.elapsed();
        let (mut tokens, start) = (Vec::new(), Instant::now());
        let finish = loop {
            if tokens.len() == settings.tokens {
                break FinishReason::Length;
            }
            let token = sampler.pick(&values(&logits)?, &self.history)?;
            if settings.end.contains(&token) {
                break FinishReason::Stop;
            }
            tokens.push(token);
            if !each(token)? {
                break FinishReason::Interrupted;
            }
            if tokens.len() == settings.tokens {
                break FinishReason::Length;
            }
            if self.cache.len() == self.cache.context() {
                break FinishReason::Context;
            }
            logits = self.forward(cx, &[token], Wanted::Last)?.ok_or(Error::EmptyPrompt)?;
        };
        Ok(Outcome { tokens, finish, prompt, decode: start.elapsed() })
    }

    /// Tokens at the beginning of `prompt` that are in the cache and will not be run again.
    pub fn known(&self, prompt: &[u32]) -> usize {
        let same = self.history.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        // The last token is run in any case: its logits are what comes next.
        same.min(prompt.len().saturating_sub(1))
    }

    /// Logits after the last token of `prompt`.
    fn prompt(&mut self, cx: &Context, prompt: &[u32]) -> Result<Tensor, Error> {
        let same = self.known(prompt);
        self.cache.truncate(same);
        self.history.truncate(same);
        let mut logits = None;
        let rest = &prompt[same..];
        for (i, batch) in rest.chunks(BATCH).enumerate() {
            let last = (i + 1) * BATCH >= rest.len();
            logits = self.forward(cx, batch, if last { Wanted::Last } else { Wanted::None })?;
        }
        logits.ok_or(Error::EmptyPrompt)
    }

    fn forward(&mut self, cx: &Context, tokens: &[u32], wanted: Wanted) -> Result<Option<Tensor>, Error> {
        let logits = self.decoder.forward(cx, tokens, &mut self.cache, wanted)?;
        self.history.extend_from_slice(tokens);
        Ok(logits)
    }
}

fn values(logits: &Tensor) -> Result<Vec<f32>, Error> {
    Ok(TypedTensor::<f32>::new(logits.clone())?.to_vec()?)
}
