//! Devices: what this machine really has, and what it lacks and why.
//!
//! The host knows only itself. Providers and process groups tell how to look for what they know with
//! [`register_probe`] and [`register_library`]; [`inventory`] asks them all. [`register_probes`] looks for what drivers and
//! vendors' libraries bring.
//!
//! ```
//! use windlass_runtime::device::{Device, inventory};
//!
//! let inventory = inventory();
//! assert!(inventory.devices[0].device == Device::CPU);
//! for missing in &inventory.missing {
//!     println!("{}: {}", missing.name, missing.reason);
//! }
//! ```

mod cgroup;
mod cpu;
mod policy;
mod probes;
mod registry;

use std::fmt;
use std::str::FromStr;

use windlass_tensor::DType;

use crate::Error;

pub use policy::{Policy, Redirect, Resolver, Site};
pub use probes::register_probes;
pub use registry::{Inventory, Library, Missing, inventory, register_library, register_probe};

/// A place with memory: `cpu`, `cuda:0`, `wgpu:0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device {
    kind: &'static str,
    index: u32,
}

/// What is true of a device. What the system does not tell is `None` or missing from a list, never guessed.
#[derive(Clone, Debug)]
pub struct Facts {
    pub device: Device,
    /// The maker's name for it.
    pub name: String,
    pub memory: Memory,
    pub processors: Processors,
    /// Smallest level first.
    pub caches: Vec<Cache>,
    /// Instruction sets or capabilities, by the maker's names.
    pub features: Vec<String>,
    /// Element types that it has arithmetic for; others must be converted first.
    pub dtypes: Vec<DType>,
    /// What else there is to know: version of the driver, limits of the container.
    pub details: Vec<(&'static str, String)>,
}

/// Memory of a device, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What this process may have at most: of the machine, or of its container if that allows less.
    pub total: Option<u64>,
    /// What it may have now.
    pub free: Option<u64>,
}

/// Processors of a device: cores of a CPU, multiprocessors of a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Processors {
    /// That the device has and are switched on.
    pub present: Option<usize>,
    /// That this process may run on.
    pub allowed: Option<usize>,
    /// Time that the container may use, in processors.
    pub quota: Option<f64>,
}

/// One level of cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    pub level: u32,
    /// `Data`, `Instruction` or `Unified`.
    pub kind: String,
    /// Bytes of one such cache.
    pub bytes: u64,
    /// Bytes of one line.
    pub line: Option<u64>,
    /// Processors that share one such cache.
    pub shared_by: usize,
}

impl Device {
    /// The host.
    pub const CPU: Device = Device { kind: "cpu", index: 0 };

    /// Device `index` of a kind, which a provider made known.
    pub const fn new(kind: &'static str, index: u32) -> Device {
        Device { kind, index }
    }

    /// Its kind: `cpu`, `cuda`, `wgpu`, or what a provider brings.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Which one of its kind.
    pub fn index(&self) -> u32 {
        self.index
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Device::CPU => f.write_str("cpu"),
            Device { kind, index } => write!(f, "{kind}:{index}"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    /// Reads `cpu`, `cuda` (the first), `cuda:1`. Whether it is there is another question: see [`Resolver`].
    fn from_str(text: &str) -> Result<Device, Error> {
        let (name, index) = text.split_once(':').map_or((text, None), |(name, index)| (name, Some(index)));
        let kinds = registry::kinds();
        let Some(kind) = kinds.iter().copied().find(|kind| *kind == name) else {
            let remedy = match meant(name) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("devices are called {}, with a number as in \"cuda:0\"", kinds.join(", ")),
            };
            return Err(Error::Argument(format!("no device is called {text:?}; {remedy}")));
        };
        let digits = |index: &str| !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
        let number = index.map_or(Some(0), |index| if digits(index) { index.parse().ok() } else { None });
        match number {
            Some(index) if kind != "cpu" || index == 0 => Ok(Device { kind, index }),
            Some(_) => Err(Error::Argument(format!("there is one cpu, found {text:?}; all its cores are \"cpu\""))),
            None => Err(Error::Argument(format!("a device is a kind and a number as in \"{kind}:0\", found {text:?}"))),
        }
    }
}

/// What somebody who wrote `name` may have meant.
fn meant(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let bare = lower.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-' || c == '_');
    let number = lower.get(bare.len()..).unwrap_or_default().trim_start_matches(['-', '_']);
    let kind = match bare {
        "gpu" | "nvidia" | "cudnn" | "cdua" | "cuad" | "cud" => "cuda",
        "mps" | "metal" | "vulkan" | "dx" | "webgpu" | "wgsl" | "xpu" | "rocm" | "hip" => "wgpu",
        "host" | "x86" | "arm" => "cpu",
        kind => registry::kinds().into_iter().find(|known| *known == kind)?,
    };
    // `dx12` has a number that is none.
    let numbered = kind != "cpu" && bare != "dx" && !number.is_empty();
    Some(if numbered { format!("{kind}:{number}") } else { kind.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (text, kind, index) in [("cpu", "cpu", 0), ("cuda:3", "cuda", 3), ("wgpu:0", "wgpu", 0)] {
            let device: Device = text.parse().unwrap();
            assert_eq!((device.kind(), device.index(), device.to_string().as_str()), (kind, index, text));
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::new("cuda", 0));
        assert_eq!("cpu:0".parse::<Device>().unwrap(), Device::CPU);
    }

    #[test]
    fn mistakes_come_with_a_suggestion() {
        let error = |text: &str| text.parse::<Device>().unwrap_err().to_string();
        assert_eq!(error("gpu"), "no device is called \"gpu\"; did you mean \"cuda\"?");
        assert_eq!(error("CUDA"), "no device is called \"CUDA\"; did you mean \"cuda\"?");
        assert_eq!(error("cuda1"), "no device is called \"cuda1\"; did you mean \"cuda:1\"?");
        assert_eq!(error("mps"), "no device is called \"mps\"; did you mean \"wgpu\"?");
        assert!(error("tpu").starts_with("no device is called \"tpu\"; devices are called cpu, cuda, wgpu"));
        assert_eq!(error("cpu:1"), "there is one cpu, found \"cpu:1\"; all its cores are \"cpu\"");
        for text in ["cuda:", "cuda:-1", "cuda:+1", "cuda:99999999999", "cuda:1:2", "cuda:x"] {
            assert!(error(text).starts_with("a device is a kind and a number"), "{text}");
        }
        assert!(error("").starts_with("no device is called \"\""));
    }
}
