//! Every scheme on every level against products in double precision of the same weights and activations.
#![allow(clippy::unwrap_used)]

use windlass_cpu::isa::{Level, level, with_level};
use windlass_cpu::linear::{Activations, Form, Linear};
use windlass_quant::{Packing, Plane, PlaneType, SchemeRef, schemes};
use windlass_runtime::scheduler::Team;
use windlass_tensor::{DType, Element, PackedLayout};

/// Uniform in -1 to 1.
fn random(seed: &mut u64) -> f32 {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*seed >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

/// A matrix as it lies in a file: planes at odd addresses.
struct Matrix {
    element: Element,
    /// Each with a byte before it.
    planes: Vec<Vec<u8>>,
    values: Vec<f32>,
    rows: usize,
    columns: usize,
}

impl Matrix {
    fn packed(scheme: SchemeRef, rows: usize, columns: usize) -> Option<Matrix> {
        Self::packed_as(scheme, DType::F32, rows, columns)
    }

    /// With scales of type `float`. Values are not rounded to it, which is what the libraries' own kernels do.
    fn packed_as(scheme: SchemeRef, float: DType, rows: usize, columns: usize) -> Option<Matrix> {
        let packing = Packing { scheme, float };
        let sizes = packing.plane_bytes(&[rows, columns]).ok()?;
        let mut seed = 7;
        let mut planes: Vec<Vec<u8>> = sizes.iter().map(|n| vec![0; *n as usize + 1]).collect();
        if scheme.can_encode() {
            // Columns of different sizes, so that scales differ and no code is rare.
            let values: Vec<f32> =
                (0..rows * columns).map(|i| (random(&mut seed) + 0.1) * (1.0 + (i % 97) as f32) * 0.001).collect();
            let importance = vec![1.0; columns];
            let tally = scheme.tally(&values, columns, float);
            let mut outer: Vec<&mut [u8]> = planes.iter_mut().map(|p| &mut p[1..]).collect();
            scheme.begin(&tally, &mut outer);
            let needed = scheme.importance() == windlass_quant::Importance::Required;
            scheme.encode(&values, columns, needed.then_some(&importance[..]), float, &mut outer).unwrap();
        } else {
            for (plane, bytes) in scheme.planes().iter().zip(&mut planes) {
                let dtype = packing.plane_type(plane);
                if matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
                    let scales: Vec<f32> =
                        (0..bytes.len() / dtype.size()).map(|_| 0.02 + random(&mut seed) * 0.01).collect();
                    windlass_quant::float::from_f32(dtype, &scales, &mut bytes[1..]).unwrap();
                } else {
                    // Whatever float such bytes make, it is finite.
                    bytes.iter_mut().for_each(|b| *b = (random(&mut seed) * 127.0) as i8 as u8 & 0x3f);
                }
            }
        }
        if let Some(order) = scheme.planes().iter().position(|p| p.name == "g_idx") {
            // Columns in any order, each in a group that exists.
            let groups = scheme.plane_shape(1, &[rows, columns])[1];
            for (column, word) in planes[order][1..].as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *word = ((column * 7 % groups) as u32).to_le_bytes();
            }
        }
        let mut values = vec![0.0; rows * columns];
        let wide: Vec<Vec<u8>> =
            scheme.planes().iter().zip(&planes).map(|(p, bytes)| widened(p, float, bytes)).collect();
        let inner: Vec<&[u8]> = wide.iter().map(|p| &p[..]).collect();
        scheme.decode(&inner, columns, DType::F32, &mut values).unwrap();
        Some(Matrix { element: packing.element(), planes, values, rows, columns })
    }

    fn floats(dtype: DType, rows: usize, columns: usize) -> Matrix {
        let mut seed = 5;
        let mut values: Vec<f32> = (0..rows * columns).map(|_| random(&mut seed)).collect();
        let mut plane = vec![0; rows * columns * dtype.size() + 1];
        windlass_quant::float::from_f32(dtype, &values, &mut plane[1..]).unwrap();
        windlass_quant::float::to_f32(dtype, &plane[1..], &mut values).unwrap();
        Matrix { element: Element::Plain(dtype), planes: vec![plane], values, rows, columns }
    }

    fn linear(&self) -> Linear<'_> {
        let planes: Vec<&[u8]> = self.planes.iter().map(|p| &p[1..]).collect();
        Linear::new(&self.element, &planes, self.rows, self.columns).unwrap()
    }
}

/// The numbers of a plane (which begin after a byte), those of type `float` as F32.
fn widened(plane: &Plane, float: DType, bytes: &[u8]) -> Vec<u8> {
    if plane.element != PlaneType::Float {
        return bytes[1..].to_vec();
    }
    let mut values = vec![0.0; bytes.len() / float.size()];
    windlass_quant::float::to_f32(float, &bytes[1..], &mut values).unwrap();
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn activations(m: usize, columns: usize) -> Vec<f32> {
    let mut seed = 11;
    let mut x: Vec<f32> = (0..m * columns).map(|i| random(&mut seed) * if i % 61 == 0 { 8.0 } else { 1.0 }).collect();
    // A group of zeros has no scale.
    let zeros = columns.min(32);
    x[..zeros].fill(0.0);
    x
}

/// The activations that the form leaves.
fn rounded(form: Form, x: &[f32]) -> Vec<f32> {
    let group = match form {
        Form::Floats => return x.to_vec(),
        Form::Bytes16 => 16,
        Form::Bytes32 => 32,
        Form::Bytes256 => 256,
    };
    let mut out = Vec::new();
    for x in x.chunks(group) {
        let largest = x.iter().fold(0.0f32, |a, v| a.max(v.abs()));
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        out.extend(x.iter().map(|v| (v * inverse).round_ties_even() * (largest / 127.0)));
    }
    out
}

fn multiply(linear: &Linear<'_>, x: &[f32], m: usize, threads: usize) -> Vec<f32> {
    let mut y = vec![f32::NAN; m * linear.rows()];
    Team::new(threads).enter(|session| linear.forward(x, m, &mut y, session)).unwrap();
    y
}

/// Largest difference, by the size of what was added up.
fn error(matrix: &Matrix, x: &[f32], y: &[f32]) -> f64 {
    let mut worst = 0.0f64;
    for (x, y) in x.chunks(matrix.columns).zip(y.chunks(matrix.rows)) {
        for (w, y) in matrix.values.chunks(matrix.columns).zip(y) {
            let (mut sum, mut size) = (0.0, 0.0);
            for (w, x) in w.iter().zip(x) {
                let product = f64::from(*w) * f64::from(*x);
                sum += product;
                size += product * product;
            }
            assert!(y.is_finite(), "{:?}: {y}", matrix.element);
            if size > 0.0 {
                worst = worst.max((sum - f64::from(*y)).abs() / size.sqrt());
            }
        }
    }
    worst
}

fn levels() -> impl Iterator<Item = Level> {
    Level::ALL.into_iter().filter(|l| *l <= level())
}

/// NF4 and FP4 are multiplied with tables of 8 bits: 0.5 and 0.4 % of a value.
fn tolerance(element: &Element) -> f64 {
    let name = element.name();
    if name.starts_with("nf4") || name.starts_with("fp4") { 3e-2 } else { 1e-5 }
}

fn check(matrix: &Matrix, ms: &[usize]) {
    let linear = matrix.linear();
    for m in ms {
        let x = activations(*m, matrix.columns);
        let exact = rounded(linear.form(), &x);
        for level in levels() {
            let y = with_level(level, || multiply(&linear, &x, *m, 2));
            let error = error(matrix, &exact, &y);
            let what = format!("{:?} {level:?} {}x{} m={m}", matrix.element, matrix.rows, matrix.columns);
            let tolerance = tolerance(&matrix.element);
            assert!(error < tolerance, "{what}: {error:e}");
            let y = with_level(level, || multiply(&matrix.linear().exact(), &x, *m, 2));
            let error = self::error(matrix, &x, &y);
            assert!(error < 1e-5, "{what} with floats: {error:e}");
            with_level(level, || check_back(matrix, *m, &what));
        }
    }
}

/// Products with the weights as they stand, added to something.
fn check_back(matrix: &Matrix, m: usize, what: &str) {
    let linear = matrix.linear().exact();
    if !linear.goes_back() {
        return;
    }
    let x = activations(m, matrix.rows);
    let mut y = vec![0.5; m * matrix.columns];
    Team::new(2).enter(|session| linear.back(&x, m, &mut y, true, session)).unwrap();
    for (x, y) in x.chunks(matrix.rows).zip(y.chunks(matrix.columns)) {
        for (column, y) in y.iter().enumerate().step_by(7) {
            let (mut sum, mut size) = (0.5, 1.0);
            for (x, row) in x.iter().zip(matrix.values.chunks(matrix.columns)) {
                let product = f64::from(*x) * f64::from(row[column]);
                sum += product;
                size += product * product;
            }
            let error = (sum - f64::from(*y)).abs() / f64::sqrt(size);
            assert!(error < 1e-5, "{what} back: {error:e}");
        }
    }
}

fn columns(scheme: SchemeRef, blocks: usize) -> usize {
    scheme.block() * blocks.max(256 / scheme.block())
}

#[test]
fn every_scheme_multiplies_as_it_decodes() {
    for scheme in schemes() {
        let Some(matrix) = Matrix::packed(scheme, 33, columns(scheme, 3)) else {
            panic!("{} did not encode", scheme.name());
        };
        check(&matrix, &[1, 2, 13]);
    }
}

#[test]
fn scales_of_every_float_type() {
    for scheme in schemes().into_iter().filter(|s| s.planes().iter().any(|p| p.element == PlaneType::Float)) {
        for float in [DType::BF16, DType::F16] {
            check(&Matrix::packed_as(scheme, float, 35, columns(scheme, 4)).unwrap(), &[1, 9]);
        }
    }
}

#[test]
fn sizes_that_straddle_tiles_and_panels() {
    for name in ["q4_0", "q8_0", "q4_k", "q6_k", "mlx4-g64", "mlx3-g32", "gptq4-g128", "int8"] {
        let scheme = windlass_quant::scheme(name).unwrap();
        for rows in [1, 31, 33, 64] {
            check(&Matrix::packed(scheme, rows, columns(scheme, 5)).unwrap(), &[1, 2, 7, 8, 13, 64]);
        }
    }
}

#[test]
fn rows_longer_than_a_panel() {
    for name in ["q4_0", "q4_1", "q2_k", "q5_k", "iq4_xs", "mlx3-g32", "mlx6-g128", "hqq4-g16", "qint8", "ct8-row"] {
        let scheme = windlass_quant::scheme(name).unwrap();
        check(&Matrix::packed(scheme, 40, 2560).unwrap(), &[1, 3, 15]);
    }
}

#[test]
fn a_row_is_the_same_alone_and_among_others_on_any_number_of_threads() {
    let mut matrices = vec![Matrix::floats(DType::F32, 97, 1280), Matrix::floats(DType::BF16, 97, 1280)];
    for name in ["q4_0", "q4_1", "q8_0", "q4_k", "q6_k", "q2_k", "iq4_xs", "mlx4-g64", "hqq2-g16", "int8"] {
        matrices.push(Matrix::packed(windlass_quant::scheme(name).unwrap(), 97, 1280).unwrap());
    }
    let x = activations(29, 1280);
    for matrix in matrices {
        let (linear, name) = (matrix.linear(), &matrix.element);
        for level in levels() {
            with_level(level, || {
                let all = multiply(&linear, &x, 29, 1);
                assert!(multiply(&linear, &x, 29, 3) == all, "{name:?} {level:?}");
                for (x, y) in x.chunks(1280).zip(all.chunks(97)).step_by(9) {
                    assert!(multiply(&linear, x, 1, 2) == y, "{name:?} {level:?}");
                }
                assert!(multiply(&linear, &x[..7 * 1280], 7, 2) == all[..7 * 97], "{name:?} {level:?}");
            });
        }
    }
}

#[test]
fn floats_multiply_as_they_are() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        for (rows, columns) in [(1, 1), (33, 37), (64, 1030)] {
            check(&Matrix::floats(dtype, rows, columns), &[1, 2, 7, 13, 64]);
        }
    }
}

#[test]
fn values_that_are_not_finite_are_not_hidden() {
    let scheme = windlass_quant::scheme("q4_0").unwrap();
    let matrix = Matrix::packed(scheme, 16, 64).unwrap();
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = activations(1, 64);
        x[40] = bad;
        assert!(multiply(&matrix.linear(), &x, 1, 1).iter().all(|y| !y.is_finite()));
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let scheme = windlass_quant::scheme("q4_0").unwrap();
    let element = Packing { scheme, float: DType::F32 }.element();
    let bytes = vec![0; 4 * 36];
    assert!(Linear::new(&element, &[&bytes], 4, 64).is_ok());
    assert!(Linear::new(&element, &[&bytes[1..]], 4, 64).is_err());
    assert!(Linear::new(&element, &[&bytes, &bytes], 4, 64).is_err());
    assert!(Linear::new(&element, &[&bytes], 4, 65).is_err());
    assert!(Linear::new(&element, &[&[]], 0, 64).is_err());
    assert!(Linear::new(&element, &[&bytes], usize::MAX, 64).is_err());
    assert!(Linear::new(&DType::I8.into(), &[&bytes], 4, 36).is_err());
    let linear = Linear::new(&element, &[&bytes], 4, 64).unwrap();
    Team::new(1).enter(|session| {
        assert!(linear.forward(&[0.0; 64], 1, &mut [0.0; 5], session).is_err());
        assert!(linear.forward(&[0.0; 63], 1, &mut [0.0; 4], session).is_err());
        let other = Activations::new(Form::Floats, &[0.0; 64], 1, 64, session).unwrap();
        assert!(linear.apply(&other, &mut [0.0; 4], session).is_err());
    });
}
