//! Choosing the next token.

use std::collections::HashMap;

use windlass_runtime::random::Philox;

use crate::Error;

/// How tokens are chosen. The default is greedy.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// What logits are divided by; 0 takes the largest.
    pub temperature: f32,
    /// Only so many of the likeliest; 0: all.
    pub top_k: usize,
    /// Only the likeliest that together have this probability; 1: all (arXiv 1904.09751).
    pub top_p: f32,
    /// Only those at least this many times as likely as the likeliest; 0: all (arXiv 2407.01082).
    pub min_p: f32,
    /// What logits of tokens that were there are divided by (or multiplied with, below 0); 1: nothing.
    pub repeat_penalty: f32,
    /// Taken off the logit of a token that was there.
    pub presence_penalty: f32,
    /// Taken off for each time that it was there.
    pub frequency_penalty: f32,
    /// How many of the last tokens count as having been there.
    pub penalty_last: usize,
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            penalty_last: 64,
            seed: 0,
        }
    }
}

impl Sampling {
    fn check(&self) -> Result<(), Error> {
        let setting = |name, expected, found: f32, good: bool| match good {
            true => Ok(()),
            false => Err(Error::Setting { name, expected, found }),
        };
        setting("temperature", "0 or more", self.temperature, self.temperature >= 0.0 && self.temperature.is_finite())?;
        setting("top-p", "above 0 and at most 1", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0)?;
        setting("min-p", "from 0 to 1", self.min_p, (0.0..=1.0).contains(&self.min_p))?;
        setting("repeat-penalty", "above 0", self.repeat_penalty, self.repeat_penalty > 0.0)?;
        let penalties = self.presence_penalty.is_finite() && self.frequency_penalty.is_finite();
        setting("a penalty", "a number", self.presence_penalty, penalties)
    }
}

/// Chooses tokens, one after the other. The same seed and logits give the same tokens.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: Philox,
    /// Candidates, kept to spare allocations.
    candidates: Vec<(u32, f32)>,
}

impl Sampler {
    /// Refuses settings out of their range.
    pub fn new(sampling: Sampling) -> Result<Sampler, Error> {
        sampling.check()?;
        Ok(Sampler { random: Philox::new(sampling.seed), sampling, candidates: Vec::new() })
    }

    /// The next token, given a logit for each entry of the vocabulary and the tokens so far.
    pub fn pick(&mut self, logits: &[f32], history: &[u32]) -> Result<u32, Error> {
        let (best, largest) = largest(logits)?;
        let s = &self.sampling;
        let penalised = s.repeat_penalty != 1.0 || s.presence_penalty != 0.0 || s.frequency_penalty != 0.0;
        if s.temperature == 0.0 && !penalised {
            return Ok(best);
        }
        // What is this much less likely than the likeliest is never drawn in single precision.
        let least = if penalised { f32::NEG_INFINITY } else { largest - 104.0 * s.temperature };
        self.candidates.clear();
        let each = logits.iter().enumerate().filter(|(_, logit)| **logit >= least);
        self.candidates.extend(each.map(|(token, logit)| (token as u32, *logit)));
        if penalised {
            penalise(&mut self.candidates, &self.sampling, history);
        }
        let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if self.sampling.temperature == 0.0 {
            return Ok(self.candidates.iter().min_by(|a, b| order(a, b)).map_or(best, |c| c.0));
        }
        let keep = self.sampling.top_k;
        if keep > 0 && keep < self.candidates.len() {
            self.candidates.select_nth_unstable_by(keep - 1, order);
            self.candidates.truncate(keep);
        }
        self.candidates.sort_unstable_by(order);
        Ok(self.draw().unwrap_or(best))
    }

    /// Draws from the candidates, which are sorted by logit.
    fn draw(&mut self) -> Option<u32> {
        let first = self.candidates.first()?.1;
        let by = self.sampling.temperature;
        let mut sum = 0.0f64;
        for (_, weight) in &mut self.candidates {
            *weight = ((*weight - first) / by).exp();
            sum += f64::from(*weight);
        }
        let (mut kept, mut mass) = (0, 0.0f64);
        for (_, weight) in &self.candidates {
            if kept > 0 && (*weight < self.sampling.min_p || mass >= f64::from(self.sampling.top_p) * sum) {
                break;
            }
            mass += f64::from(*weight);
            kept += 1;
        }
        let mut left = self.random.uniform_f64() * mass;
        let kept = &self.candidates[..kept];
        for (token, weight) in kept {
            left -= f64::from(*weight);
            if left < 0.0 {
                return Some(*token);
            }
        }
        kept.last().map(|c| c.0)
    }
}

fn largest(logits: &[f32]) -> Result<(u32, f32), Error> {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, logit) in logits.iter().enumerate() {
        if logit.is_nan() || *logit == f32::INFINITY {
            return Err(Error::NotFinite { value: *logit, token });
        }
        if *logit > best.1 {
            best = (token as u32, *logit);
        }
    }
    Ok(best)
}

fn penalise(candidates: &mut [(u32, f32)], how: &Sampling, history: &[u32]) {
    let mut counts: HashMap<u32, f32> = HashMap::new();
    let last = &history[history.len().saturating_sub(how.penalty_last)..];
    last.iter().for_each(|token| *counts.entry(*token).or_default() += 1.0);
    for (token, logit) in candidates {
        let Some(count) = counts.get(token) else { continue };
        *logit = if *logit > 0.0 { *logit / how.repeat_penalty } else { *logit * how.repeat_penalty };
        *logit -= how.presence_penalty + how.frequency_penalty * count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(sampling: Sampling, logits: &[f32], draws: usize) -> Vec<f64> {
        let mut sampler = Sampler::new(sampling).unwrap();
        let mut counts = vec![0usize; logits.len()];
        (0..draws).for_each(|_| counts[sampler.pick(logits, &[]).unwrap() as usize] += 1);
        counts.iter().map(|c| *c as f64 / draws as f64).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let mut sampler = Sampler::new(Sampling::default()).unwrap();
        assert_eq!(sampler.pick(&[0.0, 3.0, 3.0, -1.0], &[]).unwrap(), 1);
        assert!(matches!(sampler.pick(&[0.0, f32::NAN], &[]), Err(Error::NotFinite { token: 1, .. })));
    }

    #[test]
    fn draws_follow_the_softmax_of_logits_over_temperature() {
        let logits = [1.0f32, 0.0, -1.0, -60.0];
        let found = shares(Sampling { temperature: 0.5, ..Sampling::default() }, &logits, 40_000);
        let weights: Vec<f64> = logits.iter().map(|l| (f64::from(*l) / 0.5).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for (found, weight) in found.iter().zip(weights) {
            assert!((found - weight / sum).abs() < 0.01, "{found} {}", weight / sum);
        }
    }

    #[test]
    fn filters_leave_the_likeliest() {
        let logits = [2.0f32, 1.0, 0.0, -1.0];
        let hot = Sampling { temperature: 1.0, ..Sampling::default() };
        let kept = |sampling: Sampling| shares(sampling, &logits, 2000).iter().filter(|share| **share > 0.0).count();
        assert_eq!(kept(hot.clone()), 4);
        assert_eq!(kept(Sampling { top_k: 2, ..hot.clone() }), 2);
        assert_eq!(kept(Sampling { top_p: 0.6, ..hot.clone() }), 1);
        assert_eq!(kept(Sampling { top_p: 0.7, ..hot.clone() }), 2);
        assert_eq!(kept(Sampling { min_p: 0.2, ..hot }), 2);
    }

    #[test]
    fn the_same_seed_gives_the_same_tokens() {
        let draws = |seed| {
            let sampling = Sampling { temperature: 1.0, seed, ..Sampling::default() };
            let mut sampler = Sampler::new(sampling).unwrap();
            (0..50).map(|_| sampler.pick(&[0.0; 100], &[]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
    }

    #[test]
    fn penalties_weigh_what_was_there() {
        let pick = |sampling: Sampling| Sampler::new(sampling).unwrap().pick(&[2.0, 1.9, -1.0], &[0, 0]).unwrap();
        assert_eq!(pick(Sampling { repeat_penalty: 1.2, ..Sampling::default() }), 1);
        assert_eq!(pick(Sampling { presence_penalty: 0.2, ..Sampling::default() }), 1);
        assert_eq!(pick(Sampling { frequency_penalty: 0.04, ..Sampling::default() }), 0);
        assert_eq!(pick(Sampling { frequency_penalty: 0.06, ..Sampling::default() }), 1);
        assert_eq!(pick(Sampling { repeat_penalty: 1.2, penalty_last: 0, ..Sampling::default() }), 0);
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for sampling in [
            Sampling { temperature: -1.0, ..Sampling::default() },
            Sampling { top_p: 0.0, ..Sampling::default() },
            Sampling { min_p: 1.5, ..Sampling::default() },
            Sampling { repeat_penalty: 0.0, ..Sampling::default() },
        ] {
            assert!(matches!(Sampler::new(sampling), Err(Error::Setting { .. })));
        }
    }
}
