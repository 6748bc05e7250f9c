//! Any bytes parse or are refused; what parses is what the library reads too, and can be laid out again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_formats::safetensors::{Index, parse};
use windlass_formats::{Target, TargetTensor, container};
use windlass_tensor::Limits;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    let _ = Index::parse(bytes, &limits);
    let Ok(header) = parse(bytes, &limits) else { return };
    let theirs = safetensors::SafeTensors::deserialize(bytes).expect("the library is no stricter");
    assert_eq!(theirs.len(), header.tensors.len());
    let mut end = header.data_start;
    for tensor in &header.tensors {
        assert_eq!(tensor.offset, end);
        end += tensor.length;
        let view = theirs.tensor(&tensor.name).expect("both know the tensor");
        assert_eq!((view.shape(), view.data().len() as u64), (&tensor.shape[..], tensor.length));
    }
    assert_eq!(end, bytes.len() as u64);
    let tensors = header.tensors.iter().map(|t| TargetTensor {
        name: t.name.clone(),
        element: t.dtype.into(),
        shape: t.shape.clone(),
    });
    let target = Target { tensors: tensors.collect(), metadata: header.metadata.clone(), ..Target::default() };
    let Ok(layout) = container("safetensors").expect("it is built in").layout(&target) else { return };
    let mut written = layout.parts[0].head.clone();
    written.resize(layout.parts[0].length as usize, 0);
    let again = parse(&written, &limits).expect("what was laid out is valid");
    assert_eq!(again.metadata, header.metadata);
    assert_eq!(again.tensors.len(), header.tensors.len());
});
