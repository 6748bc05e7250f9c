//! A small model made on the spot: Qwen3's architecture, seeded weights, a tokenizer trained on a page of text.

use std::path::Path;

use serde_json::json;
use windlass_catalog::Convention;
use windlass_formats::{Target, TargetTensor, container};
use windlass_quant::float;
use windlass_tensor::{DType, Metadata};

use crate::convert::write_layout;
use crate::{Code, Error, Result};

/// The page that the tokenizer is trained on.
pub(super) const CORPUS: &str = include_str!("corpus.txt");

/// The paragraphs of the page, as examples to train on.
pub(super) fn examples() -> String {
    CORPUS.split("\n\n").map(|text| format!("{}\n", json!({ "text": text.trim() }))).collect()
}

const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Writes the model as a Hugging Face folder. The same bytes on every machine.
pub fn make(folder: &Path) -> Result<()> {
    let config = config();
    let tensors = tensors(&config)?;
    write_folder(folder, tensors, files(&config, CORPUS, 1500)?)
}

/// Weights by name, with their shapes.
pub(super) type Named = (String, Vec<usize>, Vec<f32>);

/// Writes a model of these weights, and a tokenizer that is trained on a text.
pub(super) fn write(
    folder: &Path,
    config: &serde_json::Value,
    text: &str,
    vocabulary: usize,
    weights: &[Named],
) -> Result<()> {
    let tensor = |(name, shape, values): &Named| {
        let mut bytes = vec![0; values.len() * 4];
        float::from_f32(DType::F32, values, &mut bytes)?;
        Ok((TargetTensor { name: name.clone(), element: DType::F32.into(), shape: shape.clone() }, bytes))
    };
    let mut config = config.clone();
    config["dtype"] = "float32".into();
    let tensors = weights.iter().map(tensor).collect::<Result<Vec<_>>>()?;
    write_folder(folder, tensors, files(&config, text, vocabulary)?)
}

/// Weights that training can begin with: small ones, and gains of one.
pub(super) fn small(config: &serde_json::Value) -> Result<Vec<Named>> {
    let (architecture, hyper) = windlass_catalog::from_hf_config(config)?;
    let pieces = architecture.pieces(&hyper)?;
    let places = pieces.iter().filter(|p| p.required).filter_map(|p| p.places(Convention::Hf).into_iter().next());
    let weight = |(index, place): (usize, windlass_catalog::Place)| {
        let mut random = Random((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let gain = place.shape.len() < 2;
        let count = place.shape.iter().product::<usize>();
        let values = (0..count).map(|_| if gain { 1.0 } else { 0.03 * random.normal() }).collect();
        (place.tensor, place.shape, values)
    };
    Ok(places.enumerate().map(weight).collect())
}

fn write_folder(folder: &Path, tensors: Vec<(TargetTensor, Vec<u8>)>, files: Vec<(String, Vec<u8>)>) -> Result<()> {
    let target = Target {
        tensors: tensors.iter().map(|(t, _)| t.clone()).collect(),
        metadata: Metadata::from_iter([("format".to_string(), "pt".into())]),
        files,
        part_size: None,
    };
    let safetensors = container("safetensors").ok_or_else(|| Error::new(Code::Failed, "no safetensors container"))?;
    let layout = safetensors.layout(&target)?;
    write_layout(folder, &layout, |index| Ok(tensors[index].1.clone()))
}

pub(super) fn config() -> serde_json::Value {
    json!({
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "dtype": "bfloat16",
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": 2048,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "hidden_act": "silu",
        "attention_bias": false,
        "tie_word_embeddings": true,
        "bos_token_id": 0,
        "eos_token_id": 2,
    })
}

fn files(config: &serde_json::Value, text: &str, vocabulary: usize) -> Result<Vec<(String, Vec<u8>)>> {
    let tokenizer = windlass_text::train_byte_level(&[text], vocabulary, &SPECIAL)?;
    let tokenizer_config = json!({
        "tokenizer_class": "Qwen2Tokenizer",
        "bos_token": null,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "add_bos_token": false,
        "model_max_length": 4096,
    });
    let pretty = |value: &serde_json::Value| {
        let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
        text.push(b'\n');
        text
    };
    Ok(vec![
        ("config.json".into(), pretty(config)),
        ("tokenizer.json".into(), tokenizer),
        ("tokenizer_config.json".into(), pretty(&tokenizer_config)),
        ("chat_template.jinja".into(), TEMPLATE.as_bytes().to_vec()),
    ])
}

/// Every tensor that the architecture asks for, as bfloat16.
fn tensors(config: &serde_json::Value) -> Result<Vec<(TargetTensor, Vec<u8>)>> {
    let (architecture, hyper) = windlass_catalog::from_hf_config(config)?;
    let pieces = architecture.pieces(&hyper)?;
    let places = pieces.iter().filter(|p| p.required).filter_map(|p| p.places(Convention::Hf).into_iter().next());
    let tensor = |(index, place): (usize, windlass_catalog::Place)| {
        let values = weights(index as u64, &place.shape);
        let mut bytes = vec![0; values.len() * 2];
        float::from_f32(DType::BF16, &values, &mut bytes)?;
        Ok((TargetTensor { name: place.tensor, element: DType::BF16.into(), shape: place.shape }, bytes))
    };
    places.enumerate().map(tensor).collect()
}

/// Normal values with a few columns much larger than the rest, as trained models have them; gains of norms near one.
fn weights(seed: u64, shape: &[usize]) -> Vec<f32> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let count = shape.iter().product();
    if shape.len() < 2 {
        return (0..count).map(|_| 1.0 + 0.1 * random.normal()).collect();
    }
    let columns = shape[shape.len() - 1];
    let mut scales = vec![0.02; columns];
    for _ in 0..columns.div_ceil(128) {
        let at = random.next() as usize % columns;
        scales[at] *= 10.0;
    }
    (0..count).map(|i| scales[i % columns] * random.normal()).collect()
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough for made-up weights.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Nearly normal: the sum of twelve uniforms. Only additions, so that every machine agrees to the bit.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32).sum::<f32>() - 6.0
    }
}
