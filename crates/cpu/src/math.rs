//! Functions of one number, written so that loops over them become vectors: no branches, no tables, no calls.

/// 1.5 * 2^23: adding it rounds, and leaves the whole number in the low bits.
const ROUND: f32 = 12_582_912.0;

/// One number of the 16 of an array, two of which `$f` makes one of: halves, not one after the other, so that it takes vectors.
/// A macro, because closures that are called more than once are not always compiled for the instruction set.
macro_rules! fold {
    ($x:expr, $a:ident, $b:ident => $f:expr) => {{
        let mut x = $x;
        for i in 0..8 {
            let ($a, $b) = (x[i], x[i + 8]);
            x[i] = $f;
        }
        for i in 0..4 {
            let ($a, $b) = (x[i], x[i + 4]);
            x[i] = $f;
        }
        for i in 0..2 {
            let ($a, $b) = (x[i], x[i + 2]);
            x[i] = $f;
        }
        let ($a, $b) = (x[0], x[1]);
        $f
    }};
}
pub(crate) use fold;

/// Inside a function that is compiled for an instruction set with fused multiplication, `FMA` says so; elsewhere a fused
/// product would be a slow call.
#[inline(always)]
fn mul_add<const FMA: bool>(x: f32, y: f32, z: f32) -> f32 {
    if FMA { x.mul_add(y, z) } else { x * y + z }
}

/// e to the `x`, to 1.5 ulp; 0 below -87.3, infinity above 88.7.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    let clamped = x.clamp(-87.4, 88.8);
    let shifted = mul_add::<FMA>(clamped, std::f32::consts::LOG2_E, ROUND);
    let p = exp_near_zero::<FMA>(clamped, shifted - ROUND);
    // Two factors, because 2^128 is not a float.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    let y = p * power(half) * power(n.wrapping_sub(half));
    let y = if x > 88.722_84 { f32::INFINITY } else { y };
    let y = if x < -87.336_54 { 0.0 } else { y };
    if x.is_nan() { x } else { y }
}

/// e to the `x` for `x` up to 0, to 1.5 ulp; 0 below -87: what softmax needs, in two thirds of the work.
#[inline(always)]
pub(crate) fn exp_falling<const FMA: bool>(x: f32) -> f32 {
    let clamped = if x < -87.0 { -87.0 } else { x };
    let shifted = mul_add::<FMA>(clamped, std::f32::consts::LOG2_E, ROUND);
    let p = exp_near_zero::<FMA>(clamped, shifted - ROUND);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { p * power }
}

/// e to the `x - n ln 2`, which is within +-0.35.
#[inline(always)]
fn exp_near_zero<const FMA: bool>(x: f32, n: f32) -> f32 {
    // The two parts of ln 2 add up beyond single precision.
    let r = mul_add::<FMA>(n, -0.693_359_4, x);
    let r = mul_add::<FMA>(n, 2.121_944_4e-4, r);
    let p = mul_add::<FMA>(1.987_569_1e-4, r, 1.398_199_9e-3);
    let p = mul_add::<FMA>(p, r, 8.333_452e-3);
    let p = mul_add::<FMA>(p, r, 4.166_579_6e-2);
    let p = mul_add::<FMA>(p, r, 1.666_666_5e-1);
    let p = mul_add::<FMA>(p, r, 5e-1);
    mul_add::<FMA>(p, r * r, r) + 1.0
}

/// The hyperbolic tangent, to 3 ulp.
#[inline(always)]
pub(crate) fn tanh<const FMA: bool>(x: f32) -> f32 {
    let a = x.abs();
    // Near zero the quotient below loses digits; a polynomial (Cephes) does not.
    let z = x * x;
    let p = mul_add::<FMA>(-5.704_988_7e-3, z, 2.063_908_7e-2);
    let p = mul_add::<FMA>(p, z, -5.373_971_6e-2);
    let p = mul_add::<FMA>(p, z, 1.333_144_2e-1);
    let p = mul_add::<FMA>(p, z, -3.333_328e-1);
    let small = mul_add::<FMA>(p * z, x, x);
    let e = exp::<FMA>(2.0 * a);
    let large = (1.0 - 2.0 / (e + 1.0)).copysign(x);
    if a < 0.625 || x.is_nan() { small } else { large }
}

/// The error function, to 1e-6 of its value: its series near zero, elsewhere one less the complementary function.
#[inline(always)]
pub(crate) fn erf<const FMA: bool>(x: f32) -> f32 {
    let large = (1.0 - tail::<FMA>(x.abs())).copysign(x);
    if x.abs() < 0.5 { series::<FMA>(x) } else { large }
}

/// One less the error function, to 1e-6 of its value, however small.
#[inline(always)]
pub(crate) fn erfc<const FMA: bool>(x: f32) -> f32 {
    let tail = tail::<FMA>(x.abs());
    let large = if x < 0.0 { 2.0 - tail } else { tail };
    if x.abs() < 0.5 { 1.0 - series::<FMA>(x) } else { large }
}

/// The Taylor series of the error function at zero.
#[inline(always)]
fn series<const FMA: bool>(x: f32) -> f32 {
    let z = x * x;
    let p = mul_add::<FMA>(-8.010_1e-4, z, 5.223_98e-3);
    let p = mul_add::<FMA>(p, z, -2.686_617e-2);
    let p = mul_add::<FMA>(p, z, 1.128_379_1e-1);
    let p = mul_add::<FMA>(p, z, -3.761_263_8e-1);
    x * mul_add::<FMA>(p, z, std::f32::consts::FRAC_2_SQRT_PI)
}

/// The complementary function of `a` from 0 up, by the Chebyshev fit of Numerical Recipes (section 6.2).
#[inline(always)]
fn tail<const FMA: bool>(a: f32) -> f32 {
    let t = 1.0 / mul_add::<FMA>(0.5, a, 1.0);
    let q = mul_add::<FMA>(1.708_727_7e-1, t, -8.221_522_6e-1);
    let q = mul_add::<FMA>(q, t, 1.488_515_9);
    let q = mul_add::<FMA>(q, t, -1.135_204);
    let q = mul_add::<FMA>(q, t, 2.788_680_7e-1);
    let q = mul_add::<FMA>(q, t, -1.862_880_6e-1);
    let q = mul_add::<FMA>(q, t, 9.678_418e-2);
    let q = mul_add::<FMA>(q, t, 3.740_919_6e-1);
    let q = mul_add::<FMA>(q, t, 1.000_023_7);
    let q = mul_add::<FMA>(q, t, -1.265_512_2);
    // The square in two parts: that of the first twelve bits is exact, so that its exponential keeps its digits.
    let high = f32::from_bits(a.to_bits() & 0xffff_f000);
    let rest = (high - a) * (high + a) + q;
    // Beyond 10 nothing is left, and the products of infinities are not numbers.
    let value = t * exp::<FMA>(-high * high) * exp::<FMA>(rest);
    if a > 10.0 { 0.0 } else { value }
}
