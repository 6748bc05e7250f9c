//! Any adapter_config.json beside any factors is read or refused, and what is read names tensors that are there.
//!
//! The input is an adapter_config.json, a zero byte, and a safetensors file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_formats::adapter;
use windlass_tensor::Limits;

fuzz_target!(|bytes: &[u8]| {
    let Some(at) = bytes.iter().position(|b| *b == 0) else { return };
    let folder = std::env::temp_dir().join(format!("windlass-fuzz-adapters-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the input");
    std::fs::write(folder.join(adapter::CONFIG), &bytes[..at]).expect("the input is written");
    std::fs::write(folder.join(adapter::PEFT_WEIGHTS), &bytes[at + 1..]).expect("the input is written");
    let limits = Limits::default();
    let Ok(source) = windlass_formats::open(&folder, &limits) else { return };
    let Ok(Some(found)) = adapter::read(&source, &limits) else { return };
    for module in &found.modules {
        assert!(module.rank > 0 && module.rank <= adapter::MAX_RANK);
        let [a, b] = [module.a, module.b].map(|i| &source.tensors()[i]);
        assert_eq!(a.values(), (module.experts * module.rank * module.inputs) as u64);
        assert_eq!(b.values(), (module.experts * module.rank * module.outputs) as u64);
        let name = found.style.tensor_name(&module.name, module.form, adapter::Factor::A);
        assert!(!name.is_empty() && module.magnitude.is_none_or(|i| i < source.tensors().len()));
    }
    assert!(found.others.iter().all(|i| *i < source.tensors().len()));
});
