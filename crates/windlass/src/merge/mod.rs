//! `merge`: adapters into a base, or models into one, streamed as a conversion is: each tensor decoded, changed, encoded, in
//! bounded memory.

mod adapters;
mod models;
mod places;
mod rules;

use std::path::{Path, PathBuf};

use serde::Serialize;
use windlass_edit::models::Blend;

use crate::convert::{self, Conversion, Edit, Edited, Options, Plan, Watch};
use crate::{Error, Model, Result};
use adapters::Adapters;
use models::Models;
use rules::Rules;

pub use windlass_edit::models::{METHODS, Method};

/// An adapter, and what its change is multiplied with beside its own scale.
#[derive(Clone, Debug)]
pub struct Adapted {
    pub path: PathBuf,
    pub scale: f64,
}

/// A model, how much it counts, and the share of its changes that is used (by methods that use a share).
#[derive(Clone, Debug)]
pub struct Weighted {
    pub path: PathBuf,
    pub weight: f64,
    pub density: f64,
}

/// How models are made into one.
#[derive(Clone, Debug)]
pub struct How {
    pub method: Method,
    /// Whether weights are divided by their sum; by default as the method does.
    pub normalize: Option<bool>,
    /// What the sum of changes of a base is multiplied with.
    pub lambda: f64,
    /// Of what is dropped at random.
    pub seed: u64,
    /// Other weights for tensors of some names (TOML).
    pub rules: Option<PathBuf>,
}

impl Default for How {
    fn default() -> Self {
        How { method: Method::Linear, normalize: None, lambda: 1.0, seed: 0, rules: None }
    }
}

/// A merge that was planned and can be run.
pub struct Merge {
    conversion: Conversion,
}

/// What a merge did.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub conversion: convert::Report,
    /// Every tensor that was changed.
    pub merged: Vec<Edited>,
    /// Root mean square of all changes over that of the new values.
    pub relative_change: f64,
    /// Root mean square of what storing the changed tensors lost over that of their values.
    pub relative_error: f64,
}

impl Merge {
    /// Plans to merge adapters into a base, one after the other. Reads headers, writes nothing.
    ///
    /// # Errors
    /// As a conversion's, and if an adapter is for another base: the tensor, what was expected and what was found are named.
    pub fn adapters(base: &Path, adapters: &[Adapted], target: &Path, options: Options) -> Result<Merge> {
        if adapters.is_empty() {
            return Err(Error::usage("there is nothing to merge").help("name an adapter: --adapter DIR"));
        }
        let open = |adapted: &Adapted| Ok((Model::open(&adapted.path, &options.limits)?, adapted.scale));
        let models = adapters.iter().map(open).collect::<Result<Vec<_>>>()?;
        let edit = |plain: &convert::Plain| -> Result<Option<Box<dyn Edit>>> {
            if plain.model.adapter.is_some() {
                let message = format!("{} is an adapter, and not a base", plain.model.source.path().display());
                return Err(Error::usage(message).help("name the model first: windlass merge BASE OUT --adapter A"));
            }
            Ok(Some(Box::new(Adapters::find(models, plain)?)))
        };
        let options = options.clone();
        Ok(Merge { conversion: Conversion::plan_edited(base, target, options, edit)? })
    }

    /// Plans to make models into one. Configuration, tokenizer and what is not a float come from the base, or from the first model
    /// where the method needs none.
    ///
    /// # Errors
    /// As a conversion's; if settings are out of range; if architectures, tokens or shapes differ: tensor, expected and found are
    /// named.
    pub fn models(
        base: Option<&Path>,
        models: &[Weighted],
        how: &How,
        target: &Path,
        options: Options,
    ) -> Result<Merge> {
        let method = how.method;
        let (first, others) = match (base, models) {
            (Some(base), others) if method.needs_base() => (base, others),
            (None, [first, others @ ..]) if !method.needs_base() => (first.path.as_path(), others),
            (Some(_), _) => return Err(Error::usage("this method joins models as they are, and takes no --base")),
            (None, _) => {
                let message = "this method adds up what models have learned beyond their base";
                return Err(Error::usage(message).help("name the model that they were trained from: --base MODEL"));
            }
        };
        if others.is_empty() {
            return Err(Error::usage("there is only one model, and nothing to merge it with"));
        }
        let blend = Blend {
            method,
            weights: models.iter().map(|m| m.weight).collect(),
            densities: models.iter().map(|m| m.density).collect(),
            normalize: how.normalize.unwrap_or(method.normalizes()),
            lambda: how.lambda,
            seed: how.seed,
        };
        if let Some(problem) = blend.problem() {
            return Err(Error::usage(problem));
        }
        let rules =
            how.rules.as_deref().map(|path| Rules::read(path, &options.limits)).transpose()?.unwrap_or_default();
        let open = |model: &Weighted| Model::open(&model.path, &options.limits);
        let others = others.iter().map(open).collect::<Result<Vec<_>>>()?;
        let limits = options.limits.clone();
        let edit = |plain: &convert::Plain| -> Result<Option<Box<dyn Edit>>> {
            if plain.model.adapter.is_some() {
                let message = format!("{} is an adapter, and not a model", plain.model.source.path().display());
                return Err(Error::usage(message).help("adapters are named by --adapter, without --method"));
            }
            Ok(Some(Box::new(Models::find(others, plain, &blend, &rules, &limits)?)))
        };
        Ok(Merge { conversion: Conversion::plan_edited(first, target, options.clone(), edit)? })
    }

    /// What it will do.
    pub fn describe(&self) -> Plan {
        self.conversion.describe()
    }

    /// Does it. The target appears when all of it is written.
    pub fn run(self, watch: &Watch) -> Result<Report> {
        let mut conversion = self.conversion.run(watch)?;
        let merged = std::mem::take(&mut conversion.edited);
        let (relative_change, relative_error) =
            (conversion.edited_sum.relative_change(), conversion.edited_sum.relative_error());
        Ok(Report { conversion, merged, relative_change, relative_error })
    }
}
