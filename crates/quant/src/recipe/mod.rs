//! Recipes: which element each tensor of a model gets.
//!
//! A recipe is named after what its owner calls it: `q4_k_m` chooses as llama-quantize does, `mlx4-g64` as
//! `mlx_lm.convert -q`, and a scheme of a library that replaces linear layers is given to those only. Rules of the user
//! come before any of that.

mod imatrix;
mod llama;
mod mixture;
mod mlx;
mod rules;

use std::cmp::Ordering;

use windlass_tensor::{DType, Element};

use crate::{Error, Family, Packing, SchemeRef, nearest, scheme, schemes};

pub use imatrix::ImportanceMatrix;
pub use llama::needs_importance;

/// What a recipe knows of a tensor.
#[derive(Clone, Copy)]
pub struct TensorFacts<'a> {
    /// Its name in GGUF: `blk.3.ffn_down.weight`.
    pub name: &'a str,
    /// Its name in the source, where that differs; rules match either.
    pub alias: Option<&'a str>,
    /// Row-major, outermost first.
    pub shape: &'a [usize],
    /// Number of the layer it belongs to.
    pub layer: Option<usize>,
    /// What it is now.
    pub element: &'a Element,
}

/// What a recipe knows of the model.
#[derive(Clone, Debug, Default)]
pub struct ModelFacts {
    /// As GGUF spells it: `llama`, `qwen3moe`.
    pub architecture: String,
    /// Number of blocks.
    pub layers: usize,
    /// Experts of a layer, 0 without.
    pub experts: usize,
    /// Attention heads of the first layer.
    pub heads: usize,
    /// Key and value heads of the first layer.
    pub kv_heads: usize,
    /// No `output.weight` of its own: the embedding serves.
    pub tied: bool,
    /// Importance weights will be given to the encoders.
    pub has_imatrix: bool,
}

/// Whose conventions hold for tensors that are not quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Vectors, norms and a few small matrices are `F32`.
    Gguf,
    /// Everything keeps the type the model has.
    Mlx,
    /// As [`Target::Mlx`].
    Hf,
}

/// Chooses an element for each tensor.
#[derive(Clone, Debug)]
pub struct Recipe {
    base: Base,
    rules: Vec<rules::Rule>,
    file_type: Option<u32>,
}

/// What holds where no rule does.
#[derive(Clone, Debug)]
enum Base {
    Keep,
    Float(DType),
    Mixture(&'static mixture::FileType),
    Mlx(mlx::Widths),
    /// Linear layers of blocks.
    Linear(SchemeRef),
    /// Every matrix that may be quantized.
    Pure(SchemeRef),
}

impl Recipe {
    /// A recipe by name, upper or lower case: a float type, a file type of llama-quantize, a scheme, or a mixture of
    /// mlx_lm. Unknown names are an error with the nearest known one.
    pub fn named(name: &str) -> Result<Recipe, Error> {
        let lower = name.to_lowercase();
        let base = if lower == "keep" {
            Base::Keep
        } else if let Some(dtype) = float(&lower) {
            Base::Float(dtype)
        } else if let Some(file_type) = mixture::FileType::named(&lower) {
            Base::Mixture(file_type)
        } else if let Some(widths) = mlx::Widths::mixed(&lower)? {
            Base::Mlx(widths)
        } else {
            match scheme(&lower).map_err(|e| unknown(e, name))? {
                scheme if scheme.family() == Family::Mlx => Base::Mlx(mlx::Widths::one(scheme)),
                scheme if scheme.family() == Family::Ggml => Base::Pure(scheme),
                scheme => Base::Linear(scheme),
            }
        };
        let file_type = number(&lower);
        Ok(Recipe { base, rules: Vec::new(), file_type })
    }

    /// One element for every matrix that may be quantized: what `llama-quantize --pure` does, for any scheme.
    pub fn pure(element: Element) -> Recipe {
        let base = match (&element, packing(&element)) {
            (Element::Plain(dtype), _) => Base::Float(*dtype),
            (_, Some(packing)) => Base::Pure(packing.scheme),
            // A layout of another crate has no scheme here to encode with.
            _ => Base::Keep,
        };
        Recipe { base, rules: Vec::new(), file_type: number(element.name()) }
    }

    /// As [`Recipe::pure`] with the main scheme of a named recipe: Q4_K for `q4_k_m`.
    pub fn pure_named(name: &str) -> Result<Recipe, Error> {
        let recipe = Recipe::named(name)?;
        let base = match recipe.base {
            Base::Mixture(file_type) => Base::Pure(scheme(file_type.default)?),
            Base::Mlx(widths) => Base::Pure(widths.low),
            Base::Linear(scheme) => Base::Pure(scheme),
            base => base,
        };
        Ok(Recipe { base, ..recipe })
    }

    /// Leaves every tensor as it is.
    pub fn keep() -> Recipe {
        Recipe { base: Base::Keep, rules: Vec::new(), file_type: None }
    }

    /// A recipe of the user:
    ///
    /// ```toml
    /// base = "q4_k_m"        # a named recipe; or default = "q4_k", that scheme for every matrix; or neither
    /// [[rule]]               # the first rule that matches decides
    /// match = "blk.*.ffn_down.weight"
    /// scheme = "q6_k"        # a scheme, a float type, or "keep"
    /// ```
    ///
    /// `match` is compared with the whole GGUF name and the whole name in the source; `*` stands for any characters, `?`
    /// for one. A scheme holds only for matrices that may be quantized at all; a float type for any tensor.
    pub fn from_toml(text: &str) -> Result<Recipe, Error> {
        let file = rules::File::parse(text)?;
        let mut recipe = match (file.base, file.default) {
            (Some(_), Some(_)) => {
                return Err(Error::Recipe("base and default both say what comes first: give one".into()));
            }
            (Some(base), None) => Recipe::named(&base)?,
            (None, Some(default)) => Recipe { file_type: None, ..Recipe::pure(element(&default)?) },
            (None, None) => Recipe::keep(),
        };
        recipe.rules = file.rules;
        Ok(recipe)
    }

    /// Names for [`Recipe::named`] whose main scheme can be encoded here, for help.
    pub fn names() -> Vec<&'static str> {
        let encodes = |name: &str| scheme(name).is_ok_and(|s| s.can_encode());
        let mut names = vec!["f32", "f16", "bf16"];
        names.extend(mixture::FILE_TYPES.iter().filter(|f| encodes(f.default)).map(|f| f.name));
        names.extend(mlx::MIXED.iter().map(|m| m.0));
        for scheme in schemes().iter().filter(|s| s.can_encode()) {
            if !names.contains(&scheme.name()) {
                names.push(scheme.name());
            }
        }
        names
    }

    /// What GGUF's `general.file_type` says of such a model, if the recipe has a number there.
    pub fn file_type(&self) -> Option<u32> {
        self.file_type
    }

    /// The element of each tensor, in the order given. Pass the whole model: some recipes count tensors of a kind as they
    /// go, layer by layer and by name within a layer, and ask whether there is an `output.weight`.
    ///
    /// Errors: a scheme that is not written here, or that needs an importance matrix where there is none.
    pub fn plan(&self, tensors: &[TensorFacts], model: &ModelFacts, target: Target) -> Result<Vec<Element>, Error> {
        let mut order: Vec<usize> = (0..tensors.len()).collect();
        order.sort_by(|a, b| visiting_order(tensors[*a].name, tensors[*b].name));
        let mut mixture = match self.base {
            Base::Mixture(file_type) => Some(mixture::Chooser::new(file_type, tensors, model)),
            _ => None,
        };
        let mut chosen: Vec<Option<Element>> = vec![None; tensors.len()];
        for index in order {
            let tensor = &tensors[index];
            let element = match self.rule(tensor) {
                Some(choice) => choice.apply(tensor, model, target)?,
                None => match (&self.base, &mut mixture) {
                    (_, Some(chooser)) => chooser.choose(tensor)?.map(|name| quantized(tensor, name)).transpose()?,
                    (Base::Float(dtype), _) => float_type(tensor, *dtype, target).map(Element::Plain),
                    (Base::Mlx(widths), _) => widths.choose(tensor, model),
                    (Base::Linear(scheme), _) => linear(tensor, *scheme),
                    (Base::Pure(scheme), _) => pure(tensor, *scheme, model)?,
                    _ => None,
                },
            };
            let element = element.unwrap_or_else(|| kept(tensor, target));
            if element != *tensor.element {
                writable(&element)?;
            }
            chosen[index] = Some(element);
        }
        Ok(chosen.into_iter().flatten().collect())
    }

    /// Patterns of the rules that mean none of `names`: probably a mistake.
    pub fn idle_rules(&self, names: &[&str]) -> Vec<String> {
        let idle = |rule: &&rules::Rule| !names.iter().any(|name| rule.means(name));
        self.rules.iter().filter(idle).map(rules::Rule::pattern).collect()
    }

    fn rule(&self, tensor: &TensorFacts) -> Option<&rules::Choice> {
        self.rules.iter().find(|r| r.matches(tensor)).map(|r| &r.choice)
    }
}

/// Tensors outside of blocks, then block by block; by name within.
fn visiting_order(a: &str, b: &str) -> Ordering {
    llama::block(a).cmp(&llama::block(b)).then_with(|| a.cmp(b))
}

/// A plain float type by its name.
fn float(name: &str) -> Option<DType> {
    match name {
        "f32" => Some(DType::F32),
        "f16" => Some(DType::F16),
        "bf16" => Some(DType::BF16),
        _ => None,
    }
}

/// The element of this name: a float type or a scheme.
fn element(name: &str) -> Result<Element, Error> {
    if let Some(dtype) = float(&name.to_lowercase()) {
        return Ok(dtype.into());
    }
    let scheme = scheme(name).map_err(|e| unknown(e, name))?;
    Ok(Packing { scheme, float: DType::F32 }.element())
}

/// Number of a file type in GGUF.
fn number(name: &str) -> Option<u32> {
    match name.to_lowercase().as_str() {
        "f32" => Some(0),
        "f16" => Some(1),
        "bf16" => Some(32),
        name => mixture::FileType::named(name).map(|f| f.number),
    }
}

/// An unknown scheme may be a misspelled recipe.
fn unknown(error: Error, name: &str) -> Error {
    match error {
        Error::Unknown { .. } => {
            let suggestion = nearest(name, Recipe::names().into_iter()).map(String::from);
            Error::Unknown { name: name.into(), suggestion }
        }
        other => other,
    }
}

fn packing(element: &Element) -> Option<Packing> {
    match element {
        Element::Packed(layout) => layout.as_any().downcast_ref::<Packing>().copied(),
        Element::Plain(_) => None,
    }
}

/// The scheme, or float type, of this name for a tensor. Scales that follow the model have its float type.
fn quantized(tensor: &TensorFacts, name: &str) -> Result<Element, Error> {
    match float(name) {
        Some(dtype) => Ok(dtype.into()),
        None => Ok(packed(tensor, scheme(name)?)),
    }
}

fn packed(tensor: &TensorFacts, scheme: SchemeRef) -> Element {
    if tensor.element.name() == scheme.name() {
        return tensor.element.clone();
    }
    let float = match (tensor.element.dtype(), packing(tensor.element)) {
        _ if scheme.family() == Family::Ggml => DType::F32,
        (Some(dtype @ (DType::F32 | DType::F16 | DType::BF16)), _) => dtype,
        (Some(DType::F64), _) => DType::F32,
        (Some(_), _) => DType::BF16,
        (None, Some(packing)) if packing.scheme.family() != Family::Ggml => packing.float,
        _ => DType::F16,
    };
    Packing { scheme, float }.element()
}

/// Whether a tensor holds real numbers, packed or not.
fn is_real(tensor: &TensorFacts) -> bool {
    tensor.element.dtype().is_none_or(|dtype| dtype.is_float())
}

/// A tensor that is not quantized.
fn kept(tensor: &TensorFacts, target: Target) -> Element {
    match tensor.element.dtype() {
        Some(dtype) if target == Target::Gguf && dtype.is_float() && llama::always_f32(tensor) => DType::F32.into(),
        Some(DType::F64) if target == Target::Gguf => DType::F32.into(),
        _ => tensor.element.clone(),
    }
}

/// A float type for all tensors of real numbers, as far as the target's conventions go.
fn float_type(tensor: &TensorFacts, dtype: DType, target: Target) -> Option<DType> {
    let exception = target == Target::Gguf && llama::always_f32(tensor);
    is_real(tensor).then_some(if exception { DType::F32 } else { dtype })
}

/// Linear layers of blocks, where the rows are whole blocks of the scheme; embeddings, heads and expert stacks stay.
fn linear(tensor: &TensorFacts, scheme: SchemeRef) -> Option<Element> {
    let columns = tensor.shape.last()?;
    let fits = tensor.shape.len() == 2 && columns % scheme.block() == 0;
    let inside = llama::block(tensor.name).is_some() && llama::may_quantize(tensor);
    (fits && inside && is_real(tensor)).then(|| packed(tensor, scheme))
}

/// One scheme for every matrix; GGML has a next best where a row is not whole blocks, others leave the matrix.
fn pure(tensor: &TensorFacts, scheme: SchemeRef, model: &ModelFacts) -> Result<Option<Element>, Error> {
    if !llama::may_quantize(tensor) {
        return Ok(None);
    }
    let columns = tensor.shape.last().copied().unwrap_or(0);
    if scheme.family() != Family::Ggml {
        return Ok((columns % scheme.block() == 0).then(|| packed(tensor, scheme)));
    }
    let name = llama::fitting(scheme.name(), columns);
    llama::check_importance(tensor, name, false, model)?;
    quantized(tensor, name).map(Some)
}

fn writable(element: &Element) -> Result<(), Error> {
    match packing(element) {
        Some(packing) if !packing.scheme.can_encode() => Err(Error::ReadOnly(packing.scheme.name())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
