//! Moves from the codes of checkpoints to GGML and MLX: values stay, and what does not fit is refused.

#![allow(clippy::unwrap_used)]

mod support;

use support::stored;
use windlass_quant::{Packing, repack, scheme};
use windlass_tensor::{DType, PackedLayout};

fn packing(name: &str, float: DType) -> Packing {
    Packing { scheme: scheme(name).unwrap(), float }
}

fn decode(packing: Packing, planes: &[Vec<u8>], count: usize, columns: usize) -> Vec<f32> {
    support::decode(packing.scheme, planes, count, columns, packing.float)
}

/// The planes after the move, or `None` if it was refused.
fn moved(from: Packing, planes: &[Vec<u8>], columns: usize, to: Packing) -> Option<Vec<Vec<u8>>> {
    let rows = planes[0].len() / from.plane_bytes(&[1, columns]).unwrap()[0] as usize;
    let mut target: Vec<Vec<u8>> =
        to.plane_bytes(&[rows, columns]).unwrap().iter().map(|n| vec![0; *n as usize]).collect();
    let source: Vec<&[u8]> = planes.iter().map(|p| &p[..]).collect();
    let mut slices: Vec<&mut [u8]> = target.iter_mut().map(|p| &mut p[..]).collect();
    let exact = repack(from, to).unwrap().rows(&source, columns, &mut slices).unwrap();
    exact.then_some(target)
}

const COLUMNS: usize = 256;
const COUNT: usize = 32 * COLUMNS;

/// A target of F32 holds every product of a half and a code.
#[test]
fn zeros_of_any_kind_move_to_wide_scales() {
    let mut compared = 0;
    for case in stored::grouped().iter().filter(|c| !c.key.ends_with(".act")) {
        let planes = case.gather(0..32).unwrap();
        let expected = case.decode(&planes, 32).unwrap();
        let bits = case.key.trim_start_matches("gptq").trim_start_matches("awq").as_bytes()[0] - b'0';
        for group in [32, 64, 128] {
            let to = packing(&format!("mlx{bits}-g{group}"), DType::F32);
            // Where groups are larger than those of the source, their scales differ.
            let smaller = case.key.contains("-g32") && group > 32 || case.key.contains("-g64") && group > 64;
            let there = moved(case.packing, &planes, COLUMNS, to);
            assert_eq!(there.is_none(), smaller, "{} {group}", case.key);
            if let Some(there) = there {
                assert!(decode(to, &there, COUNT, COLUMNS) == expected, "{} {group}", case.key);
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 22);
}

#[test]
fn symmetric_codes_keep_half_scales_and_become_q4_0() {
    for (key, zero, targets) in [
        ("gptq4-g128.v1.none", 8, &["mlx4-g128", "mlx4-g32", "q4_0", "q4_1", "q8_0"][..]),
        ("gptq4-row.v1.plain", 8, &["mlx4-g64", "q4_0", "q4_1", "q5_0"]),
        ("awq4-g64.gemm.none", 8, &["mlx4-g64", "mlx6-g32", "q4_0", "q4_1"]),
        ("awq4-g64.gemm.none", 0, &["mlx4-g64", "q4_1", "q5_0"]),
        ("gptq2-g64.v1.plain", 2, &["mlx2-g64", "q4_0", "q4_1"]),
        ("gptq3-row.v2.none", 4, &["mlx3-g128", "q4_0", "q4_1"]),
        ("gptq8-g64.v1.none", 128, &["mlx8-g64", "q8_0"]),
    ] {
        let case = stored::grouped().into_iter().find(|c| c.key == key).unwrap();
        let mut planes = case.gather(0..32).unwrap();
        planes[2].fill(zero);
        let expected = case.decode(&planes, 32).unwrap();
        for name in targets {
            let there = moved(case.packing, &planes, COLUMNS, packing(name, DType::F16)).unwrap();
            let wide = packing(name, DType::F32);
            let widened = match name.starts_with("mlx") {
                true => moved(packing(name, DType::F16), &there, COLUMNS, wide).unwrap(),
                false => there,
            };
            assert!(decode(wide, &widened, COUNT, COLUMNS) == expected, "{key} to {name}");
        }
    }
}

#[test]
fn one_group_whose_product_does_not_fit_refuses() {
    let case = stored::grouped().into_iter().find(|c| c.key == "gptq4-g128.v1.none").unwrap();
    let mut planes = case.gather(0..32).unwrap();
    planes[2].fill(8);
    // 2047 / 2048 has eleven bits; seven times that has fourteen.
    planes[1][10..12].copy_from_slice(&half::f16::from_f32(2047.0 / 2048.0).to_le_bytes());
    let to = |name, float| moved(case.packing, &planes, COLUMNS, packing(name, float)).is_some();
    assert!(to("mlx4-g128", DType::F16) && to("q4_1", DType::F32) && to("q4_0", DType::F32));
    planes[2][5] = 7;
    let to = |name, float| moved(case.packing, &planes, COLUMNS, packing(name, float)).is_some();
    assert!(!to("mlx4-g128", DType::F16) && !to("q4_1", DType::F32));
    assert!(!to("q4_0", DType::F32), "codes up to 15 with a zero of 7 reach beyond Q4_0");
    assert!(to("mlx4-g128", DType::F32));
    planes[1][10..12].copy_from_slice(&half::f16::INFINITY.to_le_bytes());
    assert!(moved(case.packing, &planes, COLUMNS, packing("mlx4-g128", DType::F32)).is_none());
}

#[test]
fn columns_out_of_order_are_not_moved() {
    let mut refused = 0;
    for case in stored::grouped().iter().filter(|c| c.key.ends_with(".act")) {
        let planes = case.gather(0..32).unwrap();
        assert!(moved(case.packing, &planes, COLUMNS, packing("mlx8-g32", DType::F32)).is_none(), "{}", case.key);
        refused += 1;
    }
    assert_eq!(refused, 4);
    assert!(repack(packing("gptq8-g64", DType::F16), packing("q4_0", DType::F32)).is_none());
    assert!(repack(packing("q4_0", DType::F32), packing("gptq4-g32", DType::F16)).is_none());
}

#[test]
fn planes_of_other_sizes_are_an_error() {
    let case = stored::grouped().into_iter().find(|c| c.key == "gptq4-g128.v1.none").unwrap();
    let planes = case.gather(0..32).unwrap();
    let way = repack(case.packing, packing("q4_1", DType::F32)).unwrap();
    let run = |planes: &[Vec<u8>], columns, size: usize| {
        let source: Vec<&[u8]> = planes.iter().map(|p| &p[..]).collect();
        way.rows(&source, columns, &mut [&mut vec![0; size]]).is_err()
    };
    assert!(!run(&planes, COLUMNS, COUNT / 32 * 20));
    assert!(run(&planes, COLUMNS, COUNT / 32 * 20 - 1));
    assert!(run(&planes[..3], COLUMNS, COUNT / 32 * 20));
    assert!(run(&planes, 0, COUNT / 32 * 20));
    for i in 0..4 {
        let mut short = planes.clone();
        short[i].pop();
        assert!(run(&short, COLUMNS, COUNT / 32 * 20), "plane {i}");
    }
}

#[test]
fn mxfp4_moves_both_ways_with_the_values_of_transformers() {
    let case = stored::reads().into_iter().find(|c| c.key.contains("gptoss")).unwrap();
    let (rows, columns) = (case.rows(), case.columns());
    let planes = case.gather(0..rows).unwrap();
    let ggml = packing("mxfp4", DType::F32);
    let there = moved(case.packing, &planes, columns, ggml).unwrap();
    let values = decode(ggml, &there, rows * columns, columns);
    // GGML has no negative zero.
    let values: Vec<f32> =
        values.iter().zip(case.decode(&planes, rows).unwrap()).map(|(v, w)| if *v == w { w } else { *v }).collect();
    case.assert_values(&values, 0..rows, "through GGML");
    assert!(moved(ggml, &there, columns, case.packing).unwrap() == planes);
    // Halves do not reach from 2^-27 to 2^13.
    assert!(moved(ggml, &there, columns, packing("mlx-mxfp4", DType::F16)).is_none());
    assert!(moved(ggml, &there, columns, packing("mlx-mxfp4", DType::BF16)).is_some());
    let mut odd = there.clone();
    odd[0][17] = 255;
    assert!(moved(ggml, &odd, columns, case.packing).is_none());
}

#[test]
fn nvfp4_moves_where_the_scale_of_the_tensor_goes_into_those_of_the_groups() {
    for case in stored::reads().iter().filter(|c| c.key.starts_with("nvfp4")) {
        let (rows, columns) = (case.rows(), case.columns());
        let mut planes = case.gather(0..rows).unwrap();
        let (ggml, mlx) = (packing("nvfp4", DType::F32), packing("mlx-nvfp4", DType::F32));
        assert!(moved(case.packing, &planes, columns, ggml).is_none(), "{}", case.key);
        for global in [1.0f32, 0.5, 2.0] {
            planes[2] = global.to_le_bytes().to_vec();
            // Far from both ends, so that twice and half of a scale are scales.
            planes[1].iter_mut().for_each(|code| *code = *code & 0x1f | 0x20);
            let expected = case.decode(&planes, rows).unwrap();
            let there = moved(case.packing, &planes, columns, ggml).unwrap();
            assert!(decode(ggml, &there, rows * columns, columns) == expected, "{} {global}", case.key);
            let to_mlx = moved(case.packing, &planes, columns, mlx).unwrap();
            assert!(decode(mlx, &to_mlx, rows * columns, columns) == expected, "{} {global}", case.key);
            assert!(moved(ggml, &there, columns, mlx).unwrap() == to_mlx);
            assert!(moved(mlx, &to_mlx, columns, ggml).unwrap() == there);
        }
        for global in [5.0f32, 0.0, f32::NAN, f32::INFINITY, 1e-30] {
            planes[2] = global.to_le_bytes().to_vec();
            planes[1].fill(0x31);
            assert!(moved(case.packing, &planes, columns, ggml).is_none() || global == 0.0, "{} {global}", case.key);
        }
        planes[2] = 1f32.to_le_bytes().to_vec();
        for code in [0x7f, 0x80, 0xb0, 0xff] {
            planes[1][3] = code;
            assert!(moved(case.packing, &planes, columns, mlx).is_none(), "{} {code}", case.key);
        }
        assert!(repack(mlx, case.packing).is_none());
    }
}
