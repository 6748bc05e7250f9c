//! The loop: steps, and what happens between them.

use std::sync::atomic::Ordering;
use std::time::Instant;

use windlass_nn::schedule::Schedule;
use windlass_ops::Context;
use windlass_tensor::Limits;
use windlass_train::Trainer;
use windlass_train::data::{Data, Examples};

use super::checkpoints::Checkpoints;
use super::evaluation::Evaluation;
use super::events::Events;
use super::metrics::Metrics;
use super::{Observer, Options, curve};
use crate::{Code, Error, Result};

/// A training on its way.
pub struct Run<'a> {
    pub cx: &'a Context<'a, 'a>,
    pub options: &'a Options,
    pub observer: &'a Observer<'a>,
    pub trainer: Trainer,
    pub schedule: Schedule,
    pub data: &'a Data,
    pub eval: Option<&'a Examples>,
    pub evaluation: Evaluation,
    pub metrics: Metrics,
    pub events: Events,
    pub checkpoints: Checkpoints,
    /// The step that it went on after.
    pub resumed: Option<u64>,
}

impl Run<'_> {
    /// Goes on from the latest checkpoint where that is wanted, and drops what came after it.
    pub fn begin(&mut self, limits: &Limits) -> Result<()> {
        let step = if self.options.resume {
            self.checkpoints.clear_unfinished()?;
            self.restore(limits)?
        } else {
            self.checkpoints.clear()?;
            0
        };
        // What a schedule knows follows from the losses that it saw.
        self.metrics.cut_to(step, |report| {
            self.schedule.observe(report.loss);
            self.events.add(report)
        })
    }

    fn restore(&mut self, limits: &Limits) -> Result<u64> {
        let Some((step, state)) = self.checkpoints.latest(limits, self.observer.warn)? else {
            (self.observer.warn)("there is no checkpoint to go on from: training begins at the first step");
            return Ok(0);
        };
        let mut rest = self.trainer.restore(state)?;
        self.evaluation.restore(&mut rest)?;
        self.resumed = Some(step);
        Ok(step)
    }

    /// Takes all steps that are left, or as many as it makes sense to take.
    pub fn steps(&mut self) -> Result<()> {
        let steps = self.schedule.steps();
        let mut saved = Instant::now();
        while self.trainer.steps() < steps && !self.evaluation.is_over() {
            (self.observer.before)(self.trainer.steps() + 1);
            let rate = self.schedule.rate(self.trainer.steps());
            let Some(mut report) = self.trainer.step(self.cx, self.data, rate, self.observer.stop)? else {
                return Err(self.interrupted());
            };
            self.schedule.observe(report.loss);
            let step = report.step;
            let mut better = false;
            if let Some(eval) = self.eval.filter(|_| self.evaluation.is_due(step, steps)) {
                let loss = self.trainer.evaluate(self.cx, eval)?;
                report.eval_loss = Some(loss);
                better = self.evaluation.saw(step, loss);
            }
            self.metrics.add(&report)?;
            self.events.add(&report)?;
            (self.observer.step)(&report, steps);
            let asked = self.observer.checkpoint.swap(false, Ordering::Relaxed);
            let wanted = self.options.checkpoint_every.is_some_and(|every| every.is_due(step, saved.elapsed()));
            let last = step == steps || self.evaluation.is_over();
            let last = last && (self.options.checkpoint_every.is_some() || self.options.keep_best);
            if asked || wanted || last || (better && self.options.keep_best) {
                self.save()?;
                saved = Instant::now();
            }
            self.checkpoints.check()?;
        }
        self.checkpoints.finish()?;
        self.draw()
    }

    /// The loss to report at the end, after going back to the best parameters where they are to be kept.
    pub fn conclude(&mut self, limits: &Limits) -> Result<Option<f64>> {
        let Some(eval) = self.eval else { return Ok(None) };
        if let Some((loss, step)) = self.evaluation.best().filter(|_| self.options.keep_best) {
            if step != self.trainer.steps() {
                self.trainer.restore(self.checkpoints.read(step, limits)?)?;
            }
            return Ok(Some(loss));
        }
        let known = self.metrics.points().last().and_then(|point| point.eval_loss);
        known.map_or_else(|| Ok(self.trainer.evaluate(self.cx, eval)?), Ok).map(Some)
    }

    /// Begins to write a checkpoint of the state as it is now.
    fn save(&mut self) -> Result<()> {
        let mut state = self.trainer.state()?;
        self.evaluation.save(&mut state)?;
        let best = self.evaluation.best().map(|(_, step)| step).filter(|_| self.options.keep_best);
        self.checkpoints.write(self.trainer.steps(), state, best, self.metrics.handle()?)?;
        self.draw()
    }

    fn draw(&self) -> Result<()> {
        curve::write(&self.options.out.join("loss.svg"), self.metrics.points())
    }

    /// Writes a checkpoint, and says how to go on.
    fn interrupted(&mut self) -> Error {
        let step = self.trainer.steps();
        if step == 0 {
            return Error::new(Code::Failed, "stopped before the first step was done");
        }
        if let Err(error) = self.save().and_then(|()| self.checkpoints.finish()) {
            return error;
        }
        let place = self.checkpoints.last().unwrap_or_default();
        let mut error = Error::new(Code::Failed, format!("stopped after step {step}; {} is complete", place.display()));
        error.resumable = true;
        error.help("go on with --resume")
    }
}
