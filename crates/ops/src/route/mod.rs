//! Routes: which provider serves an op for a type, a size and a device.
//!
//! Tables come, lowest first, from the built-in order of providers, what was measured on this machine, files, the
//! environment, and the call. The first line from above that fits decides.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use windlass_tensor::Tensor;

use crate::op::Inquiry;
use crate::provider::{self, Reference, providers};
use crate::{Args, Error};

mod grammar;
mod measure;
mod overview;

pub use grammar::{Line, Table, parse};
pub use measure::{Measurement, measure, table};
pub use overview::{Route, explain, overview};

/// Where a table comes from; a later layer is asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// What `tune` measured on this machine.
    Measured,
    /// A file.
    File,
    /// `WINDLASS_ROUTES`.
    Environment,
    /// The program.
    Call,
}

/// What routes are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    pub op: &'static str,
    pub device: &'a str,
    /// Element of the input that is the largest: `F32`, `q4_0`.
    pub dtype: &'a str,
    /// Values of the first output.
    pub values: usize,
}

/// A kernel that a route leads to.
#[derive(Clone)]
pub struct Candidate {
    pub provider: &'static str,
    pub source: Arc<str>,
    pub(crate) run: fn(&mut Args) -> Result<(), Error>,
    supports: fn(&Inquiry) -> Result<(), &'static str>,
}

static TABLES: RwLock<Vec<(Layer, Arc<Table>)>> = RwLock::new(Vec::new());
static VERSION: AtomicU64 = AtomicU64::new(0);

/// Replaces the table of a layer; takes effect at once, also for calls of other threads.
pub fn set(layer: Layer, table: Table) {
    let mut tables = TABLES.write().unwrap_or_else(|e| e.into_inner());
    tables.retain(|(l, _)| *l != layer);
    tables.push((layer, Arc::new(table)));
    tables.sort_by_key(|(layer, _)| std::cmp::Reverse(*layer));
    VERSION.fetch_add(1, Ordering::Release);
}

/// The tables, the one that is asked first at the front.
fn tables() -> Vec<Arc<Table>> {
    TABLES.read().unwrap_or_else(|e| e.into_inner()).iter().map(|(_, table)| table.clone()).collect()
}

/// Takes the table of a layer away.
pub fn clear(layer: Layer) {
    TABLES.write().unwrap_or_else(|e| e.into_inner()).retain(|(l, _)| *l != layer);
    VERSION.fetch_add(1, Ordering::Release);
}

impl<'a> Question<'a> {
    /// The question that a call poses.
    pub fn of(inquiry: &Inquiry<'a>, outputs: &[Tensor]) -> Question<'a> {
        let largest = inquiry.inputs.iter().max_by_key(|tensor| tensor.shape().values());
        Question {
            op: inquiry.op.name,
            device: largest.map_or("cpu", |tensor| tensor.device()),
            dtype: largest.map_or("", |tensor| tensor.element().name()),
            values: outputs.first().map_or(0, |tensor| tensor.shape().values()),
        }
    }
}

/// All providers that a call may be served by, the preferred one first; with where that comes from.
pub fn candidates(question: &Question) -> Vec<Candidate> {
    let kind = question.device.split(':').next().unwrap_or(question.device);
    let all = providers();
    let mut found: Vec<Candidate> = Vec::new();
    let mut add = |name: &str, source: &Arc<str>| {
        let known = found.iter().any(|candidate| candidate.provider == name);
        let kernel =
            all.iter().filter(|p| p.device == kind && p.name == name).find_map(|p| Some((p, p.kernel(question.op)?)));
        match kernel {
            _ if known => {}
            Some((provider, kernel)) => found.push(Candidate {
                provider: provider.name,
                source: source.clone(),
                run: kernel.run,
                supports: kernel.supports,
            }),
            None if name == Reference::NAME && kind == "cpu" => {
                if let Ok(op) = crate::op(question.op) {
                    let (run, supports) = (op.reference, (|_| Ok(())) as fn(&Inquiry) -> Result<(), &'static str>);
                    found.push(Candidate { provider: Reference::NAME, source: source.clone(), run, supports });
                }
            }
            None => {}
        }
    };
    for table in tables() {
        for line in table.lines.iter().filter(|line| line.fits(question)) {
            line.providers.iter().for_each(|name| add(name, &line.source));
        }
    }
    let built_in: Arc<str> = "built-in".into();
    all.iter().rev().for_each(|provider| add(provider.name, &built_in));
    add(Reference::NAME, &built_in);
    found
}

/// The kernel for a call, and why it is not the preferred one, if it is not.
pub(crate) fn choose(
    inquiry: &Inquiry,
    question: &Question,
    only: Option<&'static str>,
) -> Result<(Candidate, Option<String>), Error> {
    let found = cached(question);
    let mut refused = None;
    for candidate in found.iter().filter(|c| only.is_none_or(|name| c.provider == name)) {
        match (candidate.supports)(inquiry) {
            Ok(()) => return Ok((candidate.clone(), refused)),
            Err(why) => refused = refused.or_else(|| Some(format!("{}: {why}", candidate.provider))),
        }
    }
    if let Some(name) = only.filter(|name| *name != Reference::NAME) {
        provider::provider(name)?;
    }
    Err(Error::NoKernel {
        op: question.op,
        device: question.device.into(),
        dtype: question.dtype.into(),
        why: refused.unwrap_or_default(),
    })
}

type Cache = HashMap<(usize, usize, usize, usize), Arc<[Candidate]>>;

/// Answers that are remembered at most: a program has few ops, types and sizes at a time.
const REMEMBERED: usize = 4096;

thread_local! {
    /// Of this thread, for one state of tables and providers.
    static CACHE: RefCell<((u64, u64), Cache)> = RefCell::default();
}

/// As [`candidates`], remembered: routes may tell any two sizes apart, so each size has an answer of its own.
fn cached(question: &Question) -> Arc<[Candidate]> {
    let version = (VERSION.load(Ordering::Acquire), provider::version());
    // Names of ops live as long as the process, so that their addresses tell them apart.
    let (dtype, device) = (text_key(question.dtype), text_key(question.device));
    let key = (question.op.as_ptr() as usize, dtype, question.values, device);
    CACHE.with_borrow_mut(|(known, cache)| {
        if *known != version || cache.len() >= REMEMBERED {
            *known = version;
            cache.clear();
        }
        cache.entry(key).or_insert_with(|| candidates(question).into()).clone()
    })
}

/// A number that tells short texts apart.
fn text_key(text: &str) -> usize {
    text.bytes().fold(text.len(), |hash, byte| (hash ^ usize::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_border_between_two_sizes_is_kept_when_answers_are_remembered() {
        set(Layer::Call, parse("softmax size 3000..3500 = reference", "here").unwrap_or_default());
        let source = |values| {
            let question = Question { op: "softmax", device: "cpu", dtype: "F32", values };
            cached(&question).first().map(|candidate| candidate.source.to_string())
        };
        // Both lie between the same powers of two.
        assert_eq!(source(2100).as_deref(), Some("built-in"));
        assert_eq!(source(3200).as_deref(), Some("here:1"));
        clear(Layer::Call);
    }
}
