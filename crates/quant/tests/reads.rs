//! compressed-tensors, FP8, NVFP4 and MXFP4 as checkpoints store them, against the libraries (see
//! `golden/make_reads.py`).

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Mutex;

use support::stored::{self, Arrays};
use windlass_quant::compressed::{self, Integers};
use windlass_quant::simd::{Level, with_level};
use windlass_quant::{Packing, fp8, nvfp4, scheme};
use windlass_tensor::DType;

const LEVELS: [Level; 3] = [Level::Avx512, Level::Avx2, Level::Portable];

#[test]
fn values_equal_those_of_the_libraries() {
    let cases = stored::reads();
    assert_eq!(cases.len(), 22);
    for case in cases {
        for level in LEVELS {
            let rows = case.rows();
            let values = with_level(level, || case.decode(&case.gather(0..rows).unwrap(), rows).unwrap());
            case.assert_values(&values, 0..rows, &format!("{level:?}"));
        }
    }
}

#[test]
fn rows_cut_anywhere_are_those_of_the_whole() {
    for case in stored::reads() {
        match case.arrangement.granularity(&case.packing, case.columns()) {
            1 => stored::assert_cuts(&case, &[(0, 1), (1, 2), (3, 8), (5, 7), (4, 8), (7, 8), (8, 8)]),
            128 => stored::assert_cuts(&case, &[(0, 128), (128, case.rows()), (128, 128)]),
            other => panic!("{} {other}", case.key),
        }
    }
}

#[test]
fn planes_arrays_and_ranges_of_other_sizes_are_errors() {
    stored::reads().iter().for_each(stored::assert_refuses);
}

#[test]
fn what_is_written_is_what_was_stored() {
    let mut written = 0;
    for case in stored::reads() {
        let arrays = case.arrangement.arrays(&case.packing, &case.shape).unwrap();
        let empty = || arrays.iter().map(|a| vec![0; a.shape.iter().product::<usize>() * a.dtype.size()]).collect();
        let to = Arrays(Mutex::new(empty()));
        let (rows, mut can_write) = (case.rows(), false);
        let step = case.arrangement.granularity(&case.packing, case.columns()).max(3);
        for start in (0..rows).step_by(step) {
            let range = start..rows.min(start + step);
            let planes = case.gather(range.clone()).unwrap();
            let slices: Vec<&[u8]> = planes.iter().map(|p| &p[..]).collect();
            let done = case.arrangement.scatter(&case.packing, &case.shape, range, &slices, &to);
            let wide = case.packing.scheme.planes().iter().zip(&arrays);
            let narrowed = wide.clone().any(|(p, a)| case.packing.plane_type(p) == DType::F32 && a.dtype != DType::F32);
            let can = case.arrangement.can_scatter() && !narrowed;
            assert_eq!(done.is_ok(), can, "{}", case.key);
            can_write = can;
        }
        written += usize::from(can_write);
        let (found, expected): (Vec<Vec<u8>>, Vec<Vec<u8>>) =
            (to.0.into_inner().unwrap(), case.stored.0.lock().unwrap().clone());
        assert!(found == if can_write { expected } else { empty() }, "{}", case.key);
    }
    assert_eq!(written, 8);
}

#[test]
fn blocks_and_rows_encode_as_transformers_does() {
    let mut compared = 0;
    for case in stored::reads().iter().filter(|c| c.input.is_some() && !c.key.contains("e8m0")) {
        for level in LEVELS {
            let (input, columns) = (case.input.as_ref().unwrap(), case.columns());
            let cuts: &[usize] = if case.rows() > 128 { &[128] } else { &[3, 4] };
            let planes =
                with_level(level, || support::encode_cut(case.packing.scheme, input, columns, DType::F32, cuts));
            for (plane, stored) in planes.iter().zip(case.stored.0.lock().unwrap().iter()) {
                support::assert_bytes(&format!("{} {level:?}", case.key), plane, stored);
            }
            compared += 1;
        }
    }
    assert_eq!(compared, 6);
}

#[test]
fn errors_of_fp8_stay_below_their_ceilings() {
    for (name, columns) in [("fp8-b128", 1024), ("fp8-row", 1024)] {
        let scheme = scheme(name).unwrap();
        let worst = support::errors(scheme, columns).into_iter().fold(0.0, f32::max);
        assert!(worst <= scheme.error_ceiling() && worst > scheme.error_ceiling() * 0.85, "{name}: {worst}");
        support::assert_refuses(scheme, 256);
        support::assert_survives(scheme, 200);
    }
    assert!(scheme("fp8").unwrap().encode(&[], 1, None, DType::F32, &mut []).is_err());
}

#[test]
fn a_shape_that_disagrees_is_an_error() {
    let case = stored::reads().into_iter().find(|c| c.key == "ct4-g128.ct.p").unwrap();
    case.stored.0.lock().unwrap()[2][8] += 1;
    let error = case.gather(0..1).unwrap_err().to_string();
    assert!(error.contains("weight_shape says [16, 257], expected [16, 256]"), "{error}");
}

#[test]
fn shapes_and_schemes_that_do_not_suit_are_refused() {
    let of = |name| Packing { scheme: scheme(name).unwrap(), float: DType::F16 };
    let refused = |arrangement: windlass_quant::arrange::ArrangementRef, name, shape: &[usize]| {
        arrangement.arrays(&of(name), shape).is_err()
    };
    let packed = Integers { packed: true, symmetric: true, ..Integers::default() };
    assert!(!refused(compressed::arrangement(packed), "ct4-row", &[5, 96]));
    assert!(refused(compressed::arrangement(packed), "ct4-row", &[5, 40]));
    assert!(refused(compressed::arrangement(packed), "gptq4-row", &[5, 96]));
    assert!(refused(compressed::arrangement(Integers { packed: false, ..packed }), "ct4-row", &[5, 96]));
    assert!(refused(compressed::arrangement(Integers { one_scale: true, ..packed }), "ct4-g32", &[5, 96]));
    let unsuited = Integers { one_scale: true, symmetric: false, ..packed };
    assert!(refused(compressed::arrangement(unsuited), "ct4-row", &[5, 96]));
    let blocks = fp8::arrangement(true, DType::F32).unwrap();
    assert!(!refused(blocks.clone(), "fp8-b128", &[2, 256, 100]));
    assert!(refused(blocks.clone(), "fp8-b128", &[2, 100, 256]));
    assert!(refused(blocks.clone(), "mlx4-g32", &[128, 128]));
    assert!(fp8::arrangement(true, DType::I8).is_err());
    assert!(refused(nvfp4::compressed_tensors(), "nvfp4-modelopt", &[4, 32]));
    assert!(refused(nvfp4::compressed_tensors(), "nvfp4-ct", &[4, 40]));
    assert!(refused(nvfp4::compressed_tensors(), "nvfp4-ct", &[2, 4, 32]));
    assert!(refused(nvfp4::gpt_oss(), "mlx-mxfp8", &[4, 32]));
}
