//! Any bytes are arrays that lie apart inside the file, or are refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_formats::npz::parse;
use windlass_tensor::Limits;

fuzz_target!(|bytes: &[u8]| {
    let Ok(arrays) = parse(bytes, &Limits::default()) else { return };
    let mut end = 0;
    for array in arrays {
        assert!(array.offset >= end);
        end = array.offset + array.header.length;
        let values: usize = array.header.shape.iter().product();
        assert_eq!(values as u64 * array.header.dtype.size() as u64, array.header.length);
    }
    assert!(end <= bytes.len() as u64);
});
