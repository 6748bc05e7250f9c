use std::path::PathBuf;
use std::sync::atomic::Ordering;

use windlass::eval::{self, Report, Text, WINDOW};
use windlass::load::Run;
use windlass::models::Evaluation;
use windlass::plan::{Plan, plan};
use windlass::{Error, Model, Result};

use crate::context::Context;
use crate::running::Running;

/// Measure how well a model predicts a text, and how far it is from another
///
/// The text is cut into windows of `--context` tokens [default: 512]; tokens of the second half of each are scored, as
/// llama.cpp's perplexity does it. With `--scheme` MODEL is quantized while it is loaded, so that a scheme can be tried.
#[derive(clap::Args)]
pub struct Eval {
    /// A file, a folder, or hf:ORG/NAME
    model: String,
    /// The text (UTF-8)
    #[arg(long, env = "WINDLASS_TEXT", value_name = "FILE")]
    text: PathBuf,
    /// The model to compare with, such as the one that MODEL was quantized from
    #[arg(long, env = "WINDLASS_AGAINST", value_name = "MODEL2")]
    against: Option<String>,
    /// Look at no more windows than this
    #[arg(long, env = "WINDLASS_WINDOWS", value_name = "N")]
    windows: Option<usize>,
    /// Fail, with exit code 5, if the mean KL divergence from MODEL2 is larger
    #[arg(long, env = "WINDLASS_MAX_KLD", value_name = "X", requires = "against")]
    max_kld: Option<f64>,
    #[command(flatten)]
    running: Running,
}

impl Eval {
    /// What it would take, for MODEL alone.
    pub fn plan(self, context: &Context) -> Result<Plan> {
        let model = Model::open(&self.model, &context.limits)?;
        let window = self.running.context.unwrap_or(WINDOW);
        let logits = Evaluation::at_once(model.identity()?.hyper.vocab()).min(window);
        let run = Run { context: window, element: self.running.cache("f32")?, batch: window, logits };
        plan(&model, &self.running.options(context, Some(window)), &run, 0)
    }

    pub fn run(self, context: &Context) -> Result<()> {
        if self.max_kld.is_some_and(|x| x.is_nan() || x < 0.0) {
            return Err(Error::usage("--max-kld takes a number from 0 up"));
        }
        let text = Text::read(&self.text, &context.limits)?;
        let model = Model::open(&self.model, &context.limits)?;
        let base = self.against.as_ref().map(|base| Model::open(base, &context.limits)).transpose()?;
        let window = self.running.context.unwrap_or(WINDOW);
        let options = eval::Options {
            context: window,
            windows: self.windows.unwrap_or(usize::MAX).max(1),
            cache: self.running.cache("f32")?,
            max_divergence: self.max_kld,
        };
        let loaded = self.running.load(context, &model, Some(window))?;
        // What MODEL is quantized to while it is loaded is compared with MODEL2 as it is.
        let plain = Running { scheme: None, ..self.running.clone() };
        let base_loaded = base.as_ref().map(|base| plain.load(context, base, Some(window))).transpose()?;
        let base = base.as_ref().zip(base_loaded.as_ref());
        let (progress, stop) = (context.progress_in("eval", "tokens"), context.heed_stop());
        let show = |done, total| {
            progress.show(done, total);
            !stop.load(Ordering::Relaxed)
        };
        let report = context.compute(self.running.provider.as_deref(), |cx| {
            eval::eval(cx, (&model, &loaded), base, &text, &options, &context.limits, &show)
        })??;
        drop(progress);
        context.judge(&report, eval::gate(&report, &options), |out| tell(out, &report))
    }
}

pub fn tell(out: &mut dyn std::io::Write, r: &Report) -> std::io::Result<()> {
    writeln!(out, "perplexity  {:.4} +/- {:.4}", r.perplexity, r.perplexity_error)?;
    if let (Some(base), Some(mean), Some(p99), Some(max), Some(same)) =
        (r.base_perplexity, r.mean_kld, r.p99_kld, r.max_kld, r.top1_agreement)
    {
        writeln!(out, "against     {base:.4}, ratio {:.5}", r.perplexity / base)?;
        writeln!(out, "KL          mean {mean:.6}, 99 of 100 at most {p99:.6}, at most {max:.6} (nats)")?;
        writeln!(out, "same first  {:.2} %", same * 100.0)?;
    }
    let (tokens, windows, context) = (r.tokens, r.windows, r.context);
    writeln!(out, "{tokens} tokens scored in {windows} windows of {context}, {:.1} tokens/s", r.tokens_per_second)
}
