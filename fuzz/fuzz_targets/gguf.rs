//! Any bytes parse or are refused; what parses can be laid out, and then says the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_formats::gguf::{Header, parse};
use windlass_formats::{Target, TargetTensor, container};
use windlass_tensor::{Limits, Metadata};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    let Ok(header) = parse(bytes, &limits) else { return };
    for tensor in header.tensors() {
        assert!(tensor.offset() + tensor.bytes() <= bytes.len() as u64);
    }
    let tensors = header.tensors().iter().map(|t| TargetTensor {
        name: t.name().into(),
        element: t.element().clone(),
        shape: t.shape().to_vec(),
    });
    let target = Target { tensors: tensors.collect(), metadata: model(&header), ..Target::default() };
    let gguf = container("gguf").expect("it is built in");
    let Ok(layout) = gguf.layout(&target) else { return };
    let mut written = layout.parts[0].head.clone();
    written.resize(layout.parts[0].length as usize, 0);
    let again = parse(&written, &limits).expect("what was laid out is valid");
    assert_eq!(format!("{:?}", again.metadata()), format!("{:?}", target.metadata));
    for (a, b) in header.tensors().iter().zip(again.tensors()) {
        assert_eq!((a.name(), a.element(), a.shape(), a.bytes()), (b.name(), b.element(), b.shape(), b.bytes()));
    }
});

/// The keys that speak of the model and not of its files: the others are not written.
fn model(header: &Header) -> Metadata {
    let keys = header.metadata().iter().filter(|(key, _)| !key.starts_with("split."));
    keys.map(|(key, value)| (key.to_string(), value.clone())).collect()
}
