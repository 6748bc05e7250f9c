//! Learning rates against those of transformers and torch.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use windlass_nn::schedule::{SHAPES, Schedule};

const RATE: f64 = 2e-3;

/// 10 of the 34 steps after the warm-up.
const WSD: (&str, f64) = ("decay", 10.0 / 34.0);

/// Name in the file, name of the schedule, steps of warm-up, settings.
type Run = (&'static str, &'static str, u64, &'static [(&'static str, f64)]);

fn golden() -> BTreeMap<String, Vec<f64>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/schedules.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn settings(given: &[(&str, f64)]) -> BTreeMap<String, f64> {
    given.iter().map(|(name, value)| (name.to_string(), *value)).collect()
}

#[test]
fn rates_equal_those_of_transformers_and_torch() {
    let golden = golden();
    let runs: [Run; 12] = [
        ("constant", "constant", 6, &[]),
        ("linear", "linear", 6, &[]),
        ("cosine", "cosine", 6, &[]),
        ("cosine-floor", "cosine", 6, &[("floor", 0.1)]),
        ("cosine_with_restarts", "cosine_with_restarts", 6, &[("cycles", 3.0)]),
        ("polynomial", "polynomial", 6, &[("end", 1e-5), ("power", 2.0)]),
        ("inverse_sqrt", "inverse_sqrt", 6, &[("timescale", 10.0)]),
        ("wsd", "wsd", 6, &[("floor", 0.1), WSD]),
        ("wsd-linear", "wsd", 6, &[("linear", 1.0), WSD]),
        ("exponential", "exponential", 0, &[("gamma", 0.9)]),
        ("step", "step", 0, &[("gamma", 0.5), ("every", 7.0)]),
        ("one_cycle", "one_cycle", 0, &[]),
    ];
    let mut tried = vec!["reduce_on_plateau"];
    for (run, name, warmup, given) in runs {
        tried.push(name);
        let schedule = Schedule::new(name, &settings(given), RATE, warmup, 40).unwrap();
        // The rise of transformers' `wsd` begins at its floor, all others at zero, as here.
        let first = if run == "wsd" { warmup as usize } else { 0 };
        for (step, expected) in golden[run].iter().enumerate().skip(first) {
            let found = schedule.rate(step as u64);
            assert!((found - expected).abs() <= 1e-9 * RATE, "{run} step {step}: expected {expected}, found {found}");
        }
    }
    let missing: Vec<&str> = SHAPES.iter().map(|s| s.name).filter(|name| !tried.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?} are compared with nothing");
}

#[test]
fn a_plateau_lowers_the_rate_also_after_a_restart() {
    let golden = golden();
    let how = settings(&[("factor", 0.5), ("patience", 2.0), ("cooldown", 1.0), ("least", 3e-4)]);
    let mut schedule = Schedule::new("reduce_on_plateau", &how, RATE, 0, 40).unwrap();
    for (step, (expected, loss)) in golden["reduce_on_plateau"].iter().zip(&golden["losses"]).enumerate() {
        assert!((schedule.rate(step as u64) - expected).abs() <= 1e-12, "step {step}: expected {expected}");
        schedule.observe(*loss);
        let mut later = Schedule::new("reduce_on_plateau", &how, RATE, 0, 40).unwrap();
        later.restore(&schedule.state()).unwrap();
        schedule = later;
    }
    assert!(golden["reduce_on_plateau"].last().unwrap() < &4e-4);
    assert!(schedule.restore(&[1.0]).is_err());
}

#[test]
fn what_is_not_known_is_told_with_the_nearest() {
    let wrong = |name: &str, given: &[(&str, f64)]| {
        Schedule::new(name, &settings(given), RATE, 0, 10).err().unwrap().to_string()
    };
    assert!(wrong("cosin", &[]).contains("did you mean \"cosine\"?"));
    assert!(wrong("cosine", &[("flor", 0.1)]).contains("\"floor\""));
    assert!(wrong("step", &[("every", 0.0)]).contains("every"));
    assert!(wrong("constant", &[("floor", 0.1)]).contains("it has none"));
}
