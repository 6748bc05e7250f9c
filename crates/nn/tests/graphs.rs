//! Graphs: what flows back, what is kept, what is refused.
#![allow(clippy::unwrap_used)]

use windlass_nn::{Error, Tape, Var};
use windlass_ops::{Attributes, Context, library};
use windlass_tensor::{Tensor, TypedTensor};

fn row(values: &[f32]) -> Tensor {
    Tensor::from_slice(values, [values.len()]).unwrap()
}

fn values(tensor: Tensor) -> Vec<f32> {
    TypedTensor::<f32>::new(tensor).unwrap().to_vec().unwrap()
}

#[test]
fn gradients_of_several_uses_add_up() {
    let x = Var::leaf(row(&[1.0, 2.0]));
    let slope = Context::here(|cx| {
        let tape = Tape::new(cx);
        let y = tape.elementwise("mul", &[&x, &x]).unwrap();
        let z = tape.elementwise("add", &[&y, &x]).unwrap();
        tape.sum(&z).unwrap().backward(cx).unwrap().take(&x).unwrap()
    });
    assert_eq!(values(slope), [3.0, 5.0]);
}

/// What flows back from a sum is one number, stretched.
#[test]
fn a_sum_flows_back_through_a_product_of_matrices() {
    let x = Var::leaf(Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0], [2, 2]).unwrap());
    let y = Var::leaf(Tensor::from_slice(&[5.0f32, 6.0, 7.0, 8.0], [2, 2]).unwrap());
    let found = Context::here(|cx| {
        let tape = Tape::new(cx);
        let product = tape.one(&library::MATMUL, &[&x, &y], &Attributes::NONE).unwrap();
        let mut all = tape.sum(&product).unwrap().backward(cx).unwrap();
        [all.take(&x).unwrap(), all.take(&y).unwrap()]
    });
    assert_eq!(found.map(values), [vec![11.0, 15.0, 11.0, 15.0], vec![4.0, 4.0, 6.0, 6.0]]);
}

#[test]
fn constants_and_no_grad_remember_nothing() {
    let (x, c) = (Var::leaf(row(&[1.0])), Var::constant(row(&[2.0])));
    Context::here(|cx| {
        let tape = Tape::new(cx);
        assert!(!tape.elementwise("mul", &[&c, &c]).unwrap().wants_gradient());
        assert!(!tape.no_grad(|tape| tape.elementwise("mul", &[&x, &c])).unwrap().wants_gradient());
        assert!(!tape.elementwise("mul", &[&x.detach(), &c]).unwrap().wants_gradient());
        assert!(tape.elementwise("mul", &[&x, &c]).unwrap().wants_gradient());
    });
}

#[test]
fn recomputed_segments_give_the_same_gradients() {
    let (x, w) = (Var::leaf(row(&[0.5, -1.0])), Var::leaf(row(&[2.0, 3.0])));
    let run = |checkpoint: bool| {
        Context::here(|cx| {
            let tape = Tape::new(cx);
            let w = w.clone();
            let segment = move |tape: &Tape, inputs: &[Var]| {
                let y = tape.elementwise("mul", &[&inputs[0], &w])?;
                Ok(vec![tape.elementwise("tanh", &[&y])?])
            };
            let y = if checkpoint { tape.checkpoint(&[&x], segment) } else { segment(&tape, std::slice::from_ref(&x)) };
            tape.sum(&y.unwrap()[0]).unwrap().backward(cx).unwrap()
        })
    };
    let (mut kept, mut again) = (run(false), run(true));
    for leaf in [&x, &w] {
        assert_eq!(values(kept.take(leaf).unwrap()), values(again.take(leaf).unwrap()));
    }
}

#[test]
fn hooks_see_and_change_what_flows_back() {
    let x = Var::leaf(row(&[1.0, 2.0]));
    let slope = Context::here(|cx| {
        let tape = Tape::new(cx);
        let seen = tape.hook(&x, |_| Ok(row(&[7.0, 8.0]))).unwrap();
        tape.sum(&seen).unwrap().backward(cx).unwrap().take(&x).unwrap()
    });
    assert_eq!(values(slope), [7.0, 8.0]);
}

#[test]
fn what_cannot_be_is_an_error() {
    let x = Var::leaf(row(&[1.0, 2.0]));
    Context::here(|cx| {
        let tape = Tape::new(cx);
        let y = tape.elementwise("mul", &[&x, &x]).unwrap();
        assert!(matches!(y.backward(cx), Err(Error::NotOneNumber { .. })));
        let loss = tape.sum(&y).unwrap();
        loss.backward(cx).unwrap();
        assert!(matches!(loss.backward(cx), Err(Error::Used)));
        let refused = tape.call(windlass_ops::op("square_dx").unwrap(), &[&x, &x], &Attributes::NONE);
        assert!(matches!(refused, Err(Error::NoGradient { .. })), "{refused:?}");
    });
}

/// A chain of calls longer than a stack is let go without one.
#[test]
fn long_chains_are_let_go() {
    let x = Var::leaf(row(&[1.0]));
    Context::here(|cx| {
        let tape = Tape::new(cx);
        let mut y = x.clone();
        for _ in 0..100_000 {
            y = tape.scale(&y, 1.0).unwrap();
        }
        drop(y);
    });
}

/// A gated block with a norm, which takes memory for its inputs only.
#[test]
fn values_that_are_forgotten_come_again_the_same() {
    let fill = |n: usize, by: f32| -> Vec<f32> { (0..n).map(|i| ((i as f32) * by).sin()).collect() };
    let x = Var::leaf(Tensor::from_slice(&fill(64, 0.7), [4, 16]).unwrap());
    let weight = Var::leaf(Tensor::from_slice(&fill(16, 1.3), [16]).unwrap());
    let matrix = Var::leaf(Tensor::from_slice(&fill(256, 0.3), [16, 16]).unwrap());
    let run = |forgets: bool| {
        Context::here(|cx| {
            let tape = if forgets { Tape::new(cx).forgetting(windlass_nn::is_cheap) } else { Tape::new(cx) };
            let heads = tape.reshape(&x, [8, 8]).unwrap();
            let half = Var::constant(Tensor::from_slice(&fill(8, 0.9), [8]).unwrap());
            let normed = tape.one(&library::RMS_NORM, &[&heads, &half], &Attributes::NONE).unwrap();
            let normed = tape.reshape(&normed, [4, 16]).unwrap();
            let product = tape.one(&library::LINEAR, &[&normed, &matrix], &Attributes::NONE).unwrap();
            let again = tape.one(&library::RMS_NORM, &[&product, &weight], &Attributes::NONE).unwrap();
            let gated = tape.elementwise("swiglu", &[&again, &product]).unwrap();
            let out = tape.one(&library::LINEAR, &[&gated, &matrix], &Attributes::NONE).unwrap();
            let how = Attributes::new().float("p", 0.5).int("seed", 3).int("counter", 0);
            let out = tape.one(&library::DROPOUT, &[&out], &how).unwrap();
            let loss = tape.sum(&tape.elementwise("mul", &[&out, &out]).unwrap()).unwrap();
            let mut all = loss.backward(cx).unwrap();
            [&x, &weight, &matrix].map(|leaf| values(all.take(leaf).unwrap()))
        })
    };
    assert_eq!(run(true), run(false));
}
