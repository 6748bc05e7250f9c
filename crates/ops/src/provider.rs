//! Providers: sets of kernels for one kind of device's memory.

use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Args, Error, Inquiry};

/// One provider's code for one op.
pub struct Kernel {
    /// Name of the op.
    pub op: &'static str,
    /// Whether it takes these arguments; the reason where it does not.
    pub supports: fn(&Inquiry) -> Result<(), &'static str>,
    pub run: fn(&mut Args) -> Result<(), Error>,
}

/// A set of kernels.
pub struct Provider {
    /// Lower case: `reference`, `simd`, `wgsl`.
    pub name: &'static str,
    /// The kind of device whose memory it works on: `cpu`, `wgpu`, `cuda`.
    pub device: &'static str,
    pub kernels: Vec<Kernel>,
}

impl Provider {
    /// Its kernel for an op.
    pub fn kernel(&self, op: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.op == op)
    }
}

/// Name of the provider that every op has: its specification.
pub struct Reference;

impl Reference {
    /// `reference`.
    pub const NAME: &'static str = "reference";
}

static PROVIDERS: RwLock<Vec<&'static Provider>> = RwLock::new(Vec::new());
static VERSION: AtomicU64 = AtomicU64::new(0);

/// Adds a provider. The later one of two is preferred where routes say nothing.
pub fn register_provider(provider: Provider) -> &'static Provider {
    let leaked: &'static Provider = Box::leak(Box::new(provider));
    let mut all = PROVIDERS.write().unwrap_or_else(|e| e.into_inner());
    if let Some(same) = all.iter().find(|p| p.name == leaked.name) {
        return same;
    }
    all.push(leaked);
    VERSION.fetch_add(1, Ordering::Release);
    leaked
}

/// All registered providers; the reference is not among them, because every op has it.
pub fn providers() -> Vec<&'static Provider> {
    PROVIDERS.read().unwrap_or_else(|e| e.into_inner()).clone()
}

/// The registered name of a provider, or of the reference, or an error with the nearest one.
pub fn provider_name(name: &str) -> Result<&'static str, Error> {
    if name == Reference::NAME { Ok(Reference::NAME) } else { provider(name).map(|p| p.name) }
}

/// The provider of this name, or an error with the nearest one.
pub fn provider(name: &str) -> Result<&'static Provider, Error> {
    let all = providers();
    if let Some(found) = all.iter().find(|p| p.name == name) {
        return Ok(found);
    }
    let names = all.iter().map(|p| p.name).chain([Reference::NAME]);
    let suggestion = windlass_quant::nearest(name, names).map(String::from);
    Err(Error::UnknownProvider { name: name.into(), suggestion })
}

/// Changes whenever a provider is added.
pub(crate) fn version() -> u64 {
    VERSION.load(Ordering::Acquire)
}
