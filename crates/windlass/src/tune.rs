//! `tune`: measures which provider is the fastest for each op, and keeps the table for this machine.
//!
//! The table is a file of routes like any other, in the user's cache. Its name tells the build, the processor, its
//! instructions and the number of threads: where one of them changes, it is another table. Without the file the built-in
//! order holds.

use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use windlass_ops::route::{self, Layer, Measurement, Table};
use windlass_ops::{Context, Op};
use windlass_runtime::device::{Device, inventory};

use crate::{Code, Error, Result};

/// What was measured, and where the table is.
#[derive(Debug, Serialize)]
pub struct Report {
    pub path: PathBuf,
    pub device: &'static str,
    pub threads: usize,
    pub seconds: f64,
    /// Families of arguments for which another provider than the usual one is the fastest.
    pub changed: usize,
    pub measurements: Vec<Measurement>,
}

/// Measures ops, or `only` one of them, and writes the table, which is asked from then on. Lines of other ops stay.
pub fn tune(cx: &Context, only: Option<&'static Op>, progress: &dyn Fn(u64, u64) -> bool) -> Result<Report> {
    let start = Instant::now();
    let threads = cx.session().threads();
    let path = path(threads)?;
    let going = std::cell::Cell::new(true);
    let watch = |done, total| {
        going.set(progress(done, total));
        going.get()
    };
    let measurements = route::measure(cx, "cpu", only, &watch)?;
    if !going.get() {
        return Err(Error::new(Code::Failed, "interrupted: the table is as it was"));
    }
    write(&path, &text(&path, threads, only, &measurements))?;
    apply(threads)?;
    let changed = measurements.iter().filter(|m| m.best() != m.seconds.first().map(|first| first.0)).count();
    let seconds = start.elapsed().as_secs_f64();
    Ok(Report { path, device: "cpu", threads, seconds, changed, measurements })
}

/// Removes the table of this machine, so that the built-in order holds again. Says whether there was one.
pub fn forget(threads: usize) -> Result<(PathBuf, bool)> {
    let path = path(threads)?;
    route::clear(Layer::Measured);
    match std::fs::remove_file(&path) {
        Ok(()) => Ok((path, true)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok((path, false)),
        Err(error) => Err(Error::io(&path, error)),
    }
}

/// Has the routes heed the table of this machine, where there is one. A table that cannot be read is an error that says how
/// to be rid of it.
pub fn apply(threads: usize) -> Result<()> {
    let Some(path) = path(threads).ok().filter(|path| path.is_file()) else { return Ok(()) };
    let mut table = Table::read(&path)
        .map_err(|e| Error::from(e).at(&path).help("measure anew with `windlass tune`, or delete the file"))?;
    for line in &mut table.lines {
        line.source = format!("measured ({})", line.source).into();
    }
    route::set(Layer::Measured, table);
    Ok(())
}

/// Where the table of this machine is, or would be.
pub fn path(threads: usize) -> Result<PathBuf> {
    let mut hasher = std::hash::DefaultHasher::new();
    let host = inventory().devices.into_iter().find(|facts| facts.device == Device::CPU);
    let host = host.map(|host| (host.name, host.features)).unwrap_or_default();
    (env!("CARGO_PKG_VERSION"), host, threads).hash(&mut hasher);
    Ok(cache_folder()?.join(format!("measured-{:016x}.routes", hasher.finish())))
}

/// The folder of `WINDLASS_CACHE`, or the one that the system has for such things.
fn cache_folder() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || variable("HOME").or_else(|| variable("USERPROFILE"));
    let system = || {
        if cfg!(windows) {
            return variable("LOCALAPPDATA");
        }
        if cfg!(target_os = "macos") {
            return home().map(|home| home.join("Library/Caches"));
        }
        variable("XDG_CACHE_HOME").or_else(|| home().map(|home| home.join(".cache")))
    };
    variable("WINDLASS_CACHE").or_else(|| system().map(|folder| folder.join("windlass"))).ok_or_else(|| {
        Error::new(Code::Failed, "this user has no folder for caches").help("name one with WINDLASS_CACHE")
    })
}

/// The new table; where one op was measured, with the old lines of all others.
fn text(path: &Path, threads: usize, only: Option<&Op>, measurements: &[Measurement]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!(
        "# Measured by `windlass tune` (windlass {version}, {threads} threads). Delete this file to undo it.\n"
    );
    if let Some(op) = only {
        let old = std::fs::read_to_string(path).unwrap_or_default();
        let others = |line: &&str| !line.starts_with('#') && line.split_whitespace().next() != Some(op.name);
        old.lines().filter(others).for_each(|line| text.extend([line, "\n"]));
    }
    text + &route::table(measurements)
}

/// The file appears when it is complete.
fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    let written = std::fs::write(&partial, text).and_then(|()| std::fs::rename(&partial, path));
    written.map_err(|e| {
        let _ = std::fs::remove_file(&partial);
        Error::io(path, e)
    })
}
