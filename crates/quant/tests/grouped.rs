//! GPTQ and AWQ as checkpoints store them, against the published formulas (see `golden/make_grouped.py`).

#![allow(clippy::unwrap_used)]

mod support;

use support::stored;
use windlass_quant::gptq::Version;
use windlass_quant::simd::{Level, with_level};
use windlass_quant::{Packing, awq, gptq, scheme};
use windlass_tensor::DType;

const ROWS: usize = 32;
const COLUMNS: usize = 256;

#[test]
fn values_equal_the_published_formulas() {
    let cases = stored::grouped();
    assert_eq!(cases.len(), 13);
    for case in cases {
        for level in [Level::Avx512, Level::Avx2, Level::Portable] {
            let values = with_level(level, || case.decode(&case.gather(0..ROWS).unwrap(), ROWS).unwrap());
            case.assert_values(&values, 0..ROWS, &format!("{level:?}"));
        }
    }
}

#[test]
fn rows_cut_anywhere_are_those_of_the_whole() {
    for case in stored::grouped() {
        stored::assert_cuts(&case, &[(0, 1), (1, 2), (3, 8), (5, 21), (7, 32), (8, 16), (31, 32), (32, 32), (9, 9)]);
    }
}

#[test]
fn planes_arrays_and_ranges_of_other_sizes_are_errors() {
    for case in stored::grouped() {
        stored::assert_refuses(&case);
        assert!(case.packing.scheme.encode(&[], 32, None, DType::F16, &mut []).is_err());
    }
}

#[test]
fn an_order_of_zeros_or_of_minus_ones_is_none() {
    let case = stored::grouped().into_iter().find(|c| c.key == "gptq4-g32.v2.plain").unwrap();
    let plain = case.gather(0..ROWS).unwrap();
    for value in [0i32, -1] {
        case.stored.0.lock().unwrap()[3] = value.to_le_bytes().repeat(COLUMNS);
        assert_eq!(case.gather(0..ROWS).unwrap(), plain);
    }
}

#[test]
fn a_column_in_no_group_is_an_error() {
    for case in stored::grouped().iter().filter(|c| c.key.ends_with(".act")) {
        let mut planes = case.gather(0..ROWS).unwrap();
        for value in [-1i32, 8, i32::MAX, i32::MIN] {
            case.stored.0.lock().unwrap()[3][20..24].copy_from_slice(&value.to_le_bytes());
            let error = case.gather(0..ROWS).unwrap_err().to_string();
            assert!(error.contains(&format!("g_idx puts column 5 into group {value}, expected 0 to ")), "{error}");
            planes[3][20..24].copy_from_slice(&value.to_le_bytes());
            let error = case.decode(&planes, ROWS).unwrap_err().to_string();
            assert!(error.contains(&format!("plane g_idx puts column 5 into group {value}, expected")), "{error}");
        }
    }
}

#[test]
fn shapes_that_do_not_fill_words_are_refused() {
    let of = |name| Packing { scheme: scheme(name).unwrap(), float: DType::F16 };
    let gptq = |name, shape: &[usize]| gptq::arrangement(Version::V1, true).arrays(&of(name), shape).is_err();
    assert!(!gptq("gptq4-g128", &[8, 320]));
    assert!(gptq("gptq4-g128", &[8, 48]));
    assert!(gptq("gptq4-g128", &[8, 0]));
    assert!(gptq("gptq4-g128", &[9, 128]));
    assert!(gptq("gptq3-g128", &[8, 128]));
    assert!(gptq("gptq4-g128", &[2, 8, 128]));
    assert!(gptq("awq4-g128", &[8, 128]));
    assert!(gptq("mlx4-g32", &[8, 128]));
    let awq = |name, shape: &[usize]| awq::arrangement("GEMM").unwrap().arrays(&of(name), shape).is_err();
    assert!(!awq("awq4-g128", &[8, 128]));
    assert!(awq("awq4-g128", &[4, 128]));
    assert!(awq("awq4-g128", &[8, 100]));
    assert!(awq("gptq4-g128", &[8, 128]));
    assert!(awq::arrangement("gemv").unwrap_err().contains("\"gemv\" is not supported"));
}
