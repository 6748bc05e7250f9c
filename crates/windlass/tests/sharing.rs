//! Two processes that load one model with shared weights hold one copy of them.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

mod support;

use std::path::Path;

use windlass::load::{Loaded, Options, Strategy, load};
use windlass::tensor::Limits;
use windlass::{Model, register_providers};

const CHILD: &str = "WINDLASS_TEST_SHARING";

fn shared(path: &Path) -> Loaded {
    register_providers();
    let model = Model::open(path, &Limits::default()).unwrap();
    load(&model, &Options { strategy: Strategy::Shared, ..Options::default() }).unwrap()
}

/// Of the mapping of shared weights of this process, from the system's own books: bytes in memory, this process's share of
/// them, and what it has alone.
fn figures() -> [u64; 3] {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut figures, mut inside) = ([0; 3], false);
    for line in smaps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if !first.ends_with(':') {
            inside = line.contains("windlass-weights-");
            continue;
        }
        let bytes = || line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024;
        match first {
            "Rss:" if inside => figures[0] += bytes(),
            "Pss:" if inside => figures[1] += bytes(),
            "Private_Clean:" | "Private_Dirty:" if inside => figures[2] += bytes(),
            _ => {}
        }
    }
    figures
}

/// Reads every page of the weights.
fn touch(loaded: &Loaded) {
    let mut cache = loaded.decoder.cache(4, windlass::tensor::DType::F16).unwrap();
    windlass::ops::Context::here(|cx| {
        loaded.decoder.forward(cx, &[1, 2, 3], &mut cache, windlass::models::Wanted::Last).unwrap();
    });
}

#[test]
fn two_processes_hold_one_copy_of_the_weights() {
    if let Ok(path) = std::env::var(CHILD) {
        let loaded = shared(Path::new(&path));
        touch(&loaded);
        let [rss, pss, private] = figures();
        println!("rss {rss} pss {pss} private {private}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    let bytes = support::large(&path);
    let loaded = shared(&path);
    touch(&loaded);
    let [rss, pss, _] = figures();
    assert!(rss > bytes * 9 / 10 && pss > bytes * 9 / 10, "alone, it counts whole: {rss} {pss}");
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["two_processes_hold_one_copy_of_the_weights", "--exact", "--nocapture"])
        .env(CHILD, &path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout).into_owned();
    let figure = |name: &str| -> u64 {
        let mut words = text.split_whitespace().skip_while(|word| *word != name).skip(1);
        words.next().unwrap_or_else(|| panic!("{child:?}")).parse().unwrap()
    };
    let (rss, pss, private) = (figure("rss"), figure("pss"), figure("private"));
    assert!(rss > bytes * 9 / 10, "the child read all weights: {rss}");
    assert!(pss < rss * 11 / 20 && private < 1 << 20, "one copy for two: {pss} of {rss}, {private} alone");
}
