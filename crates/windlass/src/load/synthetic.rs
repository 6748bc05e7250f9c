//! Models whose weights are made up in memory: to measure a shape that is not on the disk.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value as Json, json};
use windlass_catalog::{Architecture, Convention, Hyper};
use windlass_formats::{expected_bytes, files};
use windlass_models::{Decoder, Weights};
use windlass_quant::{Importance, Packing, float, nearest};
use windlass_runtime::memory::Pool;
use windlass_runtime::random::Philox;
use windlass_tensor::{DType, Element, Limits, Storage};

use super::budget::Budget;
use super::{Loaded, Options};
use crate::convert::tensor;
use crate::rows::{ranges, rows_and_columns};
use crate::{Code, Error, Result};

/// Rows that are made; the others are copies of them.
const TILE: usize = 64;
/// Planes begin at multiples of a cache line.
const ALIGNMENT: usize = 64;

/// A shape by name: architecture, hidden size, layers, heads, heads of keys, head size, feed-forward size, vocabulary,
/// and whether the output is the embedding.
type Shape = (&'static str, &'static str, [usize; 7], bool);

const SHAPES: [Shape; 14] = [
    ("qwen3-0.6b", "Qwen3ForCausalLM", [1024, 28, 16, 8, 128, 3072, 151_936], true),
    ("qwen3-1.7b", "Qwen3ForCausalLM", [2048, 28, 16, 8, 128, 6144, 151_936], true),
    ("qwen3-4b", "Qwen3ForCausalLM", [2560, 36, 32, 8, 128, 9728, 151_936], true),
    ("qwen3-8b", "Qwen3ForCausalLM", [4096, 36, 32, 8, 128, 12_288, 151_936], false),
    ("qwen3-14b", "Qwen3ForCausalLM", [5120, 40, 40, 8, 128, 17_408, 151_936], false),
    ("qwen3-32b", "Qwen3ForCausalLM", [5120, 64, 64, 8, 128, 25_600, 151_936], false),
    ("qwen2.5-0.5b", "Qwen2ForCausalLM", [896, 24, 14, 2, 64, 4864, 151_936], true),
    ("qwen2.5-1.5b", "Qwen2ForCausalLM", [1536, 28, 12, 2, 128, 8960, 151_936], true),
    ("qwen2.5-7b", "Qwen2ForCausalLM", [3584, 28, 28, 4, 128, 18_944, 152_064], false),
    ("llama-3.2-1b", "LlamaForCausalLM", [2048, 16, 32, 8, 64, 8192, 128_256], true),
    ("llama-3.2-3b", "LlamaForCausalLM", [3072, 28, 24, 8, 128, 8192, 128_256], true),
    ("llama-3.1-8b", "LlamaForCausalLM", [4096, 32, 32, 8, 128, 14_336, 128_256], false),
    ("llama-3.1-70b", "LlamaForCausalLM", [8192, 80, 64, 8, 128, 28_672, 128_256], false),
    ("mistral-7b", "MistralForCausalLM", [4096, 32, 32, 8, 128, 14_336, 32_768], false),
];

/// A model that is not there.
pub struct Synthetic {
    architecture: &'static Architecture,
    pub hyper: Hyper,
    /// Names, shapes and elements.
    tensors: Vec<(String, Vec<usize>, Element)>,
}

impl Synthetic {
    /// The shape of a known name, or that of a config.json; all matrices in `scheme` (a scheme, or f32, f16, bf16).
    pub fn new(name: &str, scheme: &str, limits: &Limits) -> Result<Synthetic> {
        let config = config(name, limits)?;
        let (architecture, hyper) = windlass_catalog::from_hf_config(&config)?;
        let element = element(scheme)?;
        let pieces = architecture.pieces(&hyper)?;
        let places = pieces.iter().filter(|p| p.required).filter_map(|p| p.places(Convention::Hf).into_iter().next());
        let mut tensors: Vec<(String, Vec<usize>, Element)> = Vec::new();
        for place in places {
            if tensors.iter().any(|(name, ..)| *name == place.tensor) {
                continue;
            }
            let element = if place.shape.len() < 2 { DType::F32.into() } else { element.clone() };
            tensors.push((place.tensor, place.shape, element));
        }
        let made = Synthetic { architecture, hyper, tensors };
        made.planes()?;
        Ok(made)
    }

    /// Bytes of each plane of each tensor.
    fn planes(&self) -> Result<Vec<Vec<u64>>> {
        let refused = |why: String, name: &str| Error::usage(why).tensor(name);
        let one = |(name, shape, element): &(String, Vec<usize>, Element)| {
            expected_bytes(element, shape).map_err(|why| refused(why, name))
        };
        self.tensors.iter().map(one).collect()
    }

    /// Bytes of all weights.
    pub fn bytes(&self) -> Result<u64> {
        let room = |bytes: &u64| bytes.next_multiple_of(ALIGNMENT as u64);
        Ok(self.planes()?.iter().flatten().map(room).sum())
    }

    /// Makes the weights.
    pub fn load(&self, options: &Options) -> Result<Loaded> {
        let (budget, bytes) = (Budget::new(options), self.bytes()?);
        if bytes > budget.limit() {
            return Err(budget.refusal("making weights", &[("them", bytes)], "choose a smaller shape or scheme"));
        }
        let mut block = Pool::new(u64::MAX).try_take("weights", bytes as usize)?;
        let (mut rest, mut tiles) = (&mut block[..], HashMap::new());
        for ((_, shape, element), planes) in self.tensors.iter().zip(self.planes()?) {
            let (rows, columns) = rows_and_columns(shape);
            let key = (element.name().to_string(), columns);
            let tile = match tiles.entry(key) {
                std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::hash_map::Entry::Vacant(new) => new.insert(make_tile(element, columns)?),
            };
            for (number, bytes) in planes.into_iter().enumerate() {
                let (plane, after) = rest.split_at_mut((bytes as usize).next_multiple_of(ALIGNMENT));
                fill(plane, element, number, columns, rows, &tile[number]);
                rest = after;
            }
        }
        let storage = Storage::new(block);
        let (mut at, mut tensors) = (0, HashMap::new());
        for ((name, shape, element), planes) in self.tensors.iter().zip(self.planes()?) {
            let mut parts = Vec::new();
            for bytes in planes {
                parts.push(storage.slice(at, bytes as usize)?);
                at += (bytes as usize).next_multiple_of(ALIGNMENT);
            }
            tensors.insert(name.as_str(), tensor(element, shape, parts, name)?);
        }
        let find = |name: &str| tensors.get(name).cloned();
        let weights = Weights::find(self.architecture, &self.hyper, Convention::Hf, find)?;
        let context = options.context.unwrap_or(self.hyper.context().min(Options::DEFAULT_CONTEXT));
        let decoder = Decoder::new(self.architecture, self.hyper.clone(), weights, context)?;
        Ok(Loaded { decoder, context, convention: Convention::Hf, budget })
    }
}

fn config(name: &str, limits: &Limits) -> Result<Json> {
    if name.ends_with(".json") {
        let path = Path::new(name);
        let bytes = files::read_small(path, limits.side_file_bytes)?;
        let refused = |e: serde_json::Error| Error::new(Code::Refused, format!("{name}: {e}")).at(path);
        return serde_json::from_slice(&bytes).map_err(refused);
    }
    let names = || SHAPES.iter().map(|shape| shape.0);
    let Some((_, class, sizes, tied)) = SHAPES.iter().find(|shape| shape.0 == name.to_lowercase()) else {
        let error = Error::usage(format!("no shape is called {name:?}"));
        return Err(match nearest(name, names()) {
            Some(near) => error.help(format!("did you mean {near:?}? A config.json gives any other shape")),
            None => error.help(format!("choose {}, or give a config.json", names().collect::<Vec<_>>().join(", "))),
        });
    };
    let [hidden, layers, heads, kv_heads, head_dim, ffn, vocabulary] = sizes;
    Ok(json!({
        "architectures": [class], "model_type": class.trim_end_matches("ForCausalLM").to_lowercase(),
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": head_dim, "intermediate_size": ffn, "vocab_size": vocabulary,
        "tie_word_embeddings": tied, "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "hidden_act": "silu",
    }))
}

fn element(scheme: &str) -> Result<Element> {
    match scheme {
        "f32" => return Ok(DType::F32.into()),
        "f16" => return Ok(DType::F16.into()),
        "bf16" => return Ok(DType::BF16.into()),
        _ => {}
    }
    let found = windlass_quant::scheme(scheme)
        .map_err(|e| Error::from(e).help("made-up weights are all of one scheme: see `windlass schemes`"))?;
    if !found.can_encode() {
        return Err(Error::usage(format!("{scheme} can be read, but not written")));
    }
    Ok(Packing { scheme: found, float: DType::F16 }.element())
}

/// Planes of a tile of rows. One tensor after the other would be the same for every layer.
fn make_tile(element: &Element, columns: usize) -> Result<Vec<Vec<u8>>> {
    let mut values = vec![0.0f32; TILE * columns];
    if columns == 1 {
        values.fill(1.0);
    } else {
        Philox::new(columns as u64).fill_normal(&mut values);
        values.iter_mut().for_each(|v| *v *= 0.02);
    }
    let sizes = ranges(element, columns, 0, TILE);
    let mut planes: Vec<Vec<u8>> = sizes.iter().map(|(_, bytes)| vec![0; *bytes as usize]).collect();
    match (element, crate::rows::packing(element)) {
        (Element::Plain(dtype), _) => float::from_f32(*dtype, &values, &mut planes[0])?,
        (_, Some(packing)) => {
            let scheme = packing.scheme;
            let even = vec![1.0; columns];
            let importance = matches!(scheme.importance(), Importance::Required).then_some(&even[..]);
            let mut slices: Vec<&mut [u8]> = planes.iter_mut().map(|plane| &mut plane[..]).collect();
            if scheme.tallies() {
                scheme.begin(&scheme.tally(&values, columns, DType::F32), &mut slices);
            }
            scheme.encode(&values, columns, importance, DType::F32, &mut slices)?;
        }
        _ => return Err(Error::usage(format!("{} cannot be made up", element.name()))),
    }
    Ok(planes)
}

/// Copies the tile's plane over and over.
fn fill(plane: &mut [u8], element: &Element, number: usize, columns: usize, rows: usize, tile: &[u8]) {
    for first in (0..rows).step_by(TILE) {
        let range = ranges(element, columns, first, TILE.min(rows - first)).get(number).copied();
        let Some((offset, bytes)) = range.map(|(offset, bytes)| (offset as usize, bytes as usize)) else { continue };
        let count = bytes.min(tile.len());
        if let Some(to) = plane.get_mut(offset..offset + count) {
            to.copy_from_slice(&tile[..count]);
        }
    }
}

/// The names of the shapes.
pub fn names() -> Vec<&'static str> {
    SHAPES.iter().map(|shape| shape.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of parameters as the models' cards say, in billions.
    #[test]
    fn shapes_have_the_parameters_of_the_models() {
        let limits = Limits::default();
        for (name, billions) in [
            ("qwen3-0.6b", 0.596),
            ("qwen3-8b", 8.19),
            ("qwen2.5-7b", 7.62),
            ("llama-3.2-1b", 1.236),
            ("llama-3.1-8b", 8.03),
            ("mistral-7b", 7.25),
        ] {
            let made = Synthetic::new(name, "bf16", &limits).unwrap();
            let values: usize = made.tensors.iter().map(|(_, shape, _)| shape.iter().product::<usize>()).sum();
            let found = values as f64 / 1e9;
            assert!((found / billions - 1.0).abs() < 0.005, "{name}: {found}");
        }
        assert!(SHAPES.iter().all(|shape| Synthetic::new(shape.0, "q8_0", &limits).is_ok()));
        let error = Synthetic::new("qwen3-8", "q8_0", &limits).err().unwrap();
        assert!(error.help.unwrap().contains("qwen3-8b"));
        assert!(Synthetic::new("qwen3-8b", "q4_k_m", &limits).is_err());
        // Rows that do not divide into blocks.
        assert!(Synthetic::new("qwen2.5-0.5b", "q4_k", &limits).is_err());
    }
}
