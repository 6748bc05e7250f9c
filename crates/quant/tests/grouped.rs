//! GPTQ and AWQ as checkpoints store them, against the published formulas (see `golden/make_grouped.py`).

#![allow(clippy::unwrap_used)]

use std::io;
use std::ops::Range;

use safetensors::SafeTensors;
use windlass_quant::arrange::{ArrangementRef, Stored};
use windlass_quant::gptq::Version;
use windlass_quant::simd::{Level, with_level};
use windlass_quant::{Error, Packing, awq, float, gptq, scheme};
use windlass_tensor::{DType, PackedLayout};

const ROWS: usize = 32;
const COLUMNS: usize = 256;

/// The arrays of one tensor in a golden file.
struct Arrays(Vec<Vec<u8>>);

impl Stored for Arrays {
    fn read(&self, array: usize, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.get(array).and_then(|a| a.get(offset as usize..)?.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, _array: usize, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

struct Case {
    key: String,
    packing: Packing,
    arrangement: ArrangementRef,
    stored: Arrays,
    /// In the type of the packing.
    decoded: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let path = format!("{}/tests/golden/grouped.safetensors", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut keys: Vec<&str> = file.names().into_iter().filter_map(|n| n.strip_suffix(".decoded")).collect();
    keys.sort_unstable();
    let case = |key: &str| {
        let [name, version, order] = key.split('.').collect::<Vec<_>>()[..] else { panic!("{key}") };
        let view = |part: &str| file.tensor(&format!("{key}.{part}")).unwrap();
        let float = DType::from_name(&format!("{:?}", view("decoded").dtype())).unwrap();
        let packing = Packing { scheme: scheme(name).unwrap(), float };
        let arrangement = match version {
            "v1" => gptq::arrangement(Version::V1, order != "none"),
            "v2" => gptq::arrangement(Version::V2, order != "none"),
            other => awq::arrangement(other).unwrap(),
        };
        let arrays = arrangement.arrays(&packing, &[ROWS, COLUMNS]).unwrap();
        let read = |array: &windlass_quant::arrange::Array| {
            let stored = view(array.name);
            assert_eq!(stored.shape(), array.shape, "{key} {}", array.name);
            assert_eq!(format!("{:?}", stored.dtype()), array.dtype.name(), "{key} {}", array.name);
            stored.data().to_vec()
        };
        let stored = Arrays(arrays.iter().map(read).collect());
        Case { key: key.into(), packing, arrangement, stored, decoded: view("decoded").data().to_vec() }
    };
    keys.into_iter().map(case).collect()
}

impl Case {
    fn gather(&self, rows: Range<usize>) -> io::Result<Vec<Vec<u8>>> {
        let sizes = self.packing.plane_bytes(&[rows.len(), COLUMNS]).unwrap();
        let mut planes: Vec<Vec<u8>> = sizes.iter().map(|n| vec![0xa5; *n as usize]).collect();
        let mut slices: Vec<&mut [u8]> = planes.iter_mut().map(|p| &mut p[..]).collect();
        self.arrangement.gather(&self.packing, &[ROWS, COLUMNS], rows, &self.stored, &mut slices)?;
        Ok(planes)
    }

    fn decode(&self, planes: &[Vec<u8>]) -> Result<Vec<f32>, Error> {
        let slices: Vec<&[u8]> = planes.iter().map(|p| &p[..]).collect();
        let rows = planes[0].len() / (self.packing.plane_bytes(&[1, COLUMNS]).unwrap()[0] as usize);
        let mut values = vec![f32::NAN; rows * COLUMNS];
        self.packing.scheme.decode(&slices, COLUMNS, self.packing.float, &mut values)?;
        Ok(values)
    }

    /// The values rounded to the type that the library computes in.
    fn rounded(&self, values: &[f32]) -> Vec<u8> {
        let mut bytes = vec![0; values.len() * self.packing.float.size()];
        float::from_f32(self.packing.float, values, &mut bytes).unwrap();
        bytes
    }
}

#[test]
fn values_equal_the_published_formulas() {
    let cases = cases();
    assert_eq!(cases.len(), 13);
    for case in cases {
        for level in [Level::Avx512, Level::Avx2, Level::Portable] {
            let values = with_level(level, || case.decode(&case.gather(0..ROWS).unwrap()).unwrap());
            assert_eq!(case.rounded(&values), case.decoded, "{} {level:?}", case.key);
        }
    }
}

#[test]
fn rows_cut_anywhere_are_those_of_the_whole() {
    for case in cases() {
        let row = COLUMNS * case.packing.float.size();
        for (start, end) in [(0, 1), (1, 2), (3, 8), (5, 21), (7, 32), (8, 16), (31, 32), (32, 32), (9, 9)] {
            let planes = case.gather(start..end).unwrap();
            let values = if start == end { vec![] } else { case.decode(&planes).unwrap() };
            assert_eq!(case.rounded(&values), case.decoded[start * row..end * row], "{} {start}..{end}", case.key);
        }
        let whole = case.gather(0..ROWS).unwrap();
        for ((offset, length), (whole, cut)) in case
            .packing
            .plane_ranges(COLUMNS, 5, 3)
            .unwrap()
            .into_iter()
            .zip(whole.iter().zip(&case.gather(5..8).unwrap()))
        {
            assert_eq!(&whole[offset as usize..][..length as usize], &cut[..], "{}", case.key);
        }
    }
}

#[test]
fn an_order_of_zeros_or_of_minus_ones_is_none() {
    let mut case = cases().into_iter().find(|c| c.key == "gptq4-g32.v2.plain").unwrap();
    let plain = case.gather(0..ROWS).unwrap();
    for value in [0i32, -1] {
        case.stored.0[3] = value.to_le_bytes().repeat(COLUMNS);
        assert_eq!(case.gather(0..ROWS).unwrap(), plain);
    }
}

#[test]
fn a_column_in_no_group_is_an_error() {
    for case in cases().iter_mut().filter(|c| c.key.ends_with(".act")) {
        let mut planes = case.gather(0..ROWS).unwrap();
        for value in [-1i32, 8, i32::MAX, i32::MIN] {
            case.stored.0[3][20..24].copy_from_slice(&value.to_le_bytes());
            let error = case.gather(0..ROWS).unwrap_err().to_string();
            assert!(error.contains(&format!("g_idx puts column 5 into group {value}, expected 0 to ")), "{error}");
            planes[3][20..24].copy_from_slice(&value.to_le_bytes());
            let error = case.decode(&planes).unwrap_err().to_string();
            assert!(error.contains(&format!("plane g_idx puts column 5 into group {value}, expected")), "{error}");
        }
    }
}

#[test]
fn planes_and_ranges_of_other_sizes_are_errors() {
    for case in cases() {
        let planes = case.gather(0..ROWS).unwrap();
        for i in 0..planes.len() {
            let mut short = planes.clone();
            short[i].pop();
            assert!(case.decode(&short).is_err(), "{} plane {i}", case.key);
            let mut filled: Vec<Vec<u8>> = short.clone();
            let mut slices: Vec<&mut [u8]> = filled.iter_mut().map(|p| &mut p[..]).collect();
            let shape = [ROWS, COLUMNS];
            let gather = |rows, planes: &mut [&mut [u8]]| {
                case.arrangement.gather(&case.packing, &shape, rows, &case.stored, planes).is_err()
            };
            assert!(gather(0..ROWS, &mut slices), "{} plane {i}", case.key);
            assert!(gather(0..ROWS, &mut slices[..1]));
        }
        assert!(case.decode(&planes[..2]).is_err());
        let outside = case.gather(8..ROWS + 8).unwrap_err().to_string();
        assert!(outside.contains("of a matrix with 32 rows"), "{outside}");
        assert!(case.packing.scheme.encode(&[], 32, None, DType::F16, &mut []).is_err());
        let mut cut = Case { stored: Arrays(case.stored.0.clone()), ..case };
        cut.stored.0[0].pop();
        assert!(cut.gather(0..ROWS).is_err(), "{}", cut.key);
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
