//! Scalar expressions: small constant trees that every provider reads, each in its own way.

/// An expression of up to four inputs and a few parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expr {
    /// Input `0` to `3`.
    Input(u8),
    /// A number that the call gives: an attribute, by its place in the row.
    Parameter(u8),
    Constant(f32),
    Unary(Unary, &'static Expr),
    Binary(Binary, &'static Expr, &'static Expr),
    /// The second where the first is not zero, else the third.
    Select(&'static Expr, &'static Expr, &'static Expr),
}

/// Functions of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    Neg,
    Abs,
    /// -1, 0 or 1.
    Sign,
    Floor,
    Ceil,
    Trunc,
    /// To the nearest whole number, halves to the even one.
    Round,
    Sqrt,
    Exp,
    Expm1,
    Log,
    Log1p,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
    Asinh,
    Acosh,
    Atanh,
    Erf,
    /// 1 - erf(x), with all its digits where that is small.
    Erfc,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
}

/// Functions of two numbers. Comparisons give 1 or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    /// Not a number if either is.
    Max,
    /// Not a number if either is.
    Min,
    Atan2,
    /// The remainder with the sign of the first.
    Rem,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// Writes an expression in prefix form: `expr!((Div x (Add 1.0 (Exp (Neg x)))))`. `x`, `y`, `z` are the inputs, `a`, `b`
/// the parameters; `If` takes a condition and two branches.
macro_rules! expr {
    (x) => {
        $crate::elementwise::Expr::Input(0)
    };
    (y) => {
        $crate::elementwise::Expr::Input(1)
    };
    (z) => {
        $crate::elementwise::Expr::Input(2)
    };
    (a) => {
        $crate::elementwise::Expr::Parameter(0)
    };
    (b) => {
        $crate::elementwise::Expr::Parameter(1)
    };
    ($number:literal) => {
        $crate::elementwise::Expr::Constant($number)
    };
    ((If $c:tt $t:tt $e:tt)) => {
        $crate::elementwise::Expr::Select(&expr!($c), &expr!($t), &expr!($e))
    };
    (($f:ident $p:tt $q:tt)) => {
        $crate::elementwise::Expr::Binary($crate::elementwise::Binary::$f, &expr!($p), &expr!($q))
    };
    (($f:ident $p:tt)) => {
        $crate::elementwise::Expr::Unary($crate::elementwise::Unary::$f, &expr!($p))
    };
}
pub(crate) use expr;

impl Expr {
    /// The value, in double precision.
    pub fn evaluate(&self, inputs: &[f64], parameters: &[f64]) -> f64 {
        match self {
            Expr::Input(i) => inputs.get(usize::from(*i)).copied().unwrap_or(f64::NAN),
            Expr::Parameter(i) => parameters.get(usize::from(*i)).copied().unwrap_or(f64::NAN),
            Expr::Constant(c) => f64::from(*c),
            Expr::Unary(f, p) => f.evaluate(p.evaluate(inputs, parameters)),
            Expr::Binary(f, p, q) => f.evaluate(p.evaluate(inputs, parameters), q.evaluate(inputs, parameters)),
            Expr::Select(c, t, e) => {
                let branch = if c.evaluate(inputs, parameters) != 0.0 { t } else { e };
                branch.evaluate(inputs, parameters)
            }
        }
    }
}

impl Unary {
    /// The value, in double precision.
    pub fn evaluate(self, x: f64) -> f64 {
        match self {
            Unary::Neg => -x,
            Unary::Abs => x.abs(),
            Unary::Sign if x == 0.0 || x.is_nan() => x,
            Unary::Sign => x.signum(),
            Unary::Floor => x.floor(),
            Unary::Ceil => x.ceil(),
            Unary::Trunc => x.trunc(),
            Unary::Round => x.round_ties_even(),
            Unary::Sqrt => x.sqrt(),
            Unary::Exp => x.exp(),
            Unary::Expm1 => x.exp_m1(),
            Unary::Log => x.ln(),
            Unary::Log1p => x.ln_1p(),
            Unary::Sin => x.sin(),
            Unary::Cos => x.cos(),
            Unary::Tan => x.tan(),
            Unary::Asin => x.asin(),
            Unary::Acos => x.acos(),
            Unary::Atan => x.atan(),
            Unary::Sinh => x.sinh(),
            Unary::Cosh => x.cosh(),
            Unary::Tanh => x.tanh(),
            Unary::Asinh => libm::asinh(x),
            Unary::Acosh => x.acosh(),
            Unary::Atanh => x.atanh(),
            Unary::Erf => libm::erf(x),
            Unary::Erfc => libm::erfc(x),
            Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        }
    }
}

impl Binary {
    /// The value, in double precision.
    pub fn evaluate(self, x: f64, y: f64) -> f64 {
        let truth = |yes: bool| f64::from(u8::from(yes));
        match self {
            Binary::Add => x + y,
            Binary::Sub => x - y,
            Binary::Mul => x * y,
            Binary::Div => x / y,
            Binary::Pow => x.powf(y),
            Binary::Max | Binary::Min if x.is_nan() || y.is_nan() => f64::NAN,
            Binary::Max => x.max(y),
            Binary::Min => x.min(y),
            Binary::Atan2 => x.atan2(y),
            Binary::Rem => x % y,
            Binary::Eq => truth(x == y),
            Binary::Ne => truth(x != y),
            Binary::Lt => truth(x < y),
            Binary::Le => truth(x <= y),
            Binary::Gt => truth(x > y),
            Binary::Ge => truth(x >= y),
        }
    }
}
