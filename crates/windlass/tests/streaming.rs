//! A model larger than the memory that a process may have: alone in its process, so that figures are this test's own.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use windlass::load::{Options, Run, Strategy, cache_element, load};
use windlass::models::Wanted;
use windlass::ops::Context;
use windlass::runtime::system;
use windlass::tensor::{Limits, TypedTensor};
use windlass::{Model, register_providers};

const CHILD: &str = "WINDLASS_TEST_STREAMING";
/// Of the process; the model has 240 MiB.
const LIMIT: u64 = 120 << 20;

fn logits(path: &Path, strategy: Strategy, limit: Option<u64>) -> Result<Vec<f32>, windlass::Error> {
    register_providers();
    let model = Model::open(path, &Limits::default())?;
    let options = Options { context: Some(16), strategy, memory_limit: limit, threads: 1, ..Options::default() };
    let loaded = load(&model, &options)?;
    let run = Run { context: 16, element: cache_element("f16")?, batch: 5, logits: 1 };
    let mut cache = loaded.cache(&run)?;
    Context::here(|cx| {
        let mut all = Vec::new();
        for tokens in [&[1u32, 2, 3, 4, 5][..], &[6], &[7]] {
            let logits = loaded.decoder.forward(cx, tokens, &mut cache, Wanted::Last)?;
            all.extend(TypedTensor::<f32>::new(logits.unwrap()).unwrap().to_vec().unwrap());
        }
        Ok(all)
    })
}

/// Runs `work` while another thread looks at the memory of the process.
fn with_peak<R>(work: impl FnOnce() -> R) -> (R, u64) {
    let (stop, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                peak.fetch_max(system::own_memory().unwrap(), Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_micros(300));
            }
        });
        let result = work();
        stop.store(true, Ordering::Relaxed);
        (result, peak.load(Ordering::Relaxed))
    })
}

#[test]
fn a_model_larger_than_memory_runs_and_gives_the_same_logits() {
    if let Ok(path) = std::env::var(CHILD) {
        let error = logits(Path::new(&path), Strategy::Resident, None).unwrap_err();
        println!("resident: {error}");
        let found = logits(Path::new(&path), Strategy::Stream, Some(LIMIT)).unwrap();
        println!("sum {:?}", found.iter().map(|v| f64::from(*v)).sum::<f64>());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    let bytes = support::large(&path);
    assert!(bytes > 2 * LIMIT, "{bytes}");
    let (streamed, peak) = with_peak(|| logits(&path, Strategy::Stream, Some(LIMIT)).unwrap());
    assert!(peak <= LIMIT, "{peak} bytes, allowed {LIMIT}");
    // More memory lets layers stay, and no more of them than there is room for.
    let (kept, more) = with_peak(|| logits(&path, Strategy::Stream, Some(LIMIT * 3 / 2)).unwrap());
    assert!(more > peak && more <= LIMIT * 3 / 2, "{more} bytes, {peak} before");
    assert!(streamed == kept);
    // The system itself refuses more data than this to a process of its own, and there resident weights do not fit.
    let child = std::process::Command::new("sh")
        .args(["-c", &format!("ulimit -d {}; exec \"$@\"", (LIMIT + (60 << 20)) / 1024), "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["a_model_larger_than_memory_runs_and_gives_the_same_logits", "--exact", "--nocapture"])
        .env(CHILD, &path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout).into_owned();
    let sum: f64 = streamed.iter().map(|v| f64::from(*v)).sum();
    assert!(text.contains("resident: ") && text.contains(&format!("sum {sum:?}")), "{child:?}");
    assert!(logits(&path, Strategy::Mapped, None).unwrap() == streamed);
    assert!(streamed.iter().all(|v| v.is_finite()) && streamed.iter().any(|v| *v != 0.0));
}
