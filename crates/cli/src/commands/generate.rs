use std::io::Write;
use std::sync::atomic::Ordering;

use windlass::sampling::Sampling;
use windlass::{Model, Result};

use crate::context::Context;
use crate::running::Running;

/// Continue a text
#[derive(clap::Args)]
pub struct Generate {
    /// A file, a folder, or hf:ORG/NAME
    model: String,
    /// The text to continue; `-` reads standard input
    #[arg(short, long, env = "WINDLASS_PROMPT", value_name = "TEXT")]
    prompt: String,
    /// Most tokens to generate
    #[arg(short = 'n', long = "tokens", env = "WINDLASS_N", value_name = "N", default_value_t = 128)]
    tokens: usize,
    /// 0 always takes the likeliest token; higher is more varied
    #[arg(long, env = "WINDLASS_TEMPERATURE", default_value_t = 0.8)]
    temperature: f32,
    /// Only so many of the likeliest tokens; 0: all
    #[arg(long, env = "WINDLASS_TOP_K", default_value_t = 40)]
    top_k: usize,
    /// Only the likeliest tokens that together have this probability
    #[arg(long, env = "WINDLASS_TOP_P", default_value_t = 0.95)]
    top_p: f32,
    /// Only tokens at least this many times as likely as the likeliest
    #[arg(long, env = "WINDLASS_MIN_P", default_value_t = 0.05)]
    min_p: f32,
    /// Above 1, tokens that were there become less likely
    #[arg(long, env = "WINDLASS_REPEAT_PENALTY", default_value_t = 1.0)]
    repeat_penalty: f32,
    /// The same seed gives the same text
    #[arg(long, env = "WINDLASS_SEED", default_value_t = 0)]
    seed: u64,
    /// End where this text would come; may be given several times
    #[arg(long, env = "WINDLASS_STOP", value_name = "TEXT")]
    stop: Vec<String>,
    #[command(flatten)]
    running: Running,
}

impl Generate {
    pub fn run(self, context: &Context) -> Result<()> {
        let prompt = context.text(self.prompt)?;
        let model = Model::open(&self.model, &context.limits)?;
        let loaded = self.running.load(context, &model, None)?;
        let options = windlass::generate::Options {
            prompt,
            tokens: self.tokens,
            sampling: Sampling {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repeat_penalty: self.repeat_penalty,
                seed: self.seed,
                ..Sampling::default()
            },
            stop: self.stop,
            cache: self.running.cache("f16")?,
        };
        let (stop, json) = (context.heed_stop(), context.globals.json);
        let mut show = |text: &str| {
            let mut out = std::io::stdout();
            let shown = json || (write!(out, "{text}").and_then(|()| out.flush())).is_ok();
            shown && !stop.load(Ordering::Relaxed)
        };
        let result = context.compute(self.running.provider.as_deref(), |cx| {
            windlass::generate::generate(cx, &model, &loaded, &options, &context.limits, &mut show)
        })??;
        if !json {
            println!();
            context.say(&format!(
                "{} tokens of prompt at {:.1}/s, {} generated at {:.1}/s ({})",
                result.prompt_tokens,
                result.prompt_tokens_per_second,
                result.tokens,
                result.tokens_per_second,
                result.finish_reason
            ));
            return Ok(());
        }
        context.print(&result, |_| Ok(()))
    }
}
