//! Event files for TensorBoard: what `metrics.jsonl` says, under `OUT/tensorboard`.

use std::path::Path;

use windlass_runtime::monitor::EventFile;
use windlass_train::StepReport;

use crate::{Error, Result};

/// What the names of event files of ours have in them.
const OURS: &str = ".windlass.";

/// Writes the file of this run. Those of earlier runs are removed: the steps that count are written again.
pub struct Events {
    file: EventFile,
}

impl Events {
    /// Begins anew in `folder`.
    pub fn begin(folder: &Path) -> Result<Events> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?.flatten() {
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with("events.out.tfevents.") && name.contains(OURS)) {
                std::fs::remove_file(entry.path()).map_err(|e| Error::io(&entry.path(), e))?;
            }
        }
        Ok(Events { file: EventFile::create(folder).map_err(|e| Error::io(folder, e))? })
    }

    /// Adds a step; readers see it.
    pub fn add(&mut self, report: &StepReport) -> Result<()> {
        let values = [
            ("train/loss", report.loss),
            ("train/learning_rate", report.learning_rate),
            ("train/grad_norm", report.grad_norm),
            ("train/tokens_per_second", report.tokens_per_second),
            ("train/peak_memory_bytes", report.peak_memory_bytes as f64),
        ];
        let eval = report.eval_loss.map(|loss| ("eval/loss", loss));
        let mut written = values.into_iter().chain(eval);
        let written = written.try_for_each(|(tag, value)| self.file.scalar(tag, report.step, value as f32));
        written.and_then(|()| self.file.flush()).map_err(|e| Error::io(self.file.path(), e))
    }
}
