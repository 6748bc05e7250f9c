//! Tensors in golden files as checkpoints store them: keys are `SCHEME.NAMING.OPTIONS.ARRAY`, with `decoded` among the
//! arrays.

use std::io;
use std::ops::Range;
use std::sync::Mutex;

use safetensors::SafeTensors;
use windlass_quant::arrange::{ArrangementRef, Stored};
use windlass_quant::compressed::{self, Integers};
use windlass_quant::gptq::Version;
use windlass_quant::{Error, Packing, awq, float, fp8, gptq, nvfp4, scheme};
use windlass_tensor::{DType, PackedLayout};

/// Arrays in memory.
pub struct Arrays(pub Mutex<Vec<Vec<u8>>>);

impl Stored for Arrays {
    fn read(&self, array: usize, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let arrays = self.0.lock().unwrap();
        let bytes = arrays.get(array).and_then(|a| a.get(offset as usize..)?.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, array: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut arrays = self.0.lock().unwrap();
        let place = arrays.get_mut(array).and_then(|a| a.get_mut(offset as usize..)?.get_mut(..bytes.len()));
        place.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(bytes);
        Ok(())
    }
}

pub struct Case {
    pub key: String,
    pub packing: Packing,
    pub arrangement: ArrangementRef,
    /// Outermost first.
    pub shape: Vec<usize>,
    pub stored: Arrays,
    /// Values as bytes of `returned`, the type in which the library returned them.
    pub decoded: Vec<u8>,
    pub returned: DType,
    /// What was encoded, where the library did that.
    pub input: Option<Vec<f32>>,
}

/// Every tensor of a golden file. `find` takes the first three parts of a key, and the stored types of its arrays.
fn cases(
    file: &str,
    find: impl Fn([&str; 3], &dyn Fn(&str) -> Option<DType>, DType) -> (Packing, ArrangementRef),
) -> Vec<Case> {
    let bytes = super::golden(file);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut keys: Vec<&str> = file.names().into_iter().filter_map(|n| n.strip_suffix(".decoded")).collect();
    keys.sort_unstable();
    let case = |key: &str| {
        let parts: [&str; 3] = key.split('.').collect::<Vec<_>>().try_into().unwrap();
        let view = |part: &str| file.tensor(&format!("{key}.{part}"));
        let dtype = |part: &str| view(part).ok().and_then(|v| DType::from_name(&format!("{:?}", v.dtype())));
        let returned = dtype("decoded").unwrap();
        let (packing, arrangement) = find(parts, &dtype, returned);
        let shape = view("decoded").unwrap().shape().to_vec();
        let arrays = arrangement.arrays(&packing, &shape).unwrap();
        let read = |array: &windlass_quant::arrange::Array| {
            let stored = view(array.name).unwrap();
            assert_eq!(stored.shape(), array.shape, "{key} {}", array.name);
            assert_eq!(dtype(array.name), Some(array.dtype), "{key} {}", array.name);
            stored.data().to_vec()
        };
        let input = view("input").ok().map(|_| super::floats(&file, &format!("{key}.input")));
        let stored = Arrays(Mutex::new(arrays.iter().map(read).collect()));
        let decoded = view("decoded").unwrap().data().to_vec();
        Case { key: key.into(), packing, arrangement, shape, stored, decoded, returned, input }
    };
    keys.into_iter().map(case).collect()
}

/// GPTQ and AWQ.
pub fn grouped() -> Vec<Case> {
    cases("grouped", |[name, version, order], _, returned| {
        let arrangement = match version {
            "v1" => gptq::arrangement(Version::V1, order != "none"),
            "v2" => gptq::arrangement(Version::V2, order != "none"),
            other => awq::arrangement(other).unwrap(),
        };
        (Packing { scheme: scheme(name).unwrap(), float: returned }, arrangement)
    })
}

/// compressed-tensors, FP8 and four-bit floats.
pub fn reads() -> Vec<Case> {
    cases("reads", |[name, naming, options], dtype, _| {
        let has = |option| options.contains(option);
        let mut float = DType::F32;
        let arrangement = match (name, naming) {
            ("nvfp4-ct", _) => nvfp4::compressed_tensors(),
            ("nvfp4-modelopt", _) => nvfp4::model_opt(),
            ("mlx-mxfp4", "gptoss") => nvfp4::gpt_oss(),
            ("mlx-mxfp4", _) => nvfp4::compressed_mxfp4(),
            ("mlx-mxfp8", _) => nvfp4::compressed_mxfp8(),
            (_, "inverse") => fp8::arrangement(true, dtype("weight_scale_inv").unwrap()).unwrap(),
            (_, "scale") => fp8::arrangement(false, dtype("weight_scale").unwrap()).unwrap(),
            _ => {
                float = dtype("weight_scale").unwrap();
                let [packed, symmetric, one_scale, g_idx] = [has('p'), !has('a'), has('o'), has('g')];
                compressed::arrangement(Integers { packed, symmetric, one_scale, g_idx })
            }
        };
        (Packing { scheme: scheme(name).unwrap(), float }, arrangement)
    })
}

impl Case {
    pub fn rows(&self) -> usize {
        self.shape[..self.shape.len() - 1].iter().product()
    }

    pub fn columns(&self) -> usize {
        self.shape[self.shape.len() - 1]
    }

    pub fn empty(&self, rows: usize) -> Vec<Vec<u8>> {
        let sizes = self.packing.plane_bytes(&[rows, self.columns()]).unwrap();
        sizes.iter().map(|n| vec![0xa5; *n as usize]).collect()
    }

    pub fn gather_into(&self, rows: Range<usize>, planes: &mut [Vec<u8>]) -> io::Result<()> {
        let mut slices: Vec<&mut [u8]> = planes.iter_mut().map(|p| &mut p[..]).collect();
        self.arrangement.gather(&self.packing, &self.shape, rows, &self.stored, &mut slices)
    }

    pub fn gather(&self, rows: Range<usize>) -> io::Result<Vec<Vec<u8>>> {
        let mut planes = self.empty(rows.len());
        self.gather_into(rows, &mut planes)?;
        Ok(planes)
    }

    pub fn decode(&self, planes: &[Vec<u8>], rows: usize) -> Result<Vec<f32>, Error> {
        let slices: Vec<&[u8]> = planes.iter().map(|p| &p[..]).collect();
        let mut values = vec![f32::NAN; rows * self.columns()];
        self.packing.scheme.decode(&slices, self.columns(), self.packing.float, &mut values)?;
        Ok(values)
    }

    /// Asserts that these are the library's values of those rows, once rounded to the type that it returns.
    pub fn assert_values(&self, values: &[f32], rows: Range<usize>, label: &str) {
        let size = self.columns() * self.returned.size();
        let expected = &self.decoded[rows.start * size..rows.end * size];
        let mut bytes = vec![0; values.len() * self.returned.size()];
        float::from_f32(self.returned, values, &mut bytes).unwrap();
        let read = |bytes: &[u8]| {
            let mut values = vec![0.0; bytes.len() / self.returned.size()];
            float::to_f32(self.returned, bytes, &mut values).unwrap();
            values
        };
        super::assert_same(&format!("{} {label}", self.key), &read(&bytes), &read(expected));
    }
}

/// Cuts at any multiple of the granularity give what the whole gives.
pub fn assert_cuts(case: &Case, cuts: &[(usize, usize)]) {
    let whole = case.gather(0..case.rows()).unwrap();
    for (start, end) in cuts.iter().copied() {
        let planes = case.gather(start..end).unwrap();
        if start != end {
            let values = case.decode(&planes, end - start).unwrap();
            case.assert_values(&values, start..end, &format!("{start}..{end}"));
        }
        let places = case.packing.plane_ranges(case.columns(), start, end - start).unwrap();
        for ((offset, length), (whole, cut)) in places.into_iter().zip(whole.iter().zip(&planes)) {
            assert_eq!(&whole[offset as usize..][..length as usize], &cut[..], "{} {start}..{end}", case.key);
        }
    }
}

/// Planes of other lengths, other numbers of planes, rows that are not there and arrays that end early are errors.
pub fn assert_refuses(case: &Case) {
    let (rows, key) = (case.rows(), &case.key);
    let planes = case.gather(0..rows).unwrap();
    for i in 0..planes.len() {
        let mut short = planes.clone();
        short[i].pop();
        assert!(case.decode(&short, rows).is_err(), "{key} plane {i}");
        assert!(case.gather_into(0..rows, &mut short).is_err(), "{key} plane {i}");
    }
    assert!(case.decode(&planes[..1], rows).is_err(), "{key}");
    assert!(case.gather_into(0..rows, &mut planes[..1].to_vec()).is_err(), "{key}");
    let outside = case.arrangement.granularity(&case.packing, case.columns());
    let error = case.gather(outside..rows + outside).unwrap_err().to_string();
    assert!(error.contains(&format!("of a matrix with {rows} rows")), "{key}: {error}");
    let arrays = case.stored.0.lock().unwrap().len();
    for i in 0..arrays {
        let last = case.stored.0.lock().unwrap()[i].pop().unwrap();
        assert!(case.gather(0..rows).is_err(), "{key} array {i}");
        case.stored.0.lock().unwrap()[i].push(last);
    }
    case.gather(0..rows).unwrap();
}
