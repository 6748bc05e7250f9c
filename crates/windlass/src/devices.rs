//! `devices`: what this machine has to compute on, what it lacks and why, and what was never executed on its kind.

use serde::Serialize;
use windlass_ops::{Reference, providers};
use windlass_runtime::device::{Cache, Facts, inventory, register_probes};

/// A device, or a library that is loaded at run time, present or not.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// `cpu`, `cuda:0`, `mpi`.
    pub name: String,
    /// `cpu`, `cuda`, `wgpu`, or `library`.
    pub kind: &'static str,
    pub description: String,
    /// Bytes that this process may have at most: of the machine, or of its container.
    pub memory_total: Option<u64>,
    /// Bytes that it may have now.
    pub memory_free: Option<u64>,
    /// Element types that it has arithmetic for.
    pub dtypes: Vec<String>,
    /// Instruction sets and other capabilities.
    pub features: Vec<String>,
    /// What of this build computes on it.
    pub providers: Vec<&'static str>,
    /// Why it cannot be used.
    pub problem: Option<String>,
    /// Cores, or multiprocessors: there, allowed to this process, and allowed by a quota of time.
    pub processors: Option<(Option<usize>, Option<usize>, Option<f64>)>,
    pub caches: Vec<CacheRow>,
    pub details: Vec<(&'static str, String)>,
    /// What of this build was never executed on such a system.
    pub never_executed: Vec<String>,
}

/// One level of cache.
#[derive(Clone, Debug, Serialize)]
pub struct CacheRow {
    pub level: u32,
    /// `data`, `instruction` or `unified`.
    pub kind: String,
    pub bytes: u64,
    /// Processors that share one such cache.
    pub shared_by: usize,
}

/// Asks the system, and everybody who knows how to look for something.
pub fn devices() -> Vec<Row> {
    crate::register_providers();
    register_probes();
    let inventory = inventory();
    let mut rows: Vec<Row> = inventory.devices.into_iter().map(row).collect();
    rows.extend(inventory.libraries.into_iter().map(|library| Row {
        name: library.name.into(),
        kind: "library",
        description: library.version,
        problem: Some("this build has no use for it yet".into()),
        ..Row::default()
    }));
    rows.extend(inventory.missing.into_iter().map(|missing| Row {
        name: missing.name.into(),
        kind: if matches!(missing.name, "cuda" | "wgpu") { missing.name } else { "library" },
        description: "not here".into(),
        problem: Some(missing.reason),
        ..Row::default()
    }));
    rows
}

fn row(facts: Facts) -> Row {
    let kind = facts.device.kind();
    let mut names: Vec<&'static str> = providers().iter().filter(|p| p.device == kind).map(|p| p.name).collect();
    if kind == "cpu" {
        names.push(Reference::NAME);
    }
    let mut details = facts.details;
    if kind == "cpu" {
        details.push(("kernels of simd use", format!("{:?}", windlass_cpu::isa::level()).to_lowercase()));
    }
    let cache =
        |c: Cache| CacheRow { level: c.level, kind: c.kind.to_lowercase(), bytes: c.bytes, shared_by: c.shared_by };
    Row {
        name: facts.device.to_string(),
        kind,
        description: facts.name,
        memory_total: facts.memory.total,
        memory_free: facts.memory.free,
        dtypes: facts.dtypes.iter().map(|dtype| dtype.name().to_lowercase()).collect(),
        features: facts.features,
        problem: names.is_empty().then(|| format!("this build has no kernels for {kind}")),
        providers: names,
        processors: Some((facts.processors.present, facts.processors.allowed, facts.processors.quota)),
        caches: facts.caches.into_iter().map(cache).collect(),
        details,
        never_executed: if kind == "cpu" {
            never_executed(std::env::consts::OS, std::env::consts::ARCH)
        } else {
            Vec::new()
        },
    }
}

/// What was never executed on systems of this kind. It is written by hand, and shrinks when somebody runs the tests there.
fn never_executed(os: &str, arch: &str) -> Vec<String> {
    match (os, arch) {
        ("linux", "x86_64") => vec!["the probe of NVIDIA GPUs where there is one".into()],
        ("linux", "aarch64") => vec![
            "the tests: all kernels go through the portable path".into(),
            "kernels of its own for NEON: there are none".into(),
        ],
        _ => vec![format!("anything: no test was ever run on {os} with {arch}")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_can_be_used_and_everything_else_is_there_or_has_a_reason() {
        let rows = devices();
        assert_eq!((rows[0].name.as_str(), rows[0].problem.as_deref()), ("cpu", None));
        assert_eq!(rows[0].providers, ["simd", "reference"]);
        assert!(rows[0].memory_total.is_some() && rows[0].dtypes.iter().any(|dtype| dtype == "f32"), "{:?}", rows[0]);
        for name in ["cuda", "wgpu", "mpi", "nccl"] {
            let row = rows.iter().find(|row| row.name.split(':').next() == Some(name));
            let problem = row.and_then(|row| row.problem.as_deref()).unwrap_or_default();
            assert!(!problem.is_empty() && !problem.contains("looks for it"), "{name}: {problem}");
        }
    }

    #[test]
    fn what_was_never_run_is_said() {
        assert!(never_executed("macos", "aarch64")[0].contains("macos"));
        assert!(never_executed("linux", "x86_64").iter().all(|what| !what.contains("tests")));
    }
}
