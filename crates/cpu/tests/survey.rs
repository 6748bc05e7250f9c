//! The survey of this provider: every op with every family of arguments against the reference.
#![allow(clippy::unwrap_used)]

use windlass_cpu::isa::{Level, with_level};
use windlass_ops::survey::{Options, Status, survey};
use windlass_ops::{Attributes, Context, library};
use windlass_tensor::{Tensor, TypedTensor};

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
    const OPS: [&str; 21] = [
        "lora_linear",
        "linear_transposed",
        "matmul",
        "bmm",
        "rms_norm_backward",
        "sequence_attention",
        "sequence_attention_backward",
        "cross_entropy",
        "cross_entropy_backward",
        "cross_entropy_step",
        "adam_step",
        "adam8_step",
        "sgd_step",
        "momentum_step",
        "rmsprop_step",
        "rmsprop_centered_step",
        "adagrad_step",
        "adadelta_step",
        "lion_step",
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

/// The survey's logits are zeros here: others, against the ops that it stands for.
#[test]
fn losses_and_gradients_in_the_room_of_logits() {
    windlass_cpu::register();
    let logits: Vec<f32> = (0..5 * 1000).map(|i| (i as f32 * 0.37).sin() * 9.0).collect();
    let targets = Tensor::from_slice(&[3i64, 999, -100, 0, 512], [5]).unwrap();
    for level in Level::ALL {
        with_level(level, || {
            Context::here(|cx| {
                let x = || Tensor::from_slice(&logits, [5, 1000]).unwrap();
                let none = Attributes::new().text("reduction", "none");
                let losses = cx.one(&library::CROSS_ENTROPY, &[&x(), &targets], &none).unwrap();
                let ones = Tensor::from_slice(&[1.0f32; 5], [5]).unwrap();
                let inputs = [&x(), &targets, &ones];
                let gradients = cx.one(&library::CROSS_ENTROPY_BACKWARD, &inputs, &Attributes::NONE).unwrap();
                let mut outputs = [x(), Tensor::from_slice(&[0.0f32; 5], [5]).unwrap()];
                let how = Attributes::new().int("classes", 1000);
                cx.call_into(&library::CROSS_ENTROPY_STEP, &[&targets], &how, &mut outputs).unwrap();
                for (expected, found) in [gradients, losses].into_iter().zip(outputs) {
                    let [expected, found] =
                        [expected, found].map(|t| TypedTensor::<f32>::new(t).unwrap().to_vec().unwrap());
                    for (e, f) in expected.iter().zip(&found) {
                        assert!((e - f).abs() <= 1e-6 * (1.0 + e.abs()), "{level:?}: {e} {f}");
                    }
                }
            });
        });
    }
}
