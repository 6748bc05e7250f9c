//! The families of arguments that ops are surveyed with.
#![allow(clippy::unwrap_used)]

use windlass_ops::survey::{Options, Status, survey};
use windlass_ops::{Args, Context, Error, Kernel, Provider, all_ops, op, ops, register_provider};

/// Kernels that are right, nearly right, wrong and choosy.
fn provider() -> Provider {
    let right: fn(&mut Args) -> Result<(), Error> = |args| (args.op.reference)(args);
    let twisted: fn(&mut Args) -> Result<(), Error> = |args| {
        let mut values = args.f32s(0)?.iter().map(|v| -v).collect::<Vec<_>>();
        if let Some(last) = values.last_mut() {
            *last = 1.5 * *last + 1.0;
        }
        args.write(0, &values)
    };
    let kernels = vec![
        Kernel { op: "abs", supports: |_| Ok(()), run: right },
        Kernel { op: "neg", supports: |_| Ok(()), run: twisted },
        Kernel { op: "exp", supports: |_| Err("takes nothing"), run: right },
        Kernel { op: "sum", supports: |_| Ok(()), run: |args| args.inquiry().fail("is tired") },
    ];
    Provider { name: "odd", device: "cpu", kernels }
}

#[test]
fn every_profile_runs_and_wrong_kernels_are_found() {
    register_provider(provider());
    let report = Context::here(|cx| survey(cx, &Options::default())).unwrap();
    let of = |op: &str| report.cases.iter().filter(|c| c.op == op).map(|c| c.status).collect::<Vec<_>>();
    assert!(of("abs").iter().all(|s| *s == Status::Pass) && !of("abs").is_empty());
    assert!(of("exp").iter().all(|s| *s == Status::Unsupported) && !of("exp").is_empty());
    assert!(of("sum").iter().all(|s| *s == Status::Error) && !of("sum").is_empty());
    // An empty tensor has no last value.
    for case in report.cases.iter().filter(|c| c.op == "neg") {
        assert_eq!(case.status == Status::Wrong, case.profile != "empty", "{case:?}");
    }
    let broken: Vec<_> = report.cases.iter().filter(|c| c.provider == "reference").collect();
    assert!(broken.is_empty(), "{broken:#?}");
    assert_eq!(report.summary.reference_only, all_ops().count() - 4);
}

#[test]
fn every_op_has_profiles() {
    for op in ops() {
        assert!(!(op.profiles)(op).is_empty(), "{op:?}");
    }
    assert!(op("sum").is_ok());
}
