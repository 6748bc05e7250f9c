//! Functions of single precision against those of double precision. The file is read in here: the crate takes minutes to
//! compile, and has no other tests of what is private.
#![allow(dead_code, unused_macros, unused_imports)]

#[path = "../src/math.rs"]
mod math;

use math::{erf, erfc, exp, exp_falling, tanh};

fn worst(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, from: f32, to: f32) -> f64 {
    let steps = 200_000;
    let at = |i: usize| from + (to - from) * i as f32 / steps as f32;
    let error = |x: f32| {
        let exact = exact(f64::from(x));
        (f64::from(f(x)) - exact).abs() / exact.abs().max(1e-30)
    };
    (0..=steps).map(|i| error(at(i))).fold(0.0, f64::max)
}

#[test]
fn functions_are_near_the_exact_ones() {
    assert!(worst(exp::<false>, f64::exp, -87.0, 88.7) < 2e-7);
    assert!(worst(exp::<true>, f64::exp, -87.0, 88.7) < 2e-7);
    assert!(worst(exp_falling::<false>, f64::exp, -87.0, 0.0) < 2e-7);
    assert!(worst(exp_falling::<true>, f64::exp, -87.0, 0.0) < 2e-7);
    assert!(worst(tanh::<true>, f64::tanh, -12.0, 12.1) < 4e-7);
    assert!(worst(erf::<true>, libm::erf, -5.0, 5.1) < 1e-6);
    assert!(worst(erfc::<true>, libm::erfc, -5.0, 9.1) < 1.5e-6);
    assert!(worst(erfc::<false>, libm::erfc, -5.0, 9.1) < 1.5e-6);
}

#[test]
fn extremes_are_what_they_should_be() {
    assert_eq!(exp::<true>(f32::NEG_INFINITY), 0.0);
    assert_eq!(exp::<true>(f32::INFINITY), f32::INFINITY);
    assert_eq!(exp::<true>(0.0), 1.0);
    assert!(exp::<true>(f32::NAN).is_nan());
    assert_eq!(exp_falling::<true>(0.0), 1.0);
    assert_eq!(exp_falling::<true>(-88.0), 0.0);
    assert_eq!(exp_falling::<true>(f32::NEG_INFINITY), 0.0);
    assert!(exp_falling::<true>(f32::NAN).is_nan());
    assert_eq!((erfc::<true>(f32::INFINITY), erfc::<true>(f32::NEG_INFINITY)), (0.0, 2.0));
    assert!(erfc::<true>(f32::NAN).is_nan() && erf::<true>(f32::NAN).is_nan());
    assert_eq!(tanh::<true>(f32::INFINITY), 1.0);
    assert_eq!(tanh::<true>(f32::NEG_INFINITY), -1.0);
    assert!(tanh::<true>(f32::NAN).is_nan());
}
