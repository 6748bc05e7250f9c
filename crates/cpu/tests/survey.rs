//! The survey of this provider: every op with every family of arguments against the reference.
#![allow(clippy::unwrap_used)]

use windlass_ops::Context;
use windlass_ops::survey::{Options, Status, survey};

#[test]
fn no_kernel_leaves_its_tolerance() {
    windlass_cpu::register();
    let report = Context::here(|cx| survey(cx, &Options { quick: true, ..Options::default() })).unwrap();
    let bad: Vec<String> = report
        .cases
        .iter()
        .filter(|case| matches!(case.status, Status::Wrong | Status::Error))
        .map(|case| format!("{case:?}"))
        .collect();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert!(report.summary.pass > 100, "{:?}", report.summary);
}
