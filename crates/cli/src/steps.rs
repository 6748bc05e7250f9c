//! Progress of a training: a bar on a terminal, lines elsewhere.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use windlass::training::StepReport;

use crate::context::Context;
use crate::size;

/// Time between two lines; with `--verbose` there is one for every step.
const BETWEEN: Duration = Duration::from_secs(1);

/// Shows steps.
pub struct Steps<'c> {
    context: &'c Context,
    bar: Option<ProgressBar>,
    state: RefCell<State>,
}

/// When the first step of this run ended, which one it was, and when the last line was printed.
struct State {
    first: Option<(Instant, u64)>,
    told: Option<Instant>,
}

impl<'c> Steps<'c> {
    /// Shows nothing yet.
    pub fn new(context: &'c Context) -> Steps<'c> {
        let shown = !context.globals.json && !context.globals.quiet && std::io::stderr().is_terminal();
        let style = ProgressStyle::with_template("train {bar:24} {pos}/{len}  {msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = || ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10)).with_style(style);
        Steps { context, bar: shown.then(bar), state: RefCell::new(State { first: None, told: None }) }
    }

    /// Shows a step of `steps`.
    pub fn show(&self, report: &StepReport, steps: u64) {
        if self.context.globals.json {
            return;
        }
        let mut state = self.state.borrow_mut();
        let (first, from) = *state.first.get_or_insert_with(|| (Instant::now(), report.step));
        let left = left(first.elapsed(), report.step - from, steps.saturating_sub(report.step));
        let text = describe(report, left);
        if let Some(bar) = &self.bar {
            bar.set_length(steps);
            bar.set_position(report.step);
            bar.set_message(text);
            return;
        }
        let due = state.told.is_none_or(|told| told.elapsed() >= BETWEEN) || self.context.globals.verbose;
        if due || report.step == steps || report.eval_loss.is_some() || report.skipped {
            state.told = Some(Instant::now());
            self.context.say(&format!("step {}/{steps}  {text}", report.step));
        }
    }
}

impl Drop for Steps<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// How long `left` steps take if `done` took so long.
fn left(elapsed: Duration, done: u64, left: u64) -> Option<Duration> {
    (done > 0).then(|| elapsed.mul_f64(left as f64 / done as f64))
}

fn describe(report: &StepReport, left: Option<Duration>) -> String {
    let mut text = match report.skipped {
        true => "left out".to_string(),
        false => format!("loss {:.4}", report.loss),
    };
    if let Some(loss) = report.eval_loss {
        text += &format!("  eval {loss:.4}");
    }
    text += &format!("  rate {:.2e}  gradient {:.3}", report.learning_rate, report.grad_norm);
    text += &format!("  {:.0} tokens/s  {}", report.tokens_per_second, size::show(report.peak_memory_bytes));
    match left.map(|left| left.as_secs()) {
        None => text,
        Some(seconds) if seconds < 60 => text + &format!("  {seconds} s left"),
        Some(seconds) if seconds < 3600 => text + &format!("  {}:{:02} left", seconds / 60, seconds % 60),
        Some(seconds) => text + &format!("  {}:{:02} h left", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_in_words() {
        let report = StepReport { step: 3, loss: 2.5, tokens_per_second: 1234.4, ..StepReport::default() };
        let shown = describe(&report, left(Duration::from_secs(10), 2, 20));
        assert_eq!(shown, "loss 2.5000  rate 0.00e0  gradient 0.000  1234 tokens/s  0 B  1:40 left");
        let with = StepReport { eval_loss: Some(2.0), skipped: true, ..report };
        assert!(describe(&with, left(Duration::from_secs(10), 0, 20)).starts_with("left out  eval 2.0000  rate"));
    }
}
