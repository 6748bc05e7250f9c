//! Methods: what of a model is trained.

use std::collections::{BTreeMap, HashMap};

use windlass_catalog::{Convention, Order};
use windlass_models::{Decoder, Lora, Loras, Site, Trainable, row_squares, sites};
use windlass_nn::Parameters;
use windlass_ops::Context;
use windlass_runtime::random::Philox;
use windlass_tensor::{DType, Tensor, TypedTensor};

use crate::Error;

/// How low-rank changes are made.
#[derive(Clone, Debug)]
pub struct LoraOptions {
    pub rank: usize,
    pub alpha: f64,
    pub dropout: f64,
    /// Ends of module names, or `all-linear`.
    pub targets: Vec<String>,
    /// Scales are alpha / sqrt(rank) (arXiv 2312.03732).
    pub rslora: bool,
    /// Lengths of rows are trained apart from their directions (arXiv 2402.09353).
    pub dora: bool,
    pub seed: u64,
}

/// One changed module, under its name in transformers: places of its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    pub name: String,
    pub a: usize,
    pub b: usize,
    pub magnitude: Option<usize>,
    /// The orders of the rows of its parts, and which rows these are.
    pub parts: Vec<(std::ops::Range<usize>, Order)>,
}

/// The changes of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    pub modules: Vec<Module>,
}

/// Values that an adapter begins with: A and B, and the magnitude, of a module, in the order of transformers.
pub type Start = BTreeMap<String, (Tensor, Tensor, Option<Tensor>)>;

/// Gives a decoder low-rank changes, which begin as nothing (A at random, B zero) or as `start` says.
pub fn attach(
    cx: &Context,
    decoder: Decoder,
    convention: Convention,
    options: &LoraOptions,
    start: Option<&Start>,
) -> Result<(Trainable, Parameters, Adapter), Error> {
    let hyper = decoder.hyper().clone();
    let all = sites(decoder.architecture(), &hyper, convention)?;
    let chosen: Vec<&Site> = all.iter().filter(|site| site.is_target(&options.targets)).collect();
    if chosen.is_empty() {
        let mut known: Vec<&str> = all.iter().filter_map(|site| site.module.rsplit('.').next()).collect();
        known.sort_unstable();
        known.dedup();
        let message = format!("no module is called {}; there are {}", options.targets.join(", "), known.join(", "));
        return Err(Error::Setting(message));
    }
    if options.rank == 0 {
        return Err(Error::Setting("the rank must be at least 1".into()));
    }
    let root = if options.rslora { (options.rank as f64).sqrt() } else { options.rank as f64 };
    let (mut parameters, mut loras, mut modules) = (Parameters::new(), Loras::new(), BTreeMap::<String, Module>::new());
    for (stream, site) in chosen.into_iter().enumerate() {
        let module = match modules.get_mut(&site.module) {
            Some(module) => module,
            None => {
                let module = begin(&mut parameters, site, options, start)?;
                modules.entry(site.module.clone()).or_insert(module)
            }
        };
        module.parts.push((site.rows.clone(), site.order));
        let weight = decoder.weight(site.role, site.layer)?;
        let magnitude = match module.magnitude {
            Some(index) => Some((index, row_squares(cx, weight)?)),
            None => None,
        };
        let lora = Lora {
            a: module.a,
            b: module.b,
            rows: site.rows.clone(),
            magnitude,
            scale: (options.alpha / root) as f32,
            dropout: options.dropout,
            stream: stream as u64,
        };
        loras.entry((site.role, site.layer)).or_insert_with(Vec::new).push(lora);
    }
    let adapter = Adapter { modules: modules.into_values().collect() };
    for module in &adapter.modules {
        to_stored(&mut parameters, module)?;
    }
    set_lengths(&mut parameters, &adapter, &loras, start)?;
    Ok((Trainable::new(decoder, loras, HashMap::new()), parameters, adapter))
}

fn begin(
    parameters: &mut Parameters,
    site: &Site,
    options: &LoraOptions,
    start: Option<&Start>,
) -> Result<Module, Error> {
    let (rank, name) = (options.rank, &site.module);
    let (a, b, magnitude) = match start {
        Some(start) => {
            let missing = || Error::Setting(format!("the adapter to start from does not change {name}"));
            let (a, b, magnitude) = start.get(name).ok_or_else(missing)?.clone();
            if a.shape().dims() != [rank, site.inputs] || b.shape().dims() != [site.outputs, rank] {
                let message = format!("the adapter to start from has {:?} and {:?} for {name}", a.shape(), b.shape());
                return Err(Error::Setting(message));
            }
            (a, b, magnitude)
        }
        None => {
            // Evenly within 1 / sqrt(inputs), as PEFT has it.
            let mut values = vec![0.0f32; rank * site.inputs];
            Philox::new(options.seed).sequence(1 + parameters.len() as u64).fill_uniform(&mut values);
            let bound = 1.0 / (site.inputs as f32).sqrt();
            values.iter_mut().for_each(|v| *v = (2.0 * *v - 1.0) * bound);
            let a = Tensor::from_slice(&values, [rank, site.inputs])?;
            (a, windlass_ops::zeros(DType::F32, [site.outputs, rank])?, None)
        }
    };
    let a = parameters.add(format!("{name}.lora_A"), a)?;
    let b = parameters.add(format!("{name}.lora_B"), b)?;
    let magnitude = if options.dora {
        let lengths = match magnitude {
            Some(lengths) => lengths,
            None => windlass_ops::zeros(DType::F32, [site.outputs])?,
        };
        Some(parameters.add(format!("{name}.lora_magnitude"), lengths)?)
    } else {
        None
    };
    Ok(Module { name: name.clone(), a, b, magnitude, parts: Vec::new() })
}

/// Puts the rows of B, and lengths, into the order that the weights have.
fn to_stored(parameters: &mut Parameters, module: &Module) -> Result<(), Error> {
    for index in [Some(module.b), module.magnitude].into_iter().flatten() {
        reorder(parameters, index, module, |order, row| order.plain_row(row))?;
    }
    Ok(())
}

/// The values of a parameter of a module in the order of transformers.
pub fn in_plain_order(parameters: &Parameters, index: usize, module: &Module) -> Result<Tensor, Error> {
    let missing = || Error::Setting(format!("parameter {index} is not there"));
    let tensor = &parameters.get(index).ok_or_else(missing)?.tensor;
    let all_plain = module.parts.iter().all(|(_, order)| *order == Order::Plain);
    if index == module.a || all_plain {
        Ok(tensor.clone())
    } else {
        permuted(tensor, module, |order, row| order.stored_row(row))
    }
}

fn reorder(
    parameters: &mut Parameters,
    index: usize,
    module: &Module,
    from: impl Fn(Order, usize) -> usize,
) -> Result<(), Error> {
    if module.parts.iter().all(|(_, order)| *order == Order::Plain) {
        return Ok(());
    }
    let Some(parameter) = parameters.iter_mut().nth(index) else { return Ok(()) };
    parameter.tensor = permuted(&parameter.tensor, module, from)?;
    Ok(())
}

/// Row `r` of each part is row `from(r)` of what was.
fn permuted(tensor: &Tensor, module: &Module, from: impl Fn(Order, usize) -> usize) -> Result<Tensor, Error> {
    let values = TypedTensor::<f32>::new(tensor.clone())?.to_vec()?;
    let width = values.len() / tensor.shape().dims().first().copied().unwrap_or(1).max(1);
    let mut turned = values.clone();
    for (rows, order) in &module.parts {
        for row in 0..rows.len() {
            let source = (rows.start + from(*order, row)) * width;
            turned[(rows.start + row) * width..][..width].copy_from_slice(&values[source..source + width]);
        }
    }
    Ok(Tensor::from_slice(&turned, tensor.shape().to_vec())?)
}

/// Lengths that were not given are those of the base, whose change is zero.
fn set_lengths(
    parameters: &mut Parameters,
    adapter: &Adapter,
    loras: &Loras,
    start: Option<&Start>,
) -> Result<(), Error> {
    if start.is_some_and(|start| start.values().all(|(_, _, magnitude)| magnitude.is_some())) {
        return Ok(());
    }
    for module in &adapter.modules {
        let Some(index) = module.magnitude else { continue };
        let of_module = loras.values().flatten().filter(|lora| lora.b == module.b);
        for lora in of_module {
            let Some((_, squares)) = &lora.magnitude else { continue };
            let lengths: Vec<f32> =
                TypedTensor::<f32>::new(squares.clone())?.to_vec()?.iter().map(|v| v.sqrt()).collect();
            let Some(parameter) = parameters.iter_mut().nth(index) else { continue };
            let mut all = TypedTensor::<f32>::new(parameter.tensor.clone())?.to_vec()?;
            all[lora.rows.clone()].copy_from_slice(&lengths);
            let shape = parameter.tensor.shape().to_vec();
            parameter.tensor = Tensor::from_slice(&all, shape)?;
        }
    }
    Ok(())
}
