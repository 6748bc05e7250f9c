//! Which provider is the fastest on this machine: for each op, type and size, by trying.

use std::fmt::Write;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Question, candidates};
use crate::provider::{Reference, providers};
use crate::survey::{Profile, Surveyed, types};
use crate::{Context, Error, Inquiry, Op, ops};

/// Time that one kernel is measured for at least, unless a single call takes longer.
const SPAN: Duration = Duration::from_millis(1);
/// Most calls of one kernel.
const CALLS: usize = 200;
/// How much faster a kernel must be than the one that comes first anyway; less is chance.
const MARGIN: f64 = 0.9;

/// How fast the providers are with one family of arguments.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measurement {
    pub op: &'static str,
    /// Of the largest input, in lower case.
    pub dtype: String,
    /// Values of the first output.
    pub size: usize,
    /// Seconds of the fastest call of each provider, the one that comes first by the built-in order at the front.
    pub seconds: Vec<(&'static str, f64)>,
}

impl Measurement {
    /// The provider to prefer.
    pub fn best(&self) -> Option<&'static str> {
        let (first, usual) = *self.seconds.first()?;
        let fastest = self.seconds.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(if fastest.1 < MARGIN * usual { fastest.0 } else { first })
    }
}

/// Measures every op that has more than one kernel on `device`, or `only` one. `progress` is told of ops done and in all,
/// and says whether to go on; what was measured until then is given.
pub fn measure(
    cx: &Context,
    device: &str,
    only: Option<&'static Op>,
    progress: &dyn Fn(u64, u64) -> bool,
) -> Result<Vec<Measurement>, Error> {
    let kind = device.split(':').next().unwrap_or(device);
    let served = |op: &Op| providers().iter().any(|p| p.device == kind && p.kernel(op.name).is_some());
    let all = ops().iter().filter(|op| only.is_none_or(|one| one.name == op.name) && served(op));
    let all: Vec<&'static Op> = all.copied().collect();
    let mut found = Vec::new();
    for (number, op) in all.iter().enumerate() {
        for profile in (op.profiles)(op) {
            for surveyed in types(&profile, false) {
                found.extend(try_one(cx, op, &profile, surveyed)?);
            }
        }
        if !progress(number as u64 + 1, all.len() as u64) {
            break;
        }
    }
    Ok(found)
}

/// Nothing where the arguments cannot be made, or only one kernel takes them.
fn try_one(cx: &Context, op: &'static Op, profile: &Profile, surveyed: Surveyed) -> Result<Option<Measurement>, Error> {
    let made = profile.inputs.iter().enumerate().map(|(i, sample)| sample.make(i as u64 + 1, surveyed));
    let Some(made) = made.collect::<Result<Option<Vec<_>>, Error>>()? else { return Ok(None) };
    let inputs: Vec<_> = made.iter().collect();
    let inquiry = Inquiry { op, inputs: &inputs, attributes: &profile.attributes };
    // Some profiles try what only the reference takes, or nobody.
    let Ok(outputs) = Context::new(cx.session()).with_provider(Reference::NAME).call(op, &inputs, &profile.attributes)
    else {
        return Ok(None);
    };
    let question = Question::of(&inquiry, &outputs);
    let mut seconds: Vec<(&'static str, f64)> = Vec::new();
    let built_in = candidates(&question).into_iter().filter(|candidate| &*candidate.source == "built-in");
    for candidate in built_in {
        let context = Context::new(cx.session()).with_provider(candidate.provider);
        let best = seconds.iter().map(|(_, time)| *time).fold(f64::INFINITY, f64::min);
        let call = || context.call(op, &inputs, &profile.attributes).map(drop);
        if let Some(time) = fastest(&call, best) {
            seconds.push((candidate.provider, time));
        }
    }
    let measured = Measurement { op: op.name, dtype: question.dtype.to_lowercase(), size: question.values, seconds };
    Ok((measured.seconds.len() > 1 && measured.size > 0).then_some(measured))
}

/// Seconds of the fastest of some calls; `None` where there is no kernel. What is far from `best` is not tried again.
fn fastest(call: &dyn Fn() -> Result<(), Error>, best: f64) -> Option<f64> {
    let (start, mut least) = (Instant::now(), f64::INFINITY);
    for number in 0..CALLS {
        let begun = Instant::now();
        call().ok()?;
        let time = begun.elapsed().as_secs_f64();
        // The first call fetches code and data that the others find.
        if number > 0 || time > 4.0 * best {
            least = least.min(time);
        }
        if number > 2 && start.elapsed() > SPAN || time > 20.0 * best {
            break;
        }
    }
    least.is_finite().then_some(least)
}

/// The table that measurements make: for each op and type the provider that won, with a border between two sizes of which
/// different ones won.
pub fn table(measurements: &[Measurement]) -> String {
    let mut text = String::new();
    let mut sorted: Vec<&Measurement> = measurements.iter().collect();
    sorted.sort_by(|a, b| (a.op, &a.dtype, a.size).cmp(&(b.op, &b.dtype, b.size)));
    for same in sorted.chunk_by(|a, b| (a.op, &a.dtype) == (b.op, &b.dtype)) {
        // Of measurements with the same size, the slower one decides: its arguments are where the time goes.
        let mut winners: Vec<(usize, &'static str, f64)> = Vec::new();
        for one in same {
            let Some(best) = one.best() else { continue };
            let time = one.seconds.iter().map(|(_, time)| *time).fold(f64::INFINITY, f64::min);
            match winners.last_mut().filter(|last| last.0 == one.size) {
                Some(last) if last.2 >= time => {}
                Some(last) => *last = (one.size, best, time),
                None => winners.push((one.size, best, time)),
            }
        }
        let (mut from, mut rest) = (0, winners.as_slice());
        while let Some((_, provider, _)) = rest.first() {
            let count = rest.iter().take_while(|(_, name, _)| name == provider).count();
            let to = rest.get(count).map(|next| (rest[count - 1].0 * next.0).isqrt().max(rest[count - 1].0 + 1));
            let end = to.map_or(String::new(), |to| to.to_string());
            let size = if from == 0 && to.is_none() { String::new() } else { format!(" size {from}..{end}") };
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{} dtype {}{size} = {provider}", same[0].op, same[0].dtype);
            (from, rest) = (to.unwrap_or(usize::MAX), &rest[count..]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(size: usize, first: f64, reference: f64) -> Measurement {
        let seconds = vec![("simd", first), ("reference", reference)];
        Measurement { op: "softmax", dtype: "f32".into(), size, seconds }
    }

    #[test]
    fn borders_lie_between_sizes_with_different_winners() {
        let all = [one(4, 5.0, 1.0), one(100, 1.0, 9.0), one(16, 5.0, 1.0), one(1000, 1.0, 9.0)];
        assert_eq!(table(&all), "softmax dtype f32 size 0..40 = reference\nsoftmax dtype f32 size 40.. = simd\n");
        assert_eq!(table(&all[1..2]), "softmax dtype f32 = simd\n");
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn what_is_hardly_faster_does_not_win_and_the_slower_of_one_size_decides() {
        assert_eq!(one(1, 1.0, 0.95).best(), Some("simd"));
        assert_eq!(one(1, 1.0, 0.5).best(), Some("reference"));
        assert_eq!(table(&[one(7, 1.0, 0.5), one(7, 2.0, 9.0)]), "softmax dtype f32 = simd\n");
    }

    /// The reference alone serves these ops here, so that nothing is to be chosen.
    #[test]
    fn ops_with_one_kernel_are_not_measured() {
        let only = crate::op("topk").ok();
        assert_eq!(Context::here(|cx| measure(cx, "cpu", only, &|_, _| true)).unwrap(), []);
    }
}
