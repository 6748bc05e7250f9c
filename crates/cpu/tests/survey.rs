//! The survey of this provider: every op with every family of arguments against the reference.
#![allow(clippy::unwrap_used)]

use windlass_cpu::isa::{Level, with_level};
use windlass_ops::Context;
use windlass_ops::survey::{Options, Status, survey};

/// A survey on one instruction set.
fn none_wrong(level: Level, quick: bool) {
    windlass_cpu::register();
    let options = Options { quick, ..Options::default() };
    let report = with_level(level, || Context::here(|cx| survey(cx, &options))).unwrap();
    let bad: Vec<String> = report
        .cases
        .iter()
        .filter(|case| matches!(case.status, Status::Wrong | Status::Error))
        .map(|case| format!("{case:?}"))
        .collect();
    assert!(bad.is_empty(), "{level:?}:\n{}", bad.join("\n"));
    assert!(report.summary.pass > 100, "{:?}", report.summary);
}

/// What training adds to running, on each instruction set, with all profiles.
#[test]
fn kernels_of_training_agree_on_every_level() {
    const OPS: [&str; 11] = [
        "linear_transposed",
        "matmul",
        "bmm",
        "rms_norm_backward",
        "sequence_attention",
        "sequence_attention_backward",
        "cross_entropy",
        "cross_entropy_backward",
        "adam_step",
        "norm",
        "swiglu_dx",
    ];
    windlass_cpu::register();
    for level in Level::ALL {
        for op in OPS {
            let options = Options { op: Some(op), provider: Some("simd"), ..Options::default() };
            let report = with_level(level, || Context::here(|cx| survey(cx, &options))).unwrap();
            let bad = report.cases.iter().find(|case| matches!(case.status, Status::Wrong | Status::Error));
            assert!(bad.is_none(), "{level:?}: {bad:?}");
            assert!(report.summary.pass > 0, "{level:?} {op}: {:?}", report.summary);
        }
    }
}

#[test]
fn no_kernel_leaves_its_tolerance() {
    none_wrong(Level::Avx512Vnni, false);
}

#[test]
fn no_kernel_leaves_its_tolerance_with_avx2() {
    none_wrong(Level::Avx2, true);
}

#[test]
fn no_kernel_leaves_its_tolerance_without_vectors() {
    none_wrong(Level::Portable, true);
}
