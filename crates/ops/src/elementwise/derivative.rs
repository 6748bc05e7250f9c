//! Derivatives of expressions, as expressions: what training differentiates elementwise ops with.

use super::{Binary, Expr, Unary};

/// The derivative of `e` with respect to input `input`: an expression of the same inputs and parameters. Where a function
/// has a step or a kink it is the derivative from one side, or zero; comparisons and remainders' quotients have zero. Its
/// parts live as long as the process: derive once for each row.
pub fn derivative(e: &'static Expr, input: u8) -> Expr {
    match e {
        Expr::Input(i) => Expr::Constant(if *i == input { 1.0 } else { 0.0 }),
        Expr::Parameter(_) | Expr::Constant(_) => ZERO,
        Expr::Unary(f, p) => match derivative(p, input) {
            ZERO => ZERO,
            inner => times(unary(*f, p, e), inner),
        },
        Expr::Binary(f, p, q) => binary(*f, [p, q], e, [derivative(p, input), derivative(q, input)]),
        Expr::Select(condition, then, other) => select(**condition, derivative(then, input), derivative(other, input)),
    }
}

/// The derivatives with respect to all inputs of a row.
pub fn derivatives(row: &'static super::Row) -> Vec<Expr> {
    (0..row.inputs as u8).map(|input| derivative(&row.expr, input)).collect()
}

const ZERO: Expr = Expr::Constant(0.0);
const ONE: Expr = Expr::Constant(1.0);

/// The derivative of `f` at `p`, where `e` is `f` of `p`.
fn unary(f: Unary, p: &'static Expr, e: &'static Expr) -> Expr {
    let (p, e) = (*p, *e);
    let square = |e| times(e, e);
    match f {
        Unary::Neg => Expr::Constant(-1.0),
        Unary::Abs => one(Unary::Sign, p),
        Unary::Sign | Unary::Floor | Unary::Ceil | Unary::Trunc | Unary::Round => ZERO,
        Unary::Sqrt => over(Expr::Constant(0.5), e),
        Unary::Exp => e,
        Unary::Expm1 => plus(e, ONE),
        Unary::Log => over(ONE, p),
        Unary::Log1p => over(ONE, plus(ONE, p)),
        Unary::Sin => one(Unary::Cos, p),
        Unary::Cos => one(Unary::Neg, one(Unary::Sin, p)),
        Unary::Tan => plus(ONE, square(e)),
        // 1 - p^2 as a product, which keeps its digits near 1.
        Unary::Asin => over(ONE, one(Unary::Sqrt, times(minus(ONE, p), plus(ONE, p)))),
        Unary::Acos => over(Expr::Constant(-1.0), one(Unary::Sqrt, times(minus(ONE, p), plus(ONE, p)))),
        Unary::Atan => over(ONE, plus(ONE, square(p))),
        Unary::Sinh => one(Unary::Cosh, p),
        Unary::Cosh => one(Unary::Sinh, p),
        Unary::Tanh => minus(ONE, square(e)),
        Unary::Asinh => over(ONE, one(Unary::Sqrt, plus(square(p), ONE))),
        Unary::Acosh => over(ONE, one(Unary::Sqrt, times(minus(p, ONE), plus(p, ONE)))),
        Unary::Atanh => over(ONE, times(minus(ONE, p), plus(ONE, p))),
        Unary::Sigmoid => times(e, minus(ONE, e)),
        // 2 / sqrt(pi) * exp(-p^2).
        Unary::Erf => bell(std::f32::consts::FRAC_2_SQRT_PI, p),
        Unary::Erfc => bell(-std::f32::consts::FRAC_2_SQRT_PI, p),
    }
}

/// `factor` times exp(-p^2).
fn bell(factor: f32, p: Expr) -> Expr {
    times(Expr::Constant(factor), one(Unary::Exp, one(Unary::Neg, times(p, p))))
}

/// The derivative of `e`, which is `f` of `p` and `q`, whose derivatives are `dp` and `dq`.
fn binary(f: Binary, [p, q]: [&'static Expr; 2], e: &'static Expr, [dp, dq]: [Expr; 2]) -> Expr {
    let (p, q, e) = (*p, *q, *e);
    if dp == ZERO && dq == ZERO {
        return ZERO;
    }
    match f {
        Binary::Add => plus(dp, dq),
        Binary::Sub => minus(dp, dq),
        Binary::Mul => plus(times(dp, q), times(p, dq)),
        Binary::Div => minus(over(dp, q), over(times(e, dq), q)),
        // p^q (q / p * dp + log(p) * dq), written so that a zero p has the limit.
        Binary::Pow => {
            let slope = if dp == ZERO { ZERO } else { times(times(q, two(Binary::Pow, p, minus(q, ONE))), dp) };
            plus(slope, times(times(e, one(Unary::Log, p)), dq))
        }
        // Halves where both are equal, as a mean of both sides.
        Binary::Max | Binary::Min => {
            let first = if f == Binary::Max { Binary::Gt } else { Binary::Lt };
            let equal = times(Expr::Constant(0.5), plus(dp, dq));
            select(two(first, p, q), dp, select(two(Binary::Eq, p, q), equal, dq))
        }
        Binary::Atan2 => {
            let size = plus(times(p, p), times(q, q));
            over(minus(times(q, dp), times(p, dq)), size)
        }
        // p - trunc(p / q) * q.
        Binary::Rem => minus(dp, times(one(Unary::Trunc, over(p, q)), dq)),
        Binary::Eq | Binary::Ne | Binary::Lt | Binary::Le | Binary::Gt | Binary::Ge => ZERO,
    }
}

fn keep(e: Expr) -> &'static Expr {
    Box::leak(Box::new(e))
}

fn one(f: Unary, p: Expr) -> Expr {
    Expr::Unary(f, keep(p))
}

fn two(f: Binary, p: Expr, q: Expr) -> Expr {
    Expr::Binary(f, keep(p), keep(q))
}

fn select(condition: Expr, then: Expr, other: Expr) -> Expr {
    if then == other { then } else { Expr::Select(keep(condition), keep(then), keep(other)) }
}

fn plus(p: Expr, q: Expr) -> Expr {
    match (p, q) {
        (ZERO, other) | (other, ZERO) => other,
        (p, q) => two(Binary::Add, p, q),
    }
}

fn minus(p: Expr, q: Expr) -> Expr {
    match (p, q) {
        (p, ZERO) => p,
        (ZERO, q) => one(Unary::Neg, q),
        (p, q) => two(Binary::Sub, p, q),
    }
}

fn times(p: Expr, q: Expr) -> Expr {
    match (p, q) {
        (ZERO, _) | (_, ZERO) => ZERO,
        (ONE, other) | (other, ONE) => other,
        (p, q) => two(Binary::Mul, p, q),
    }
}

fn over(p: Expr, q: Expr) -> Expr {
    match (p, q) {
        (ZERO, _) => ZERO,
        (p, ONE) => p,
        (p, q) => two(Binary::Div, p, q),
    }
}

#[cfg(test)]
mod tests {
    use windlass_runtime::random::Philox;

    use super::super::expr::expr;
    use super::*;
    use crate::elementwise::{ops, row};

    /// Central differences of two steps, extrapolated; `None` near a kink, a step or the end of the domain, where they
    /// do not agree.
    fn slope(e: &Expr, x: &[f64; 3], input: usize, parameters: &[f64]) -> Option<f64> {
        let at = |h: f64| {
            let mut x = *x;
            x[input] += h;
            e.evaluate(&x, parameters)
        };
        let central = |h: f64| (at(h) - at(-h)) / (2.0 * h);
        let (wide, narrow) = (central(2e-4), central(1e-4));
        let slope = (4.0 * narrow - wide) / 3.0;
        let sides = ((at(1e-4) - at(0.0)) / 1e-4, (at(0.0) - at(-1e-4)) / 1e-4);
        let smooth = (wide - narrow).abs() <= 1e-4 * (1.0 + narrow.abs())
            && (sides.0 - sides.1).abs() <= 1e-2 * (1.0 + narrow.abs());
        (slope.is_finite() && smooth).then_some(slope)
    }

    #[test]
    fn derivatives_of_all_rows_equal_finite_differences() {
        for op in ops() {
            let row = row(op.name).unwrap();
            let parameters: Vec<f64> = row.parameters.iter().map(|(_, value)| *value).collect();
            let mut checked = 0;
            for (input, derived) in derivatives(row).iter().enumerate() {
                let mut values = [0.0; 600];
                Philox::new(input as u64).fill_uniform_f64(&mut values);
                for x in values.as_chunks::<3>().0 {
                    // Both signs, and for the inverses the range from -1 to 1 and beyond.
                    let x = x.map(|v| 5.0 * v - 2.0);
                    let Some(expected) = slope(&row.expr, &x, input, &parameters) else { continue };
                    let found = derived.evaluate(&x, &parameters);
                    // Constants of the derivative are single precision.
                    let near = (found - expected).abs() <= 2e-6 * (1.0 + expected.abs());
                    assert!(near, "{} by input {input} at {x:?}: expected {expected}, found {found}", op.name);
                    checked += 1;
                }
            }
            assert!(checked >= 40 * row.inputs, "{}: only {checked} points", op.name);
        }
    }

    #[test]
    fn what_is_constant_vanishes() {
        static PRODUCT: Expr = expr!((Mul x y));
        assert_eq!(derivative(&PRODUCT, 2), ZERO);
        assert_eq!(derivative(&PRODUCT, 0), Expr::Input(1));
    }
}
