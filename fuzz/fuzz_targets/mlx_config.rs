//! Any config.json says nothing of packing, names schemes that exist, or is refused; and what is written into it is read.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use windlass_formats::mlx::{Layer, parse_config};
use windlass_formats::{Target, TargetTensor, container};
use windlass_quant::{Packing, scheme};
use windlass_tensor::{DType, Limits};

fn tensor() -> TargetTensor {
    static PACKED: OnceLock<windlass_tensor::Element> = OnceLock::new();
    let packed = || Packing { scheme: scheme("mlx3-g32").expect("it is built in"), float: DType::F16 }.element();
    TargetTensor { name: "x.weight".into(), element: PACKED.get_or_init(packed).clone(), shape: vec![1, 32] }
}

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    if let Ok(Some(found)) = parse_config(bytes, &limits) {
        assert!(found.default.scheme().is_ok());
        for layer in found.layers.values() {
            assert!(!matches!(layer, Layer::Packed(setting) if setting.scheme().is_err()));
        }
    }
    let files = vec![("config.json".to_string(), bytes.to_vec())];
    let target = Target { tensors: vec![tensor()], files, ..Target::default() };
    let Ok(layout) = container("mlx").expect("it is built in").layout(&target) else { return };
    let (_, config) = layout.files.iter().find(|(name, _)| name == "config.json").expect("it was given");
    let written = parse_config(config, &limits).expect("it was just written").expect("it is packed");
    assert_eq!((written.default.bits, written.default.group), (3, 32));
});
