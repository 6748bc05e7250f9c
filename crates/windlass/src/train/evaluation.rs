//! The loss on examples that are kept apart: the best so far, and when to give up.

use windlass_tensor::{Tensor, TypedTensor};
use windlass_train::State;

use super::Options;
use crate::{Code, Error, Result};

/// The best loss; F64 `[1]`.
const BEST: &str = "evaluation.best";
/// The step of the best, and evaluations since; I64 `[2]`.
const COUNTS: &str = "evaluation.counts";

/// What evaluations came to so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    every: Option<u64>,
    /// Evaluations without a better loss after which training ends.
    patience: Option<u64>,
    /// Loss and step.
    best: Option<(f64, u64)>,
    waited: u64,
}

impl Evaluation {
    /// As the options say, which must go together.
    pub fn new(options: &Options, examples: bool) -> Result<Evaluation> {
        let needed = [("eval-every", options.eval_every.is_some()), ("early-stop", options.early_stop.is_some())];
        let needed = needed.into_iter().chain([("keep-best", options.keep_best)]);
        if let Some((flag, _)) = needed.clone().find(|(_, is)| *is && !examples) {
            return Err(Error::usage(format!("--{flag} needs examples to evaluate"))
                .help("give --eval-data FILE or --eval-split X"));
        }
        if let Some((flag, _)) = needed.skip(1).find(|(_, is)| *is && options.eval_every.is_none()) {
            return Err(Error::usage(format!("--{flag} needs --eval-every N")));
        }
        if options.eval_every == Some(0) || options.early_stop == Some(0) {
            return Err(Error::usage("--eval-every and --early-stop must be at least 1"));
        }
        Ok(Evaluation { every: options.eval_every, patience: options.early_stop, ..Evaluation::default() })
    }

    /// Whether to evaluate after `step` of `steps`.
    pub fn is_due(&self, step: u64, steps: u64) -> bool {
        self.every.is_some_and(|every| step.is_multiple_of(every) || step == steps)
    }

    /// Takes the loss after `step`. Says whether it is the best so far.
    pub fn saw(&mut self, step: u64, loss: f64) -> bool {
        let better = self.best.is_none_or(|(best, _)| loss < best) && !loss.is_nan();
        if better {
            self.best = Some((loss, step));
        }
        self.waited = if better { 0 } else { self.waited + 1 };
        better
    }

    /// Whether the loss did not get better for so long that training ends.
    pub fn is_over(&self) -> bool {
        self.patience.is_some_and(|patience| self.waited >= patience)
    }

    /// The best loss, and its step.
    pub fn best(&self) -> Option<(f64, u64)> {
        self.best
    }

    /// Puts what is known into a checkpoint.
    pub fn save(&self, state: &mut State) -> Result<()> {
        if let Some((loss, step)) = self.best {
            state.insert(BEST.into(), Tensor::from_slice(&[loss], [1])?);
            state.insert(COUNTS.into(), Tensor::from_slice(&[step as i64, self.waited as i64], [2])?);
        }
        Ok(())
    }

    /// Takes what [`Evaluation::save`] put there.
    pub fn restore(&mut self, state: &mut State) -> Result<()> {
        let (Some(best), Some(counts)) = (state.remove(BEST), state.remove(COUNTS)) else { return Ok(()) };
        let (best, counts) = (TypedTensor::<f64>::new(best)?.to_vec()?, TypedTensor::<i64>::new(counts)?.to_vec()?);
        let ([best], [step, waited]) = (best.as_slice(), counts.as_slice()) else {
            return Err(Error::new(Code::Refused, format!("{BEST} and {COUNTS} have other shapes than [1] and [2]")));
        };
        (self.best, self.waited) = (Some((*best, (*step).max(0) as u64)), (*waited).max(0) as u64);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn training_ends_after_so_many_losses_that_are_no_better() {
        let options = Options { eval_every: Some(5), early_stop: Some(2), ..Options::default() };
        let mut evaluation = Evaluation::new(&options, true).unwrap();
        assert!(evaluation.is_due(5, 12) && !evaluation.is_due(6, 12) && evaluation.is_due(12, 12));
        assert!(evaluation.saw(5, 2.0) && !evaluation.saw(10, 2.0) && !evaluation.is_over());
        let mut state = State::new();
        evaluation.save(&mut state).unwrap();
        let mut later = Evaluation::new(&options, true).unwrap();
        later.restore(&mut state).unwrap();
        assert!(state.is_empty() && later == evaluation);
        assert!(!later.saw(15, f64::NAN) && later.is_over());
        assert!(later.saw(20, 1.0) && !later.is_over());
        assert_eq!(later.best(), Some((1.0, 20)));
    }

    #[test]
    fn what_is_missing_is_told() {
        let told = |options: &Options, examples| Evaluation::new(options, examples).unwrap_err().to_string();
        let every = Options { eval_every: Some(5), ..Options::default() };
        assert!(told(&every, false).contains("--eval-every needs examples"));
        let stop = Options { early_stop: Some(5), ..Options::default() };
        assert!(told(&stop, true).contains("--early-stop needs --eval-every"));
        let best = Options { keep_best: true, ..Options::default() };
        assert!(told(&best, true).contains("--keep-best needs --eval-every"));
    }
}
