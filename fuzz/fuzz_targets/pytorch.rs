//! Any bytes are tensors that lie inside the file, or are refused, and no pickle runs long or fills memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_formats::pytorch::parse;
use windlass_tensor::Limits;

fuzz_target!(|bytes: &[u8]| {
    let Ok(found) = parse(bytes, &Limits::default()) else { return };
    for tensor in found.tensors {
        assert!(tensor.offset.checked_add(tensor.length).is_some_and(|end| end <= bytes.len() as u64));
        let values: usize = tensor.shape.iter().product();
        assert_eq!(values as u64 * tensor.dtype.size() as u64, tensor.length);
    }
});
