//! Which element each output gets.

use windlass_catalog::Convention;
use windlass_formats::{ContainerRef, Source};
use windlass_quant::recipe::{ModelFacts, Recipe, Target, TensorFacts};
use windlass_quant::{Packing, float, scheme};
use windlass_tensor::{DType, Element};

use super::belongings::{Originals, dominant_float};
use super::names::{Content, Output};
use crate::rows::packing;
use crate::{Error, Result, model::Identity};

/// Chooses by a recipe: what was asked for on the command line.
pub fn by_recipe(
    recipe: &Recipe,
    source: &Source,
    identity: Option<&Identity>,
    outputs: &[Output],
    container: ContainerRef,
    has_imatrix: bool,
) -> Result<Vec<Element>> {
    let sources: Vec<Element> = outputs.iter().map(|o| source_element(source, o)).collect();
    let facts: Vec<TensorFacts> = outputs
        .iter()
        .zip(&sources)
        .map(|(o, element)| TensorFacts {
            name: &o.gguf_name,
            alias: Some(&o.name),
            shape: &o.shape,
            layer: o.layer,
            element,
        })
        .collect();
    let mut chosen = recipe.plan(&facts, &model_facts(identity, outputs, has_imatrix), target(container))?;
    for ((element, from), output) in chosen.iter_mut().zip(&sources).zip(outputs) {
        if let Content::Bytes(..) = output.content {
            element.clone_from(from);
        }
        // A tensor that the recipe leaves alone need not be one that the target can hold.
        if element == from && !container.can_hold(element) {
            *element = by_source(source, std::slice::from_ref(output), container)?.remove(0);
        }
        check(container, element, output)?;
    }
    Ok(chosen)
}

/// Chooses without a recipe: what the source has, or the nearest that the container can hold without loss.
pub fn by_source(source: &Source, outputs: &[Output], container: ContainerRef) -> Result<Vec<Element>> {
    let originals = Originals::of(source);
    let dominant = dominant_float(source);
    let choose = |output: &Output| {
        let from = source_element(source, output);
        let narrow = || narrowest(source, output, dominant);
        let library = packing(&from).filter(|_| source.container() != "gguf" && !container.can_hold(&from));
        let element = match container.convention() {
            Convention::Gguf if source.container() != "gguf" => for_gguf(&from, output),
            Convention::Gguf => from,
            _ if container.can_hold(&from) && source.container() != "gguf" => from,
            // The type in which the library itself would compute.
            _ if library.is_some() => library.map_or(DType::F16, |p| p.float).into(),
            _ => match unpacked_or_repacked(&from, output, container, &originals, dominant) {
                element if element == DType::F32.into() && !originals.known() => narrow()?.into(),
                element => element,
            },
        };
        check(container, &element, output).map(|()| element)
    };
    outputs.iter().map(choose).collect()
}

/// The element of the source tensor that an output begins with.
pub fn source_element(source: &Source, output: &Output) -> Element {
    if let Content::Bytes(dtype, _) = &output.content {
        return (*dtype).into();
    }
    let first = output.content.entries().first().map(|entry| source.tensors()[*entry].element().clone());
    first.unwrap_or(Element::Plain(DType::F32))
}

/// Whether values may change on the way to `element`: everything but staying the same and widening.
pub fn loses(source: &Source, output: &Output, element: &Element) -> bool {
    output.content.entries().into_iter().map(|entry| source.tensors()[entry].element()).any(|from| {
        let widens = from.dtype().is_some_and(|d| d.is_float() && d.size() <= 4) && *element == DType::F32.into();
        from != element && !widens
    })
}

/// Whether an F32 tensor becomes a smaller float as it is, so that values may be lost that were not there when it was one.
pub fn narrows(source: &Source, output: &Output, element: &Element) -> bool {
    let Content::Rows(segments) = &output.content else { return false };
    let whole =
        |s: &super::names::Segment| s.shift == 0.0 && source.tensors()[s.entry].element().dtype() == Some(DType::F32);
    let smaller = element.dtype().is_some_and(|d| d.is_float() && d.size() < 4);
    smaller && segments.iter().all(whole)
}

/// llama.cpp wants vectors as F32, and stacks of biases; packed tensors keep their codes where a grid of GGML is the same.
fn for_gguf(from: &Element, output: &Output) -> Element {
    match (from, packing(from)) {
        (Element::Plain(dtype), _) if dtype.is_float() && (output.shape.len() < 2 || is_bias(output)) => {
            DType::F32.into()
        }
        (_, Some(p)) => match p.scheme.name() {
            "mlx4-g32" => ggml("q4_1").unwrap_or(p.float.into()),
            "mlx8-g32" => ggml("q8_0").unwrap_or(p.float.into()),
            "mlx-mxfp4" => ggml("mxfp4").unwrap_or(p.float.into()),
            _ => p.float.into(),
        },
        _ => from.clone(),
    }
}

fn is_bias(output: &Output) -> bool {
    output.gguf_name.ends_with(".bias")
}

fn ggml(name: &str) -> Option<Element> {
    scheme(name).ok().map(|scheme| Packing { scheme, float: DType::F32 }.element())
}

/// From GGUF to a folder: the type the tensor had before, where that is known or loses nothing.
fn unpacked_or_repacked(
    from: &Element,
    output: &Output,
    container: ContainerRef,
    originals: &Originals,
    dominant: Option<DType>,
) -> Element {
    if let Some(p) = packing(from) {
        let same_grid = match p.scheme.name() {
            "q4_0" | "q4_1" => Some("mlx4-g32"),
            "q8_0" => Some("mlx8-g32"),
            _ => None,
        };
        let element = same_grid
            .and_then(|name| scheme(name).ok())
            .map(|scheme| Packing { scheme, float: DType::F16 }.element())
            .filter(|e| container.can_hold(e));
        return element
            .unwrap_or_else(|| originals.get(&output.name).or(dominant_narrow(dominant)).unwrap_or(DType::F16).into());
    }
    match (from, originals.get(&output.name)) {
        (Element::Plain(dtype), Some(original)) if dtype.is_float() && original.is_float() => original.into(),
        _ => from.clone(),
    }
}

/// The type that most of a model has, if an F32 tensor of it loses nothing by it: GGUF keeps vectors in F32 whatever
/// they were. Matrices are taken at their word.
fn narrowest(source: &Source, output: &Output, dominant: Option<DType>) -> Result<DType> {
    let (Some(dtype), Content::Rows(segments)) = (dominant_narrow(dominant), &output.content) else {
        return Ok(DType::F32);
    };
    let shifted = segments.iter().any(|s| s.shift != 0.0);
    let [segment] = segments.as_slice() else { return Ok(DType::F32) };
    let entry = &source.tensors()[segment.entry];
    if output.shape.len() != 1 || shifted || entry.element().dtype() != Some(DType::F32) {
        return Ok(DType::F32);
    }
    let mut bytes = vec![0; entry.bytes() as usize];
    source.read(entry, 0, 0, &mut bytes)?;
    let mut values = vec![0.0; entry.columns()];
    float::to_f32(DType::F32, &bytes, &mut values)?;
    let mut narrow = vec![0; values.len() * dtype.size()];
    float::from_f32(dtype, &values, &mut narrow)?;
    let mut back = vec![0.0; values.len()];
    float::to_f32(dtype, &narrow, &mut back)?;
    let same = values.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits());
    Ok(if same { dtype } else { DType::F32 })
}

fn dominant_narrow(dominant: Option<DType>) -> Option<DType> {
    dominant.filter(|d| matches!(d, DType::F16 | DType::BF16))
}

fn check(container: ContainerRef, element: &Element, output: &Output) -> Result<()> {
    if container.can_hold(element) {
        return Ok(());
    }
    let mut can: Vec<&str> = DType::built_in().filter(|d| container.can_hold(&(*d).into())).map(|d| d.name()).collect();
    let packed =
        |s: &windlass_quant::SchemeRef| container.can_hold(&Packing { scheme: *s, float: DType::F16 }.element());
    can.extend(windlass_quant::schemes().iter().filter(|s| packed(s)).map(|s| s.name()));
    let message = format!("{} cannot hold {} (tensor {:?})", container.name(), element.name(), output.name);
    Err(Error::usage(message).tensor(&output.name).help(format!("it can hold: {}", can.join(", ").to_lowercase())))
}

fn target(container: ContainerRef) -> Target {
    match container.convention() {
        Convention::Gguf => Target::Gguf,
        Convention::Mlx => Target::Mlx,
        Convention::Hf => Target::Hf,
    }
}

fn model_facts(identity: Option<&Identity>, outputs: &[Output], has_imatrix: bool) -> ModelFacts {
    let layers = outputs.iter().filter_map(|o| o.layer).max().map_or(0, |l| l + 1);
    let tied = !outputs.iter().any(|o| o.gguf_name == "output.weight");
    match identity {
        None => {
            ModelFacts { architecture: String::new(), layers, experts: 0, heads: 1, kv_heads: 1, tied, has_imatrix }
        }
        Some(Identity { architecture, hyper }) => ModelFacts {
            architecture: architecture.gguf_name().into(),
            layers: hyper.layers(),
            experts: hyper.experts(),
            heads: hyper.heads(),
            kv_heads: hyper.kv_heads(),
            tied,
            has_imatrix,
        },
    }
}
