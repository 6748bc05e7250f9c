//! Any config.json beside any arrays is opened or refused; what is opened can be read row by row, and decodes.
//!
//! The input is a config.json, a zero byte, and a safetensors file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_quant::Packing;
use windlass_tensor::{Element, Limits, PackedLayout};

/// Values of a tensor that is read; more would only take longer.
const VALUES: u64 = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    let Some(at) = bytes.iter().position(|b| *b == 0) else { return };
    let folder = std::env::temp_dir().join(format!("windlass-fuzz-libraries-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the input");
    std::fs::write(folder.join("config.json"), &bytes[..at]).expect("the input is written");
    std::fs::write(folder.join("model.safetensors"), &bytes[at + 1..]).expect("the input is written");
    let limits = Limits::default();
    let Ok(source) = windlass_formats::open(&folder, &limits) else { return };
    for entry in source.tensors().iter().filter(|entry| entry.values() <= VALUES && entry.values() > 0) {
        let Element::Packed(layout) = entry.element() else { continue };
        let packing = *layout.as_any().downcast_ref::<Packing>().expect("ours");
        let (rows, columns) = (entry.rows(), entry.columns());
        let granule = entry.row_granularity(columns);
        for first in (0..rows).step_by(granule) {
            let count = granule.min(rows - first);
            let ranges = packing.plane_ranges(columns, first, count).expect("it was checked when it was opened");
            let mut planes: Vec<Vec<u8>> = ranges.iter().map(|(_, bytes)| vec![0; *bytes as usize]).collect();
            let mut slices: Vec<&mut [u8]> = planes.iter_mut().map(|plane| &mut plane[..]).collect();
            if source.read_rows(entry, columns, first, count, &mut slices).is_err() {
                break;
            }
            let slices: Vec<&[u8]> = planes.iter().map(|plane| &plane[..]).collect();
            let mut values = vec![0.0; count * columns];
            let _ = packing.scheme.decode(&slices, columns, packing.float, &mut values);
        }
    }
});
