use std::io::Write;
use std::sync::atomic::Ordering;

use windlass::load::{Options, Run};
use windlass::plan::{Plan, plan};
use windlass::{Model, Result};

use crate::context::Context;
use crate::running::Running;
use crate::sampling::Choosing;

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
    #[command(flatten)]
    choosing: Choosing,
    /// End where this text would come; may be given several times
    #[arg(long, env = "WINDLASS_STOP", value_name = "TEXT")]
    stop: Vec<String>,
    #[command(flatten)]
    running: Running,
}

impl Generate {
    /// What it would take.
    pub fn plan(self, context: &Context) -> Result<Plan> {
        let model = Model::open(&self.model, &context.limits)?;
        let prompt = model.tokenizer(&context.limits)?.encode(&context.text(self.prompt)?, true)?.len();
        let options = self.running.options(context, None);
        let remembered = options.context.unwrap_or(model.identity()?.hyper.context().min(Options::DEFAULT_CONTEXT));
        let run = Run {
            context: remembered.min(prompt + self.tokens + 1),
            element: self.running.cache("f16")?,
            batch: prompt.min(windlass::sampling::BATCH),
            logits: 1,
        };
        plan(&model, &options, &run, 0)
    }

    pub fn run(self, context: &Context) -> Result<()> {
        let prompt = context.text(self.prompt)?;
        let model = Model::open(&self.model, &context.limits)?;
        let loaded = self.running.load(context, &model, None)?;
        let options = windlass::generate::Options {
            prompt,
            tokens: self.tokens,
            sampling: self.choosing.sampling(),
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
