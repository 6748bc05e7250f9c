//! What running takes, known before it begins, and refused where it is more than the limit.

use windlass_catalog::Hyper;
use windlass_models::Cache;
use windlass_runtime::{device, system};
use windlass_tensor::{Bytes, Element};

use super::{Loaded, Options, Streamed};
use crate::convert::Image;
use crate::{Code, Error, Result};

/// Tables, threads, and what kernels keep for themselves.
const SMALL_THINGS: u64 = 24 << 20;

/// What a run keeps beside the weights.
#[derive(Clone, Debug)]
pub struct Run {
    /// Tokens that are remembered.
    pub context: usize,
    /// Of keys and values.
    pub element: Element,
    /// Most tokens that are run at a time.
    pub batch: usize,
    /// Most of them whose logits are wanted.
    pub logits: usize,
}

/// How much memory there may be, and what has it.
pub struct Budget {
    limit: u64,
    /// Whether the user gave the limit.
    given: bool,
    /// What grows into the memory that is left.
    pub(super) streamed: Option<Streamed>,
}

impl Budget {
    /// The limit of the options, or what the machine has.
    pub fn new(options: &Options) -> Budget {
        let machine = || device::inventory().devices.first().and_then(|host| host.memory.total);
        let limit = options.memory_limit.or_else(machine).unwrap_or(u64::MAX);
        Budget { limit, given: options.memory_limit.is_some(), streamed: None }
    }

    /// The limit, if the user gave one.
    pub fn given(&self) -> Option<u64> {
        self.given.then_some(self.limit)
    }

    /// Bytes that there may be.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How many workers can make an image within the limit, at most as many as the options ask for.
    pub(super) fn workers(&self, image: &Image, options: &Options) -> Result<usize> {
        let used = system::own_memory().unwrap_or(0);
        let each = image.memory_per_worker().max(1);
        let left = self.limit.saturating_sub(used).saturating_sub(image.bytes());
        let wanted = if options.threads > 0 { options.threads } else { system::processors() };
        match usize::try_from(left / each).unwrap_or(usize::MAX).min(wanted) {
            0 => {
                let parts = [("the weights", image.bytes()), ("reading them", each), ("what is in use already", used)];
                let help = "with --load mapped (and no --scheme) weights stay in the file, with --load stream they pass \
                            through memory";
                Err(self.refusal("loading", &parts, help))
            }
            workers => Ok(workers),
        }
    }

    /// The error of a limit that `parts` do not fit together.
    pub fn refusal(&self, what: &str, parts: &[(&str, u64)], help: &str) -> Error {
        let all = parts.iter().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let listed: Vec<String> = parts.iter().map(|(name, bytes)| format!("{} for {name}", Bytes(*bytes))).collect();
        let (listed, limit) = (listed.join(", "), Bytes(self.limit));
        let whose = if self.given { "the limit" } else { "the memory of this machine" };
        let message = format!("{what} needs {} ({listed}), more than {whose} of {limit}", Bytes(all));
        let enough = all.div_ceil(1 << 20) + 1;
        let help = if self.given { format!("{help}; or give --memory-limit {enough}MiB") } else { help.to_string() };
        Error::new(Code::Memory, message).help(help)
    }
}

impl Loaded {
    /// Bytes that layers pass through and stay in, where they are streamed.
    pub fn streamed_bytes(&self) -> u64 {
        self.budget.streamed.as_ref().map_or(0, |streamed| streamed.to_come())
    }

    /// An empty cache for a run, or the error that says what does not fit the limit. Layers that are streamed may have
    /// what is left.
    pub fn cache(&self, run: &Run) -> Result<Cache> {
        let keys_and_values = self.decoder.cache_bytes(run.context, &run.element)?;
        let activations = activations(self.decoder.hyper(), run);
        let budget = &self.budget;
        let used = system::own_memory().unwrap_or(0);
        let to_come = budget.streamed.as_ref().map_or(0, |streamed| streamed.to_come());
        let needed = [keys_and_values, activations, used, to_come].into_iter().fold(0, u64::saturating_add);
        if needed > budget.limit {
            let parts = [
                ("keys and values", keys_and_values),
                ("activations", activations),
                ("what is in use already", used),
                ("layers to come", to_come),
            ];
            let parts: Vec<(&str, u64)> = parts.into_iter().filter(|(_, bytes)| *bytes > 0).collect();
            let what = format!("a context of {} tokens in {}", run.context, run.element.name().to_lowercase());
            return Err(budget.refusal(&what, &parts, &self.remedy(run, keys_and_values, needed)));
        }
        if let (Some(streamed), Some(_)) = (&budget.streamed, budget.given()) {
            streamed.may_keep(budget.limit - needed);
        }
        let most = budget.given().map(|limit| limit.saturating_sub(used + keys_and_values + to_come));
        windlass_ops::pool().set_owner_limit("ops", most);
        Ok(self.decoder.cache(run.context, run.element.clone())?)
    }

    fn remedy(&self, run: &Run, keys_and_values: u64, needed: u64) -> String {
        let each = (keys_and_values / run.context.max(1) as u64).max(1);
        let fitting = (run.context as u64).saturating_sub((needed - self.budget.limit).div_ceil(each));
        let mut ways = Vec::new();
        if fitting > 0 {
            ways.push(format!("give --context {fitting} or less"));
        }
        if run.element.name() != "q8_0" {
            ways.push("keep keys and values in --kv q8_0".into());
        }
        if self.budget.streamed.is_none() {
            ways.push("read layers when they are needed with --load stream".into());
        }
        if ways.is_empty() { "choose a smaller model or scheme".into() } else { ways.join(", or ") }
    }
}

/// Bytes of what is computed for a batch on the way: an upper bound of what lives at one time.
pub fn activations(h: &Hyper, run: &Run) -> u64 {
    let attention = (h.heads() + 2 * h.kv_heads()) * h.head_dim();
    let per_token = 6 * h.hidden() + 2 * attention + 4 * h.ffn();
    let floats = run.batch as u64 * per_token as u64 + run.logits as u64 * h.vocab() as u64;
    // Sizes are rounded up by the pool, by a quarter at most.
    floats.saturating_mul(4).saturating_mul(5) / 4 + SMALL_THINGS
}
