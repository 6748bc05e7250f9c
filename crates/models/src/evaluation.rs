//! How well a model predicts a text, and how far it is from another.

use std::sync::{Mutex, PoisonError};

use windlass_ops::Context;
use windlass_tensor::TypedTensor;

use crate::{Cache, Decoder, Error, Wanted};

/// Bytes of logits that are looked at together, of each model.
const LOGITS: usize = 64 << 20;

/// Scores windows of a text: the logits of a part of one window are the most that is held.
///
/// Each window starts from nothing. Tokens of its first half are read, and those of its second half are scored: every
/// token is predicted from at least half a window, as llama.cpp's `perplexity` does it.
pub struct Evaluation<'a> {
    model: (&'a Decoder, Cache),
    base: Option<(&'a Decoder, Cache)>,
    window: usize,
    scores: Scores,
}

/// What was found on the tokens that were scored.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    /// Tokens that were scored.
    pub tokens: usize,
    /// Sum of minus the logarithms of the probabilities that the model gave to them.
    pub loss: f64,
    loss_squares: f64,
    /// The same of the model that it is compared with.
    pub base_loss: f64,
    /// Kullback-Leibler divergence of each token's distribution from that of the other model, in nats.
    divergences: Vec<f64>,
    /// Tokens for which both take the same one for the likeliest.
    same_top: usize,
}

/// One position.
#[derive(Clone, Copy)]
struct Position {
    loss: f64,
    base: Option<(f64, f64, bool)>,
}

impl<'a> Evaluation<'a> {
    /// Scores `model` in windows of `window` tokens, and against `base` if there is one, each with a cache that has room
    /// for a window. The two need the same vocabulary, and a window at least two tokens.
    pub fn new(model: (&'a Decoder, Cache), base: Option<(&'a Decoder, Cache)>, window: usize) -> Result<Self, Error> {
        if window < 2 {
            return Err(Error::Context { tokens: 2, context: window });
        }
        if let Some((base, _)) = base.as_ref().filter(|(base, _)| base.hyper().vocab() != model.0.hyper().vocab()) {
            let (found, expected) = (model.0.hyper().vocab(), base.hyper().vocab());
            return Err(Error::Vocabulary { found, expected });
        }
        Ok(Self { model, base, window, scores: Scores::default() })
    }

    /// Tokens whose logits are looked at together.
    pub fn at_once(vocabulary: usize) -> usize {
        (LOGITS / (4 * vocabulary.max(1))).max(1)
    }

    /// Scores one window, which has as many tokens as was said. `each` is told how many of them were read since the last
    /// call, and says whether to go on; the scores of a window that was left are in.
    pub fn window(&mut self, cx: &Context, tokens: &[u32], each: &mut dyn FnMut(usize) -> bool) -> Result<bool, Error> {
        if tokens.len() != self.window {
            return Err(Error::Context { tokens: tokens.len(), context: self.window });
        }
        let first = self.window / 2;
        for (decoder, cache) in std::iter::once(&mut self.model).chain(&mut self.base) {
            cache.truncate(0);
            decoder.forward(cx, &tokens[..first], cache, Wanted::None)?;
        }
        if !each(first) {
            return Ok(false);
        }
        let vocabulary = self.model.0.hyper().vocab();
        let at_once = Self::at_once(vocabulary);
        // The last token predicts what is not in the window.
        let positions: Vec<usize> = (first..tokens.len() - 1).collect();
        for part in positions.chunks(at_once) {
            let (from, to) = (part[0], part[0] + part.len());
            let logits = logits_of(cx, &mut self.model, &tokens[from..to])?;
            let base = self.base.as_mut().map(|base| logits_of(cx, base, &tokens[from..to])).transpose()?;
            let base = base.as_ref().map(TypedTensor::values).transpose()?;
            let found = positions_of(cx, &logits.values()?, base.as_deref(), &tokens[from + 1..=to], vocabulary);
            found.into_iter().for_each(|position| self.scores.add(position));
            if !each(part.len()) {
                return Ok(false);
            }
        }
        each(1);
        Ok(true)
    }

    /// What was found so far.
    pub fn scores(&self) -> &Scores {
        &self.scores
    }
}

fn logits_of(cx: &Context, model: &mut (&Decoder, Cache), tokens: &[u32]) -> Result<TypedTensor<f32>, Error> {
    let missing = Error::Context { tokens: 0, context: model.1.context() };
    let logits = model.0.forward(cx, tokens, &mut model.1, Wanted::All)?.ok_or(missing)?;
    Ok(TypedTensor::new(logits)?)
}

/// Scores rows of logits, each against the token that came next.
fn positions_of(cx: &Context, logits: &[f32], base: Option<&[f32]>, next: &[u32], vocabulary: usize) -> Vec<Position> {
    let rows = Mutex::new(vec![Position { loss: 0.0, base: None }; next.len()]);
    cx.session().balance(next.len(), 1, &|range| {
        for row in range {
            let at = row * vocabulary..(row + 1) * vocabulary;
            let base = base.map(|base| &base[at.clone()]);
            let position = position(&logits[at], base, next[row] as usize);
            rows.lock().unwrap_or_else(PoisonError::into_inner)[row] = position;
        }
    });
    rows.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn position(logits: &[f32], base: Option<&[f32]>, next: usize) -> Position {
    let own = Normaliser::of(logits);
    let base = base.map(|base| {
        let other = Normaliser::of(base);
        let same = own.top(logits) == other.top(base);
        (other.loss(base[next]), divergence(logits, &own, base, &other), same)
    });
    Position { loss: own.loss(logits[next]), base }
}

/// Values that sums in single precision have at most, before they go on in double precision.
const CHUNK: usize = 256;

/// What turns a row of logits into logarithms of probabilities.
struct Normaliser {
    largest: f32,
    /// The logarithm of the sum of the exponentials.
    norm: f64,
}

impl Normaliser {
    fn of(row: &[f32]) -> Normaliser {
        let (lines, rest) = row.as_chunks::<16>();
        let mut high = [f32::NEG_INFINITY; 16];
        for line in lines {
            for i in 0..16 {
                high[i] = if line[i] > high[i] { line[i] } else { high[i] };
            }
        }
        let largest = rest.iter().chain(&high).fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        let mut sum = 0.0;
        for chunk in row.chunks(CHUNK) {
            let (lines, rest) = chunk.as_chunks::<16>();
            let mut sums = [0.0f32; 16];
            for line in lines {
                for i in 0..16 {
                    sums[i] += exp(line[i] - largest);
                }
            }
            sum += sums.iter().map(|v| f64::from(*v)).sum::<f64>();
            sum += rest.iter().map(|v| f64::from(exp(v - largest))).sum::<f64>();
        }
        Normaliser { largest, norm: f64::ln(sum) + f64::from(largest) }
    }

    /// The first place of the largest.
    fn top(&self, row: &[f32]) -> Option<usize> {
        row.iter().position(|value| *value == self.largest)
    }

    /// Minus the logarithm of the probability that belongs to a logit.
    fn loss(&self, logit: f32) -> f64 {
        self.norm - f64::from(logit)
    }
}

/// Kullback-Leibler divergence of a distribution from `base`.
fn divergence(logits: &[f32], own: &Normaliser, base: &[f32], other: &Normaliser) -> f64 {
    let (scale, shift) = ((f64::from(other.largest) - other.norm).exp(), own.norm - other.norm);
    let mut sum = 0.0;
    for (own, base) in logits.chunks(CHUNK).zip(base.chunks(CHUNK)) {
        let mut part = [0.0f64; 8];
        let ((own, own_rest), (base, base_rest)) = (own.as_chunks::<8>(), base.as_chunks::<8>());
        let each =
            |own: f32, base: f32| f64::from(exp(base - other.largest)) * (f64::from(base) - f64::from(own) + shift);
        for (own, base) in own.iter().zip(base) {
            for i in 0..8 {
                part[i] += each(own[i], base[i]);
            }
        }
        sum += part.iter().sum::<f64>() + own_rest.iter().zip(base_rest).map(|(o, b)| each(*o, *b)).sum::<f64>();
    }
    sum * scale
}

/// e to a number that is not above 0, within 2e-7 of itself; the compiler makes vectors of it. What is below -87 counts as
/// that, which adds nothing to a sum that has a one in it.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding this number leaves a whole number in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // The logarithm of 2 in two parts, the first of which has few bits.
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    // Not a maximum: what is not a number stays so.
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * HIGH - n * LOW;
    // Taylor's polynomial with its last terms adjusted to the range of half a power of two.
    let p = 1.987_569_1e-4_f32;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let fraction = p * r * r + r + 1.0;
    fraction * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

impl Scores {
    fn add(&mut self, position: Position) {
        self.tokens += 1;
        self.loss += position.loss;
        self.loss_squares += position.loss * position.loss;
        if let Some((loss, divergence, same)) = position.base {
            self.base_loss += loss;
            self.divergences.push(divergence);
            self.same_top += usize::from(same);
        }
    }

    /// The exponential of the mean loss.
    pub fn perplexity(&self) -> f64 {
        (self.loss / self.tokens as f64).exp()
    }

    /// The perplexity of the model that it is compared with.
    pub fn base_perplexity(&self) -> Option<f64> {
        (!self.divergences.is_empty()).then(|| (self.base_loss / self.tokens as f64).exp())
    }

    /// Standard error of the perplexity, taking tokens for independent.
    pub fn perplexity_error(&self) -> f64 {
        let count = self.tokens as f64;
        let mean = self.loss / count;
        let variance = (self.loss_squares / count - mean * mean).max(0.0);
        (variance / (count - 1.0).max(1.0)).sqrt() * self.perplexity()
    }

    /// Mean divergence in nats.
    pub fn mean_divergence(&self) -> Option<f64> {
        let count = self.divergences.len();
        (count > 0).then(|| self.divergences.iter().sum::<f64>() / count as f64)
    }

    /// The divergence that `share` of the tokens do not exceed, interpolated between its neighbours.
    pub fn divergence_at(&self, share: f64) -> Option<f64> {
        let mut sorted = self.divergences.clone();
        sorted.sort_by(f64::total_cmp);
        let place = share * sorted.len().checked_sub(1)? as f64;
        let low = *sorted.get(place as usize)?;
        let high = sorted.get(place as usize + 1).copied().unwrap_or(low);
        Some(low + (high - low) * place.fract())
    }

    /// Share of the tokens for which both take the same one for the likeliest.
    pub fn agreement(&self) -> Option<f64> {
        let count = self.divergences.len();
        (count > 0).then(|| self.same_top as f64 / count as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against sums written out for three entries.
    #[test]
    fn a_position_is_scored_as_the_definitions_say() {
        let (own, base) = ([1.0f32, 2.0, 0.5], [1.5f32, 1.0, 0.0]);
        let share = |values: [f32; 3], i: usize| {
            let sum: f64 = values.iter().map(|v| f64::from(*v).exp()).sum();
            f64::from(values[i]).exp() / sum
        };
        let found = position(&own, Some(&base), 2);
        assert!((found.loss + share(own, 2).ln()).abs() < 1e-7);
        let (base_loss, divergence, same) = found.base.unwrap();
        assert!((base_loss + share(base, 2).ln()).abs() < 1e-7 && !same);
        let expected: f64 = (0..3).map(|i| share(base, i) * (share(base, i) / share(own, i)).ln()).sum();
        assert!((divergence - expected).abs() < 1e-7, "{divergence} {expected}");
    }

    #[test]
    fn exponentials_are_near_those_of_double_precision() {
        for i in 0..87_000 {
            let x = -(i as f32) * 1e-3;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / expected - 1.0).abs() < 2.5e-7, "{x}: {found} {expected}");
        }
        assert!(exp(-1000.0) < 1e-37 && exp(f32::NEG_INFINITY) < 1e-37 && exp(f32::NAN).is_nan());
    }

    /// Rows as long as vocabularies, against sums in double precision.
    #[test]
    fn long_rows_are_summed_as_in_double_precision() {
        let row = |step: f32| (0..150_001).map(|i| (i as f32 * step).sin() * 9.0).collect::<Vec<f32>>();
        let (own, base) = (row(0.37), row(0.41));
        let norm = |row: &[f32]| row.iter().map(|v| f64::from(*v).exp()).sum::<f64>().ln();
        let (own_norm, base_norm) = (norm(&own), norm(&base));
        let expected: f64 = own
            .iter()
            .zip(&base)
            .map(|(o, b)| {
                let (o, b) = (f64::from(*o) - own_norm, f64::from(*b) - base_norm);
                b.exp() * (b - o)
            })
            .sum();
        let found = position(&own, Some(&base), 77);
        assert!((found.loss - (own_norm - f64::from(own[77]))).abs() < 1e-6);
        assert!((found.base.unwrap().1 / expected - 1.0).abs() < 1e-6);
    }

    #[test]
    fn equal_rows_have_no_divergence() {
        let row: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin() * 20.0).collect();
        let (_, divergence, same) = position(&row, Some(&row), 3).base.unwrap();
        assert!(divergence == 0.0 && same);
    }

    #[test]
    fn shares_are_interpolated() {
        let scores = Scores { divergences: vec![3.0, 1.0, 2.0, 0.0], ..Scores::default() };
        assert_eq!(scores.divergence_at(0.5), Some(1.5));
        assert_eq!(scores.divergence_at(1.0), Some(3.0));
        assert_eq!(Scores::default().divergence_at(0.5), None);
    }
}
