//! Every architecture. Adding one costs its file and one line here.

use crate::{Architecture, Error, Hyper, architectures as all, error::short};

/// Where several share a name in GGUF, those with a marker come first.
static ARCHITECTURES: &[&Architecture] = &[
    &all::mixtral::MIXTRAL,
    &all::mistral::MISTRAL,
    &all::llama::LLAMA,
    &all::qwen2::QWEN2,
    &all::qwen3::QWEN3,
    &all::qwen3moe::QWEN3MOE,
    &all::gptoss::GPT_OSS,
    &all::phi3::PHI3,
    &all::gemma2::GEMMA2,
    &all::gemma3::GEMMA3,
    &all::bert::BERT,
];

/// All architectures.
pub fn architectures() -> &'static [&'static Architecture] {
    ARCHITECTURES
}

/// The architecture of this name.
///
/// # Errors
/// If there is none; the message lists those there are.
pub fn by_name(name: &str) -> Result<&'static Architecture, Error> {
    find(name, |a| a.name == name)
}

pub(crate) fn find(name: &str, wanted: impl Fn(&'static Architecture) -> bool) -> Result<&'static Architecture, Error> {
    let known = || ARCHITECTURES.iter().map(|a| a.name).collect::<Vec<_>>().join(", ");
    let unknown = || Error::UnknownArchitecture { name: short(name), known: known() };
    ARCHITECTURES.iter().copied().find(|a| wanted(a)).ok_or_else(unknown)
}

/// An architecture whose inventory has experts needs some.
pub(crate) fn require_experts(architecture: &Architecture, hyper: &Hyper, key: &str) -> Result<(), Error> {
    let wanted = architecture.inventory.iter().copied().flatten().any(|s| s.role.is_expert());
    if wanted && hyper.experts == 0 {
        return Err(Error::Missing { key: key.into(), expected: "a positive number of experts".into() });
    }
    Ok(())
}
