//! What every command shares: global flags, progress, the way results and errors are printed.

use clap::builder::FalseyValueParser;
use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use windlass::runtime::{monitor, system};
use windlass::{Error, Result, tensor::Limits};

use crate::size;

/// Flags of every command.
#[derive(Args, Clone, Debug)]
pub struct Globals {
    /// Print one JSON document on standard output, and nothing else there
    #[arg(long, global = true, env = "WINDLASS_JSON", value_parser = FalseyValueParser::new(), help_heading = "Global")]
    pub json: bool,
    /// No progress
    #[arg(short, long, global = true, env = "WINDLASS_QUIET", value_parser = FalseyValueParser::new(), help_heading = "Global")]
    pub quiet: bool,
    /// Say more on standard error
    #[arg(short, long, global = true, env = "WINDLASS_VERBOSE", value_parser = FalseyValueParser::new(), help_heading = "Global")]
    pub verbose: bool,
    /// How many threads compute [default: all processors]
    #[arg(long, global = true, env = "WINDLASS_THREADS", value_name = "N", help_heading = "Global")]
    pub threads: Option<usize>,
    /// Where to compute; this build has `cpu`
    #[arg(long, global = true, env = "WINDLASS_DEVICE", value_name = "D", help_heading = "Global")]
    pub device: Option<String>,
    /// A table of routes: which provider computes what
    #[arg(long, global = true, env = "WINDLASS_ROUTES", value_name = "FILE", help_heading = "Global")]
    pub routes: Option<std::path::PathBuf>,
    /// Memory to stay within, such as 512MiB or 4GB [default: 512MiB to convert, all of the machine's to run]
    #[arg(long, global = true, env = "WINDLASS_MEMORY_LIMIT", value_name = "SIZE", value_parser = size::parse,
        help_heading = "Global")]
    pub memory_limit: Option<u64>,
    /// Write what was computed when, for Perfetto or chrome://tracing; with --verbose also a table
    #[arg(long, global = true, env = "WINDLASS_TRACE", value_name = "FILE", help_heading = "Global")]
    pub trace: Option<std::path::PathBuf>,
    /// A file of defaults for these flags [default: windlass.toml, if there is one]
    #[arg(long, global = true, env = "WINDLASS_CONFIG", value_name = "FILE", help_heading = "Global")]
    pub config: Option<std::path::PathBuf>,
}

/// What a command runs with.
pub struct Context {
    pub globals: Globals,
    pub limits: Limits,
    /// Set by Ctrl-C and SIGTERM.
    stop: Arc<AtomicBool>,
    /// Whether the command looks at `stop`; one that does not is ended at once.
    heeds: Arc<AtomicBool>,
    /// Whether a document with the error was printed.
    told: AtomicBool,
    /// What is to be in the trace, where it is not everything up to the end.
    recorded: Mutex<Option<monitor::Recording>>,
}

impl Context {
    /// Checks the global flags and listens for Ctrl-C.
    pub fn new(globals: Globals) -> Result<Context> {
        if let Some(device) = globals.device.as_deref().filter(|d| *d != "cpu") {
            return Err(
                Error::usage(format!("device {device:?} is not supported by this build")).help("use --device cpu")
            );
        }
        if globals.threads == Some(0) {
            return Err(Error::usage("--threads must be at least 1"));
        }
        if let Some(path) = &globals.trace {
            if path.exists() {
                let error = Error::new(windlass::Code::Failed, format!("{} exists already", path.display()));
                return Err(error.at(path).help("choose another name for the trace"));
            }
            // A trace that cannot be written is known before anything is computed.
            std::fs::File::create(path).map_err(|e| Error::io(path, e))?;
            monitor::start(monitor::DEFAULT_CAPACITY);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let heeds = Arc::new(AtomicBool::new(false));
        let (flag, waits) = (stop.clone(), heeds.clone());
        let handler = move || {
            // The second time, the user does not want to wait.
            if flag.swap(true, Ordering::Relaxed) || !waits.load(Ordering::Relaxed) {
                std::process::exit(130);
            }
        };
        ctrlc::set_handler(handler).map_err(|e| Error::new(windlass::Code::Failed, e.to_string()))?;
        Ok(Context {
            globals,
            limits: Limits::default(),
            stop,
            heeds,
            told: AtomicBool::new(false),
            recorded: Mutex::new(None),
        })
    }

    /// The flag that Ctrl-C sets, for a command that stops by itself when it is set.
    pub fn heed_stop(&self) -> &AtomicBool {
        self.heeds.store(true, Ordering::Relaxed);
        &self.stop
    }

    /// Lets Ctrl-C end the command at once again.
    pub fn ignore_stop(&self) {
        self.heeds.store(false, Ordering::Relaxed);
    }

    /// Memory that a conversion may take.
    pub fn memory_limit(&self) -> u64 {
        self.globals.memory_limit.unwrap_or(512 << 20)
    }

    /// Number of threads to use.
    pub fn threads(&self) -> usize {
        self.globals.threads.unwrap_or_else(system::processors)
    }

    /// Computes with ops on the threads that were asked for, with one provider for all if one is named.
    pub fn compute<R>(&self, provider: Option<&str>, work: impl FnOnce(&windlass::ops::Context) -> R) -> Result<R> {
        self.routes()?;
        windlass::runtime::scheduler::set_threads(self.threads())?;
        let provider = provider.map(windlass::ops::provider_name).transpose()?;
        Ok(windlass::ops::Context::here(|cx| match provider {
            Some(name) => work(&windlass::ops::Context::new(cx.session()).with_provider(name)),
            None => work(cx),
        }))
    }

    /// Registers the providers and sets the routes that were asked for.
    pub fn routes(&self) -> Result<()> {
        use windlass::ops::route::{Layer, Table, set};
        windlass::register_providers();
        windlass::tune::apply(self.threads())?;
        if let Some(path) = &self.globals.routes {
            set(Layer::File, Table::read(path)?);
        }
        Ok(())
    }

    /// Prints a result: as JSON if asked for, else as `text` writes it.
    pub fn print<T: Serialize>(
        &self,
        result: &T,
        text: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<()> {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        let written = if self.globals.json {
            serde_json::to_writer(&mut out, result).map_err(std::io::Error::from).and_then(|()| writeln!(out))
        } else {
            text(&mut out)
        };
        match written.and_then(|()| out.flush()) {
            // A reader that has seen enough (`| head`) is not a failure.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(|e| Error::new(windlass::Code::Failed, format!("standard output: {e}"))),
        }
    }

    /// Prints a result, and fails where a gate was not met. There is one JSON document either way: that of a failure is
    /// the result with `error` in it.
    pub fn judge<T: Serialize>(
        &self,
        result: &T,
        verdict: Result<()>,
        text: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<()> {
        match verdict {
            Err(error) if self.globals.json => {
                let mut document = serde_json::to_value(result).unwrap_or_default();
                if let Some(object) = document.as_object_mut() {
                    object.insert("error".into(), failure(&error));
                }
                self.print(&document, |_| Ok(()))?;
                self.told.store(true, Ordering::Relaxed);
                Err(error)
            }
            verdict => self.print(result, text).and(verdict),
        }
    }

    /// Ends the trace, if there is one, and writes it.
    pub fn finish(&self) -> Result<()> {
        let Some(path) = &self.globals.trace else { return Ok(()) };
        let kept = self.recorded.lock().unwrap_or_else(|e| e.into_inner()).take();
        let recording = kept.unwrap_or_else(monitor::stop);
        let file = std::fs::File::create(path).map_err(|e| Error::io(path, e))?;
        recording.write_trace(std::io::BufWriter::new(file)).map_err(|e| Error::io(path, e))?;
        if self.globals.verbose {
            self.say(recording.summary().to_string().trim_end());
        }
        self.say(&format!("{} spans are in {}: open it at ui.perfetto.dev", recording.spans.len(), path.display()));
        match recording.dropped {
            0 => Ok(()),
            dropped => {
                self.say(&format!("warning: {dropped} records had no place in the trace"));
                Ok(())
            }
        }
    }

    /// Records nothing yet, where there is to be a trace.
    pub fn pause_trace(&self) {
        drop(monitor::stop());
    }

    /// Begins to record again.
    pub fn resume_trace(&self) {
        monitor::start(monitor::DEFAULT_CAPACITY);
    }

    /// Ends the recording: that is what will be in the trace.
    pub fn end_trace(&self) {
        *self.recorded.lock().unwrap_or_else(|e| e.into_inner()) = Some(monitor::stop());
    }

    /// Prints an error, unless a document has it already, and gives its exit code.
    pub fn fail(&self, error: &Error) -> ExitCode {
        match self.told.load(Ordering::Relaxed) {
            true => ExitCode::from(error.code as u8),
            false => fail(error, self.globals.json),
        }
    }

    /// A text as an argument gives it; `-` reads standard input.
    pub fn text(&self, argument: String) -> Result<String> {
        if argument != "-" {
            return Ok(argument);
        }
        let limit = self.limits.string_bytes;
        let mut text = String::new();
        let read = std::io::stdin().take(limit + 1).read_to_string(&mut text);
        read.map_err(|e| Error::new(windlass::Code::Failed, format!("standard input: {e}")))?;
        if text.len() as u64 > limit {
            let message = format!("standard input has more than {limit} bytes");
            return Err(Error::new(windlass::Code::Refused, message));
        }
        Ok(text)
    }

    /// A note for people, on standard error.
    pub fn say(&self, text: &str) {
        if !self.globals.quiet {
            eprintln!("{text}");
        }
    }

    /// A progress bar in bytes; a line now and then where standard error is no terminal.
    pub fn progress(&self, what: &'static str) -> Progress {
        self.progress_in(what, "")
    }

    /// A progress bar in `unit`; empty: bytes.
    pub fn progress_in(&self, what: &'static str, unit: &'static str) -> Progress {
        let silent = self.globals.quiet || self.globals.json;
        let terminal = std::io::stderr().is_terminal();
        let hidden = silent || !terminal;
        let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(10) };
        let template = match unit {
            "" => "{prefix} {bar:32} {bytes}/{total_bytes}  {binary_bytes_per_sec}  {eta} left".to_string(),
            unit => format!("{{prefix}} {{bar:32}} {{pos}}/{{len}} {unit}  {{per_sec}}  {{eta}} left"),
        };
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(None, target).with_style(style).with_prefix(what);
        let next = (!silent && !terminal).then(|| Mutex::new(FIRST));
        Progress { bar, what, unit, next, start: Instant::now() }
    }
}

/// How long work takes before its progress is shown.
const FIRST: Duration = Duration::from_millis(500);
/// How long it is between two lines of progress.
const BETWEEN: Duration = Duration::from_secs(3);

/// A progress bar that appears when the work takes longer than half a second.
pub struct Progress {
    bar: ProgressBar,
    what: &'static str,
    /// What is counted; empty: bytes.
    unit: &'static str,
    /// When to print the next line, after the start; `None` where lines are not wanted.
    next: Option<Mutex<Duration>>,
    start: Instant,
}

impl Progress {
    /// Shows `done` of `total`.
    pub fn show(&self, done: u64, total: u64) {
        let elapsed = self.start.elapsed();
        if elapsed <= FIRST {
            return;
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
        let Some(Ok(mut next)) = self.next.as_ref().map(|next| next.lock()) else { return };
        if elapsed >= *next && done < total {
            *next = elapsed + BETWEEN;
            eprintln!("{}", line(self.what, self.unit, done, total, elapsed));
        }
    }
}

/// `convert 35% 412 MB/s 3 s left`.
fn line(what: &str, unit: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let (percent, rate) = (100 * u128::from(done) / u128::from(total.max(1)), done as f64 / elapsed.as_secs_f64());
    let left = if done == 0 { "?".into() } else { format!("{:.0} s", ((total - done) as f64 / rate).ceil()) };
    let rate = if unit.is_empty() { size::show(rate as u64) } else { format!("{rate:.0} {unit}") };
    format!("{what} {percent}% {rate}/s {left} left")
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Prints an error and gives its exit code.
pub fn fail(error: &Error, json: bool) -> ExitCode {
    if json {
        let document = serde_json::json!({"error": failure(error)});
        // Where standard output cannot be written, the exit code still tells.
        let _ = writeln!(std::io::stdout(), "{document}");
    } else {
        eprintln!("error: {}", error.message);
        if let Some(help) = &error.help {
            eprintln!("help: {help}");
        }
    }
    ExitCode::from(error.code as u8)
}

/// An error as scripts see it.
fn failure(error: &Error) -> serde_json::Value {
    serde_json::json!({
        "code": error.code.name(),
        "message": error.message,
        "path": error.path.as_ref().map(|path| path.to_string_lossy()),
        "tensor": error.tensor,
        "offset": error.offset,
        "help": error.help,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_progress_says_how_far_how_fast_and_how_long() {
        let second = Duration::from_secs(1);
        assert_eq!(line("convert", "", 350_000_000, 1_000_000_000, second), "convert 35% 350 MB/s 2 s left");
        assert_eq!(line("verify", "", 0, 10, second), "verify 0% 0 B/s ? left");
        assert_eq!(line("eval", "tokens", 50, 100, second), "eval 50% 50 tokens/s 1 s left");
    }
}
