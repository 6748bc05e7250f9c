//! `quickstart`: makes a small model on the spot and shows the main jobs on it.

mod lessons;
mod model;
mod story;

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use crate::convert::{Conversion, Options, Watch};
use crate::verify::{self, verify};
use crate::{Code, Error, Model, Result, diff};

pub use model::make;

/// A file that says that the models beside it were made by a tour.
const MARKER: &str = "made-by-quickstart.txt";

/// What was shown.
#[derive(Debug, Serialize)]
pub struct Tour {
    #[serde(serialize_with = "crate::lossy")]
    pub folder: PathBuf,
    pub steps: Vec<Step>,
}

/// One job, and how it went.
#[derive(Debug, Default, Serialize)]
pub struct Step {
    pub name: String,
    /// The command that does the same.
    pub command: String,
    pub seconds: f64,
    pub ok: bool,
    /// Bytes of the model on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub megabytes_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_relative_error: Option<f64>,
    /// Signal to noise of the worst tensor against the first model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst_sqnr_db: Option<f64>,
    /// Tensors equal to the first model's, and tensors compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identical: Option<(usize, usize)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// Of the first step of training, and of the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<(f64, f64)>,
    /// Of training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// Answers that were right, and questions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right: Option<(usize, usize)>,
    /// What the model said to the first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// Runs the tour in `folder`, replacing what an earlier tour left there. `show` sees each step as it ends.
///
/// `options` give memory, threads, and whether to replace models of these names that no tour made. With `lessons`, a second model is
/// trained, quantized, taught more and merged.
pub fn quickstart(
    folder: &Path,
    options: &Options,
    watch: &Watch,
    lessons: bool,
    show: &dyn Fn(&Step),
) -> Result<Tour> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let marker = folder.join(MARKER);
    let names = ["tiny-qwen3", "tiny-q4_k_m.gguf", "tiny-mlx4", "tiny-back", "tiny-bf16.gguf", "tiny-again"];
    let there = names.into_iter().chain(lessons::NAMES).map(|name| folder.join(name)).find(|path| path.exists());
    if let Some(path) = there.filter(|_| !marker.exists() && !options.overwrite) {
        let message = format!("{} exists already, and no quickstart made it", path.display());
        return Err(Error::new(Code::Failed, message).at(&path).help("choose another --out, or add --overwrite"));
    }
    std::fs::write(&marker, "The models beside this file are replaced by the next `windlass quickstart`.\n")
        .map_err(|e| Error::io(&marker, e))?;
    let text = folder.join("text.txt");
    std::fs::write(&text, model::CORPUS).map_err(|e| Error::io(&text, e))?;
    let examples = folder.join("examples.jsonl");
    std::fs::write(&examples, model::examples()).map_err(|e| Error::io(&examples, e))?;
    let mut tour = Tour { folder: folder.into(), steps: Vec::new() };
    let mut add = |step: Step| {
        show(&step);
        tour.steps.push(step);
    };
    let path = |name: &str| folder.join(name);
    let original = path("tiny-qwen3");
    let start = Instant::now();
    if original.exists() {
        std::fs::remove_dir_all(&original).map_err(|e| Error::io(&original, e))?;
    }
    make(&original)?;
    let made = Model::open(&original, &options.limits)?;
    let seconds = start.elapsed().as_secs_f64();
    add(Step {
        name: "make a small Qwen3 model".into(),
        seconds,
        ok: true,
        bytes: Some(made.source.bytes()),
        ..Step::default()
    });
    add(check(&original, options)?);
    let jobs = [
        ("quantize to GGUF", original.clone(), path("tiny-q4_k_m.gguf"), Some("q4_k_m")),
        ("GGUF to MLX, 4 bits", path("tiny-q4_k_m.gguf"), path("tiny-mlx4"), Some("mlx4-g64")),
        ("MLX back to Hugging Face", path("tiny-mlx4"), path("tiny-back"), None),
        ("to GGUF without loss", original.clone(), path("tiny-bf16.gguf"), Some("bf16")),
        ("and back", path("tiny-bf16.gguf"), path("tiny-again"), None),
    ];
    for (name, from, to, scheme) in jobs {
        add(convert(name, &from, &to, scheme, options, watch)?);
        add(check(&to, options)?);
        add(compare(&original, &to, options)?);
    }
    add(same_files(&original, &path("tiny-again"))?);
    if lessons {
        lessons::run(folder, options, watch, &mut add)?;
    }
    Ok(tour)
}

fn convert(name: &str, from: &Path, to: &Path, scheme: Option<&str>, options: &Options, watch: &Watch) -> Result<Step> {
    let scheme_flag = scheme.map(|s| format!(" --scheme {s}")).unwrap_or_default();
    let options = Options { scheme: scheme.map(String::from), overwrite: true, ..options.clone() };
    let report = Conversion::plan(from, to, options)?.run(watch)?;
    Ok(Step {
        name: name.into(),
        command: format!("windlass convert {} {}{scheme_flag}", from.display(), to.display()),
        seconds: report.seconds,
        ok: true,
        bytes: Some(report.bytes_out),
        megabytes_per_second: Some(report.bytes_in as f64 / 1e6 / report.seconds.max(1e-9)),
        max_relative_error: Some(report.max_relative_error),
        peak_memory_bytes: Some(report.peak_memory_bytes),
        ..Step::default()
    })
}

fn check(path: &Path, options: &Options) -> Result<Step> {
    let start = Instant::now();
    let model = Model::open(path, &options.limits)?;
    let (limits, memory_limit) = (options.limits.clone(), options.memory_limit);
    let verdict = verify(&model, &verify::Options { deep: true, limits, memory_limit, progress: &|_, _| {} })?;
    if let Some(problem) = verdict.problems.first() {
        return Err(Error::new(Code::Refused, format!("{}: {}", path.display(), problem.message)).at(path));
    }
    let (name, command) = ("verify".into(), format!("windlass verify {} --deep", path.display()));
    Ok(Step { name, command, seconds: start.elapsed().as_secs_f64(), ok: true, ..Step::default() })
}

fn compare(a: &Path, b: &Path, options: &Options) -> Result<Step> {
    let start = Instant::now();
    let (first, second) = (Model::open(a, &options.limits)?, Model::open(b, &options.limits)?);
    let difference = diff::diff(&first, &second, options.memory_limit, &|_, _| {})?;
    let same = difference.tensors.iter().filter(|t| t.identical).count();
    Ok(Step {
        name: "compare with the original".into(),
        command: format!("windlass diff {} {}", a.display(), b.display()),
        seconds: start.elapsed().as_secs_f64(),
        ok: difference.only_in_a.is_empty() && difference.only_in_b.is_empty(),
        worst_sqnr_db: difference.tensors.iter().filter_map(|t| t.sqnr_db).min_by(f64::total_cmp),
        identical: Some((same, difference.tensors.len())),
        ..Step::default()
    })
}

/// There and back is equal: every file, byte for byte.
fn same_files(a: &Path, b: &Path) -> Result<Step> {
    let start = Instant::now();
    let read = |path: PathBuf| std::fs::read(&path).map_err(|e| Error::io(&path, e));
    let mut equal = 0;
    let mut all = 0;
    for entry in std::fs::read_dir(a).map_err(|e| Error::io(a, e))? {
        let name = entry.map_err(|e| Error::io(a, e))?.file_name();
        all += 1;
        equal += usize::from(read(a.join(&name))? == read(b.join(&name))?);
    }
    let (name, command) =
        (format!("{equal} of {all} files are equal to the byte"), format!("diff -r {} {}", a.display(), b.display()));
    Ok(Step { name, command, seconds: start.elapsed().as_secs_f64(), ok: equal == all, ..Step::default() })
}
