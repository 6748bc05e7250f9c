//! Reference kernels against torch; `golden/torch_ops.py` made the values.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use safetensors::SafeTensors;
use serde_json::Value as Json;
use windlass_ops::{Attributes, Context, Value, op, zeros};
use windlass_tensor::{DType, Tensor};

fn leaked(text: &str) -> &'static str {
    Box::leak(text.to_string().into_boxed_str())
}

fn attribute(value: &Json) -> Value {
    match value {
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(value) => value.as_i64().map_or_else(|| Value::Float(value.as_f64().unwrap()), Value::Int),
        Json::String(value) => Value::Text(leaked(value)),
        Json::Array(values) => Value::Ints(values.iter().map(|v| v.as_i64().unwrap()).collect()),
        other => panic!("{other}"),
    }
}

fn tensor(file: &SafeTensors, name: &str) -> Tensor {
    let view = file.tensor(name).unwrap();
    let dtype = DType::from_name(&view.dtype().to_string()).unwrap();
    let mut tensor = zeros(dtype, view.shape()).unwrap();
    tensor.bytes_mut().unwrap().copy_from_slice(view.data());
    tensor
}

fn values(tensor: &Tensor) -> Vec<f64> {
    let bytes = tensor.bytes().unwrap();
    match tensor.element().dtype().unwrap() {
        DType::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        DType::I64 => bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
        DType::Bool => bytes.iter().map(|b| f64::from(*b)).collect(),
        other => panic!("{other}"),
    }
}

#[test]
fn references_give_what_torch_gives() {
    let bytes = include_bytes!("golden/ops.safetensors");
    let file = SafeTensors::deserialize(bytes).unwrap();
    let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
    let cases: Vec<Json> = serde_json::from_str(&header.metadata().as_ref().unwrap()["cases"]).unwrap();
    let mut seen = BTreeSet::new();
    for (number, case) in cases.iter().enumerate() {
        let op = op(case["op"].as_str().unwrap()).unwrap();
        seen.insert(op.name);
        let count = |key: &str| case[key].as_u64().unwrap();
        let inputs: Vec<Tensor> = (0..count("inputs")).map(|i| tensor(&file, &format!("{number}.in.{i}"))).collect();
        let mut attributes = Attributes::new();
        for (name, value) in case["attributes"].as_object().unwrap() {
            attributes.set(leaked(name), attribute(value));
        }
        let found = Context::here(|cx| {
            let cx = Context::new(cx.session()).with_provider("reference");
            cx.call(op, &inputs.iter().collect::<Vec<_>>(), &attributes)
        });
        let found = found.unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(found.len() as u64, count("outputs"), "{case}");
        for (i, found) in found.iter().enumerate() {
            let expected = tensor(&file, &format!("{number}.out.{i}"));
            assert_eq!(found.shape(), expected.shape(), "{case}");
            assert_eq!(found.element().dtype(), expected.element().dtype(), "{case}");
            for (f, e) in values(found).into_iter().zip(values(&expected)) {
                assert!((f - e).abs() <= 1e-6 + 1e-6 * e.abs(), "{case}: expected {e}, found {f}");
            }
        }
    }
    assert!(seen.len() > 40, "{seen:?}");
}
