//! Moves between packings whose grids agree: decoded values stay, bytes come back, and what does not fit is refused.

#![allow(clippy::unwrap_used)]

use half::{bf16, f16};
use windlass_quant::{Moved, Packing, repack, scheme};
use windlass_tensor::{DType, PackedLayout};

const COLUMNS: usize = 128;
const ROWS: usize = 3;
const COUNT: usize = COLUMNS * ROWS;

fn packing(name: &str, float: DType) -> Packing {
    Packing { scheme: scheme(name).unwrap(), float }
}

fn empty(packing: Packing) -> Vec<Vec<u8>> {
    packing.plane_bytes(&[ROWS, COLUMNS]).unwrap().iter().map(|n| vec![0; *n as usize]).collect()
}

fn encode(packing: Packing, values: &[f32]) -> Vec<Vec<u8>> {
    let mut planes = empty(packing);
    let mut slices: Vec<&mut [u8]> = planes.iter_mut().map(|p| &mut p[..]).collect();
    packing.scheme.encode(values, COLUMNS, None, packing.float, &mut slices).unwrap();
    planes
}

fn decode(packing: Packing, planes: &[Vec<u8>]) -> Vec<f32> {
    let slices: Vec<&[u8]> = planes.iter().map(|p| &p[..]).collect();
    let mut values = vec![f32::NAN; COUNT];
    packing.scheme.decode(&slices, COLUMNS, packing.float, &mut values).unwrap();
    values
}

/// The planes after the move, or `None` if it was refused.
fn moved(from: Packing, planes: &[Vec<u8>], to: Packing) -> Option<Vec<Vec<u8>>> {
    let mut target = empty(to);
    let source: Vec<&[u8]> = planes.iter().map(|p| &p[..]).collect();
    let mut slices: Vec<&mut [u8]> = target.iter_mut().map(|p| &mut p[..]).collect();
    let exact = repack(from, to).unwrap().rows(&source, COLUMNS, &mut slices).unwrap();
    exact.then_some(target)
}

fn values() -> Vec<f32> {
    (0..COUNT).map(|i| ((i * 7919 % 1009) as f32 - 480.0) * 0.003 + (i / 32) as f32 * 0.05).collect()
}

/// In F32, MLX's product and sum of these short numbers are exact, so decoded values must be equal.
#[test]
fn ggml_moves_to_mlx_and_back() {
    for (ggml, mlx) in
        [("q4_0", "mlx4-g32"), ("q4_1", "mlx4-g32"), ("q5_0", "mlx5-g32"), ("q5_1", "mlx5-g32"), ("q8_0", "mlx8-g32")]
    {
        let from = packing(ggml, DType::F32);
        let planes = encode(from, &values());
        let expected = decode(from, &planes);
        for float in [DType::F32, DType::F16] {
            let to = packing(mlx, float);
            let there = moved(from, &planes, to).unwrap();
            assert_eq!(moved(to, &there, from).as_ref(), Some(&planes), "{ggml} {float}");
            let wide = packing(mlx, DType::F32);
            assert_eq!(decode(wide, &moved(to, &there, wide).unwrap()), expected, "{ggml} {float}");
        }
    }
}

#[test]
fn mlx_groups_of_64_split_into_blocks_and_join_again() {
    for (mlx, ggml) in [("mlx4-g64", "q4_1"), ("mlx4-g128", "q4_1"), ("mlx3-g64", "q4_1"), ("mlx5-g64", "q5_1")] {
        let from = packing(mlx, DType::F16);
        let planes = encode(from, &values());
        let to = packing(ggml, DType::F32);
        let there = moved(from, &planes, to).unwrap();
        let wide = packing(mlx, DType::F32);
        assert_eq!(decode(to, &there), decode(wide, &moved(from, &planes, wide).unwrap()), "{mlx}");
        if mlx != "mlx3-g64" {
            assert_eq!(moved(to, &there, from).unwrap(), planes, "{mlx}");
        }
    }
}

#[test]
fn more_bits_hold_fewer() {
    let from = packing("q4_0", DType::F32);
    let planes = encode(from, &values());
    for to in ["q4_1", "q5_0", "q5_1", "q8_0", "mlx5-g32", "mlx6-g32", "mlx8-g32"] {
        let to = packing(to, DType::F32);
        assert_eq!(decode(to, &moved(from, &planes, to).unwrap()), decode(from, &planes), "{}", to.scheme.name());
    }
}

/// A Q4_0 tensor of one scale, with codes 0 to 15.
fn q4_0(scale: f16) -> Vec<Vec<u8>> {
    let block: Vec<u8> = scale.to_le_bytes().into_iter().chain((0..16).map(|i| i | (15 - i) << 4)).collect();
    vec![block.repeat(COUNT / 32)]
}

#[test]
fn scales_that_do_not_fit_are_refused() {
    let from = packing("q4_0", DType::F32);
    let to = |float| packing("mlx4-g32", float);
    // 1 + 2^-10 needs eleven bits, more than a bfloat16 has.
    let fine = q4_0(f16::from_f32(1.0 + 1.0 / 1024.0));
    assert!(moved(from, &fine, to(DType::F16)).is_some());
    assert!(moved(from, &fine, to(DType::BF16)).is_none());
    assert!(moved(from, &q4_0(f16::from_f32(1.5)), to(DType::BF16)).is_some());
    // Eight times 10000 is beyond a half.
    let large = q4_0(f16::from_f32(10000.0));
    assert!(moved(from, &large, to(DType::F16)).is_none());
    assert!(moved(from, &large, to(DType::F32)).is_some());
    assert!(moved(from, &q4_0(f16::MIN_POSITIVE_SUBNORMAL), to(DType::F16)).is_some());
    for scale in [f16::NAN, f16::INFINITY] {
        assert!(moved(from, &q4_0(scale), to(DType::F32)).is_none());
    }
}

/// An MLX tensor with one scale and bias.
fn mlx(packing: Packing, scale: f32, bias: f32, code: u8) -> Vec<Vec<u8>> {
    let mut planes = empty(packing);
    let mut fill = |plane: usize, value: f32| {
        let bytes = match packing.float {
            DType::F32 => value.to_le_bytes().to_vec(),
            DType::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
            _ => bf16::from_f32(value).to_le_bytes().to_vec(),
        };
        planes[plane] = bytes.repeat(planes[plane].len() / packing.float.size());
    };
    fill(1, scale);
    fill(2, bias);
    planes[0].fill(code);
    planes
}

#[test]
fn biases_decide_what_a_group_of_mlx_becomes() {
    let from = packing("mlx4-g32", DType::F32);
    let to = |name| packing(name, DType::F32);
    let symmetric = mlx(from, -0.5, 4.0, 0x0f);
    assert_eq!(decode(to("q4_0"), &moved(from, &symmetric, to("q4_0")).unwrap())[..2], [-3.5, 4.0]);
    // A bias of nine steps moves the codes by one; the code 0 would become -1.
    assert!(moved(from, &mlx(from, 0.5, -4.5, 0x1f), to("q4_0")).is_some());
    assert!(moved(from, &mlx(from, 0.5, -4.5, 0x0f), to("q4_0")).is_none());
    assert!(moved(from, &mlx(from, 0.5, -4.5, 0x0f), to("q5_0")).is_some());
    // No whole number of steps.
    let odd = mlx(from, 0.5, -4.25, 0x77);
    assert!(moved(from, &odd, to("q4_0")).is_none());
    assert_eq!(decode(to("q4_1"), &moved(from, &odd, to("q4_1")).unwrap())[0], -0.75);
    // Too fine for a half.
    assert!(moved(from, &mlx(from, 0.1, -0.8, 0x77), to("q4_1")).is_none());
    assert!(moved(from, &mlx(from, 0.5, 1e6, 0x77), to("q4_1")).is_none());
    // Zero steps: all values are the bias.
    assert_eq!(decode(to("q4_0"), &moved(from, &mlx(from, 0.0, 0.0, 0x3c), to("q4_0")).unwrap()), vec![0.0; COUNT]);
    assert!(moved(from, &mlx(from, 0.0, 1.0, 0x3c), to("q4_0")).is_none());
    let eight = packing("mlx8-g32", DType::BF16);
    assert_eq!(decode(to("q8_0"), &moved(eight, &mlx(eight, 0.25, -32.0, 1), to("q8_0")).unwrap())[0], -31.75);
}

#[test]
fn blocks_of_different_scales_do_not_join() {
    let from = packing("q4_0", DType::F32);
    let mut planes = q4_0(f16::ONE);
    assert!(moved(from, &planes, packing("mlx4-g64", DType::F32)).is_some());
    planes[0][18..20].copy_from_slice(&f16::from_f32(2.0).to_le_bytes());
    assert!(moved(from, &planes, packing("mlx4-g64", DType::F32)).is_none());
    assert!(moved(from, &planes, packing("mlx4-g32", DType::F32)).is_some());
}

#[test]
fn grids_that_cannot_agree_have_no_way() {
    let of = |name| packing(name, DType::F32);
    for (from, to) in [("q8_0", "q4_0"), ("q8_0", "mlx4-g32"), ("mlx-mxfp4", "q4_0"), ("q4_0", "mlx-mxfp4")] {
        assert!(repack(of(from), of(to)).is_none(), "{from} to {to}");
    }
    assert!(repack(of("q4_0"), packing("mlx4-g32", DType::F64)).is_none());
}

#[test]
fn planes_of_other_sizes_are_an_error() {
    let (from, to) = (packing("q4_0", DType::F32), packing("mlx4-g32", DType::F16));
    let way = repack(from, to).unwrap();
    let planes = q4_0(f16::ONE);
    let run = |source: &[u8], columns, target: &mut Vec<Vec<u8>>| {
        let mut slices: Vec<&mut [u8]> = target.iter_mut().map(|p| &mut p[..]).collect();
        way.rows(&[source], columns, &mut slices).is_err()
    };
    assert!(!run(&planes[0], COLUMNS, &mut empty(to)));
    assert!(run(&planes[0][1..], COLUMNS, &mut empty(to)));
    assert!(run(&planes[0], 0, &mut empty(to)));
    assert!(run(&planes[0], 80, &mut empty(to)));
    assert!(run(&planes[0][18..], 32, &mut empty(to)));
    assert!(run(&planes[0], COLUMNS, &mut empty(packing("mlx4-g32", DType::F32))));
    assert!(run(&planes[0], COLUMNS, &mut vec![]));
}

/// Planes of a GPTQ or AWQ matrix: `zero` for every group, scales of many bits.
fn grouped(packing: Packing, group: usize, zero: u8) -> Vec<Vec<u8>> {
    let mut planes = empty(packing);
    planes[0].iter_mut().enumerate().for_each(|(i, b)| *b = (i * 37 % 251) as u8);
    for (i, scale) in planes[1].as_chunks_mut::<2>().0.iter_mut().enumerate() {
        *scale = f16::from_f32(0.01 + i as f32 * 0.0007).to_le_bytes();
    }
    planes[2].fill(zero);
    if let Some(order) = planes.get_mut(3) {
        let entries = order.as_chunks_mut::<4>().0.iter_mut().enumerate();
        entries.for_each(|(column, entry)| *entry = ((column / group) as u32).to_le_bytes());
    }
    planes
}

#[test]
fn symmetric_groups_move_exactly() {
    for (from, group) in [("gptq4-g32", 32), ("gptq4-g128", 128), ("gptq4-row", 128), ("awq4-g64", 64)] {
        let from = packing(from, DType::F16);
        let planes = grouped(from, group, 8);
        let expected = decode(from, &planes);
        let mlx = format!("mlx4-g{group}");
        for (to, float) in [("q4_0", DType::F32), ("q4_1", DType::F32), (&mlx, DType::F16), (&mlx, DType::F32)] {
            let to = packing(to, float);
            let there = moved(from, &planes, to).unwrap_or_else(|| panic!("{:?} to {:?}", from.scheme, to.scheme));
            let exact = Packing { scheme: to.scheme, float: DType::F32 };
            if float == DType::F32 {
                assert_eq!(decode(exact, &there), expected, "{:?} to {:?}", from.scheme, to.scheme);
            }
        }
    }
}

#[test]
fn a_product_that_is_too_long_is_rounded_and_said_to_be() {
    let from = packing("gptq4-g64", DType::F16);
    let planes = grouped(from, 64, 7);
    let expected = decode(from, &planes);
    for (to, float) in [("q4_1", DType::F32), ("mlx4-g64", DType::F16), ("mlx4-g32", DType::F16)] {
        let to = packing(to, float);
        assert!(moved(from, &planes, to).is_none(), "{:?}", to.scheme);
        let mut target = empty(to);
        let source: Vec<&[u8]> = planes.iter().map(|p| &p[..]).collect();
        let mut slices: Vec<&mut [u8]> = target.iter_mut().map(|p| &mut p[..]).collect();
        let how = repack(from, to).unwrap().rows_nearly(&source, COLUMNS, &mut slices).unwrap();
        assert_eq!(how, Some(Moved::Rounded), "{:?}", to.scheme);
        if float == DType::F32 {
            let differ = decode(to, &target).iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // Half of the last place of a bias of 0.07 to 0.16 in F16.
            assert!(differ > 0.0 && differ <= 2f32.powi(-14), "{differ}");
        }
    }
    // F32 holds the product of a half and a small integer.
    assert!(moved(from, &planes, packing("mlx4-g64", DType::F32)).is_some());
    assert!(repack(packing("q4_1", DType::F32), from).is_none());
}

#[test]
fn columns_out_of_order_do_not_move() {
    let from = packing("gptq4-g64", DType::F16);
    let mut planes = grouped(from, 64, 8);
    planes[3][0..4].copy_from_slice(&1u32.to_le_bytes());
    for to in ["q4_1", "mlx4-g64"] {
        assert!(moved(from, &planes, packing(to, DType::F16)).is_none(), "{to}");
    }
}
