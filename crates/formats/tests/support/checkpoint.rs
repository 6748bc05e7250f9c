//! Checkpoint folders by hand: a config.json and a safetensors file of any arrays.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::Path;

use serde_json::{Map, Value as Json, json};
use windlass_formats::{Entry, Source};
use windlass_quant::Packing;
use windlass_tensor::{DType, Element, PackedLayout};

/// One array of a safetensors file.
#[derive(Clone)]
pub struct Array {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Array {
    pub fn new(name: &str, dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Array {
        assert_eq!(bytes.len(), shape.iter().product::<usize>() * dtype.size(), "{name}");
        Array { name: name.into(), dtype, shape: shape.into(), bytes }
    }
}

/// A safetensors file of these arrays.
pub fn file(arrays: &[Array]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::<u8>::new());
    for array in arrays {
        let begin = data.len();
        data.extend(&array.bytes);
        let about = json!({"dtype": array.dtype.name(), "shape": array.shape, "data_offsets": [begin, data.len()]});
        header.insert(array.name.clone(), about);
    }
    let header = Json::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend(data);
    bytes
}

/// Writes a folder.
pub fn save(folder: &Path, config: &Json, arrays: &[Array]) {
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("model.safetensors"), file(arrays)).unwrap();
}

/// Empty planes for all rows of a packed tensor.
pub fn planes(entry: &Entry) -> Vec<Vec<u8>> {
    let packing = packing(entry);
    let sizes = packing.plane_bytes(&[entry.rows(), entry.columns()]).unwrap();
    sizes.iter().map(|n| vec![0; *n as usize]).collect()
}

pub fn packing(entry: &Entry) -> Packing {
    let Element::Packed(layout) = entry.element() else { panic!("{} is not packed", entry.name()) };
    *layout.as_any().downcast_ref::<Packing>().unwrap()
}

/// All values of a packed tensor.
pub fn decode(source: &Source, entry: &Entry) -> Vec<f32> {
    let mut planes = planes(entry);
    let mut slices: Vec<&mut [u8]> = planes.iter_mut().map(|p| &mut p[..]).collect();
    source.read_rows(entry, entry.columns(), 0, entry.rows(), &mut slices).unwrap();
    let slices: Vec<&[u8]> = planes.iter().map(|p| &p[..]).collect();
    let mut values = vec![f32::NAN; entry.values() as usize];
    let packing = packing(entry);
    packing.scheme.decode(&slices, entry.columns(), packing.float, &mut values).unwrap();
    values
}
