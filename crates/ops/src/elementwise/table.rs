//! The elementwise ops: one row each.

use super::expr::expr;
use super::{Gives, Row};

/// A row of one input.
const fn one(name: &'static str, about: &'static str, expr: super::Expr) -> Row {
    Row { name, about, inputs: 1, parameters: &[], gives: Gives::Same, expr }
}

const fn two(name: &'static str, about: &'static str, expr: super::Expr) -> Row {
    Row { inputs: 2, ..one(name, about, expr) }
}

const fn test(name: &'static str, about: &'static str, inputs: usize, expr: super::Expr) -> Row {
    Row { inputs, gives: Gives::Truth, ..one(name, about, expr) }
}

/// Adding an elementwise op costs a row here; every provider serves it.
pub static ROWS: &[Row] = &[
    one("neg", "-x", expr!((Neg x))),
    one("abs", "|x|", expr!((Abs x))),
    one("sign", "-1, 0 or 1", expr!((Sign x))),
    one("floor", "the whole number below", expr!((Floor x))),
    one("ceil", "the whole number above", expr!((Ceil x))),
    one("trunc", "the whole part", expr!((Trunc x))),
    one("round", "the nearest whole number, halves to even", expr!((Round x))),
    one("frac", "x - trunc(x)", expr!((Sub x (Trunc x)))),
    one("square", "x * x", expr!((Mul x x))),
    one("reciprocal", "1 / x", expr!((Div 1.0 x))),
    one("sqrt", "the square root", expr!((Sqrt x))),
    one("rsqrt", "1 / sqrt(x)", expr!((Div 1.0 (Sqrt x)))),
    one("exp", "e to the x", expr!((Exp x))),
    one("exp2", "2 to the x", expr!((Pow 2.0 x))),
    one("expm1", "e to the x, less 1", expr!((Expm1 x))),
    one("log", "the natural logarithm", expr!((Log x))),
    one("log2", "the logarithm to base 2", expr!((Div (Log x) (Log 2.0)))),
    one("log10", "the logarithm to base 10", expr!((Div (Log x) (Log 10.0)))),
    one("log1p", "log(1 + x)", expr!((Log1p x))),
    one("sin", "the sine", expr!((Sin x))),
    one("cos", "the cosine", expr!((Cos x))),
    one("tan", "the tangent", expr!((Tan x))),
    one("asin", "the inverse sine", expr!((Asin x))),
    one("acos", "the inverse cosine", expr!((Acos x))),
    one("atan", "the inverse tangent", expr!((Atan x))),
    one("sinh", "the hyperbolic sine", expr!((Sinh x))),
    one("cosh", "the hyperbolic cosine", expr!((Cosh x))),
    one("tanh", "the hyperbolic tangent", expr!((Tanh x))),
    one("asinh", "the inverse hyperbolic sine", expr!((Asinh x))),
    one("acosh", "the inverse hyperbolic cosine", expr!((Acosh x))),
    one("atanh", "the inverse hyperbolic tangent", expr!((Atanh x))),
    one("erf", "the error function", expr!((Erf x))),
    one("erfc", "1 less the error function", expr!((Erfc x))),
    one("sigmoid", "1 / (1 + exp(-x))", expr!((Sigmoid x))),
    one("log_sigmoid", "log(sigmoid(x))", expr!((Sub (Min x 0.0) (Log1p (Exp (Neg (Abs x))))))),
    one("relu", "max(x, 0)", expr!((Max x 0.0))),
    one("relu6", "min(max(x, 0), 6)", expr!((Min (Max x 0.0) 6.0))),
    one("silu", "x * sigmoid(x)", expr!((Mul x (Sigmoid x)))),
    one("gelu", "x * (1 + erf(x / sqrt(2))) / 2", expr!((Mul (Mul 0.5 x) (Erfc (Div x (Neg (Sqrt 2.0))))))),
    one(
        "gelu_tanh",
        "x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2",
        expr!((Mul x (Sigmoid (Mul 1.595_769 (Add x (Mul 0.044715 (Mul x (Mul x x)))))))),
    ),
    one("softplus", "log(1 + exp(x))", expr!((Add (Max x 0.0) (Log1p (Exp (Neg (Abs x))))))),
    one("softsign", "x / (1 + |x|)", expr!((Div x (Add 1.0 (Abs x))))),
    one("mish", "x * tanh(softplus(x))", expr!((Mul x (Tanh (Add (Max x 0.0) (Log1p (Exp (Neg (Abs x))))))))),
    one("hardsigmoid", "min(max(x + 3, 0), 6) / 6", expr!((Div (Min (Max (Add x 3.0) 0.0) 6.0) 6.0))),
    one("hardswish", "x * hardsigmoid(x)", expr!((Mul x (Div (Min (Max (Add x 3.0) 0.0) 6.0) 6.0)))),
    Row {
        parameters: &[("lambda", 0.5)],
        ..one("softshrink", "x less lambda towards 0", expr!((If (Gt x a) (Sub x a) (If (Lt x (Neg a)) (Add x a) 0.0))))
    },
    Row {
        parameters: &[("lambda", 0.5)],
        ..one("hardshrink", "x, or 0 up to lambda", expr!((If (Gt (Abs x) a) x 0.0)))
    },
    Row {
        parameters: &[("threshold", 0.0), ("value", 0.0)],
        ..one("threshold", "x above threshold, else value", expr!((If (Gt x a) x b)))
    },
    Row {
        parameters: &[("alpha", 1.0)],
        ..one(
            "celu",
            "max(x, 0) + min(0, alpha * (exp(x / alpha) - 1))",
            expr!((If (Gt x 0.0) x (Mul a (Expm1 (Div x a))))),
        )
    },
    one("tanhshrink", "x - tanh(x)", expr!((Sub x (Tanh x)))),
    one(
        "selu",
        "scaled exponential linear unit (arXiv 1706.02515)",
        expr!((Mul 1.050_701 (If (Gt x 0.0) x (Mul 1.673_263_2 (Expm1 x))))),
    ),
    Row {
        parameters: &[("alpha", 1.0)],
        ..one("elu", "x, or alpha * (exp(x) - 1) below 0", expr!((If (Gt x 0.0) x (Mul a (Expm1 x)))))
    },
    Row {
        parameters: &[("slope", 0.01)],
        ..one("leaky_relu", "x, or slope * x below 0", expr!((If (Gt x 0.0) x (Mul a x))))
    },
    Row {
        parameters: &[("low", f64::NEG_INFINITY), ("high", f64::INFINITY)],
        ..one("clamp", "min(max(x, low), high)", expr!((Min (Max x a) b)))
    },
    Row { parameters: &[("by", 1.0)], ..one("scale", "x * by", expr!((Mul x a))) },
    Row { parameters: &[("by", 0.0)], ..one("shift", "x + by", expr!((Add x a))) },
    Row { parameters: &[("cap", 1.0)], ..one("soft_cap", "cap * tanh(x / cap)", expr!((Mul a (Tanh (Div x a))))) },
    Row { parameters: &[("exponent", 2.0)], ..one("power", "x to a fixed exponent", expr!((Pow x a))) },
    two("add", "x + y", expr!((Add x y))),
    two("sub", "x - y", expr!((Sub x y))),
    two("mul", "x * y", expr!((Mul x y))),
    two("div", "x / y", expr!((Div x y))),
    two("pow", "x to the y", expr!((Pow x y))),
    two("maximum", "the larger", expr!((Max x y))),
    two("minimum", "the smaller", expr!((Min x y))),
    two("fmod", "the remainder with the sign of x", expr!((Rem x y))),
    two(
        "remainder",
        "the remainder with the sign of y",
        expr!((If (Lt (Mul (Rem x y) y) 0.0) (Add (Rem x y) y) (Rem x y))),
    ),
    two("atan2", "the angle of (y, x)", expr!((Atan2 x y))),
    two("floor_divide", "the whole number below x / y", expr!((Floor (Div x y)))),
    two(
        "logaddexp",
        "log(exp(x) + exp(y))",
        expr!((If (Eq x y) (Add x (Log 2.0)) (Add (Max x y) (Log1p (Exp (Neg (Abs (Sub x y)))))))),
    ),
    two("hypot", "sqrt(x^2 + y^2)", expr!((Sqrt (Add (Mul x x) (Mul y y))))),
    two("squared_difference", "(x - y)^2", expr!((Mul (Sub x y) (Sub x y)))),
    two("swiglu", "silu(x) * y", expr!((Mul (Mul x (Sigmoid x)) y))),
    two("geglu", "gelu(x) * y", expr!((Mul (Mul (Mul 0.5 x) (Erfc (Div x (Neg (Sqrt 2.0))))) y))),
    two(
        "geglu_tanh",
        "gelu_tanh(x) * y",
        expr!((Mul (Mul x (Sigmoid (Mul 1.595_769 (Add x (Mul 0.044715 (Mul x (Mul x x))))))) y)),
    ),
    Row { parameters: &[("by", 1.0)], ..two("add_scaled", "x + by * y", expr!((Add x (Mul a y)))) },
    Row { inputs: 3, ..one("where", "y where x is not 0, else z", expr!((If x y z))) },
    // From the nearer end, so that both ends are met.
    Row {
        inputs: 3,
        ..one(
            "lerp",
            "x + z * (y - x)",
            expr!((If (Lt z 0.5) (Add x (Mul z (Sub y x))) (Sub y (Mul (Sub y x) (Sub 1.0 z))))),
        )
    },
    Row { inputs: 3, parameters: &[("by", 1.0)], ..one("addcmul", "x + by * y * z", expr!((Add x (Mul a (Mul y z))))) },
    Row { inputs: 3, parameters: &[("by", 1.0)], ..one("addcdiv", "x + by * y / z", expr!((Add x (Mul a (Div y z))))) },
    test("eq", "x = y", 2, expr!((Eq x y))),
    test("ne", "x != y", 2, expr!((Ne x y))),
    test("lt", "x < y", 2, expr!((Lt x y))),
    test("le", "x <= y", 2, expr!((Le x y))),
    test("gt", "x > y", 2, expr!((Gt x y))),
    test("ge", "x >= y", 2, expr!((Ge x y))),
    test("isnan", "whether x is not a number", 1, expr!((Ne x x))),
    test("isinf", "whether x is infinite", 1, expr!((Eq (Abs x) (Div 1.0 0.0)))),
    test("isfinite", "whether x is a number and not infinite", 1, expr!((Eq (Sub x x) 0.0))),
    test("logical_not", "x = 0", 1, expr!((Eq x 0.0))),
    test("logical_and", "x != 0 and y != 0", 2, expr!((Mul (Ne x 0.0) (Ne y 0.0)))),
    test("logical_or", "x != 0 or y != 0", 2, expr!((Max (Ne x 0.0) (Ne y 0.0)))),
    test("logical_xor", "one of x and y is not 0", 2, expr!((Ne (Ne x 0.0) (Ne y 0.0)))),
];
