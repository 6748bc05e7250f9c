//! `merge`: adapters into a base, streamed as a conversion is: each tensor decoded, changed, encoded, in bounded memory.

mod adapters;
mod places;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::convert::{self, Conversion, Edit, Edited, Options, Plan, Watch};
use crate::{Error, Model, Result};
use adapters::Adapters;

/// An adapter, and what its change is multiplied with beside its own scale.
#[derive(Clone, Debug)]
pub struct Adapted {
    pub path: PathBuf,
    pub scale: f64,
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
