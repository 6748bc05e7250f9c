//! Who knows how to look for devices and libraries, and what they find.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Device, Facts, cpu};
use crate::Error;

/// What this machine has and lacks.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// The host first.
    pub devices: Vec<Facts>,
    pub libraries: Vec<Library>,
    pub missing: Vec<Missing>,
}

/// A library that is loaded at run time, such as MPI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    pub name: &'static str,
    pub version: String,
}

/// A kind of device, or a library, that is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    pub name: &'static str,
    pub reason: String,
}

/// Asks every probe anew. Memory that is free changes; so may everything else.
pub fn inventory() -> Inventory {
    lock().inventory()
}

/// Makes a kind of device known. `probe` gives its devices, or the reason why there is none ("libcuda.so.1 cannot be
/// loaded"); a panic inside counts as a reason. An error if the kind is known already.
pub fn register_probe(
    kind: &'static str,
    probe: impl Fn() -> Result<Vec<Facts>, String> + Send + 'static,
) -> Result<(), Error> {
    lock().add(kind, Probe::Devices(Box::new(probe)))
}

/// Makes a library known. `probe` gives its version, or the reason why it cannot be used. As [`register_probe`].
pub fn register_library(
    name: &'static str,
    probe: impl Fn() -> Result<String, String> + Send + 'static,
) -> Result<(), Error> {
    lock().add(name, Probe::Library(Box::new(probe)))
}

/// Kinds of devices that have a name: what may be asked for, here or not.
pub(super) fn kinds() -> Vec<&'static str> {
    lock().kinds()
}

/// Kinds and libraries that people ask for; without a probe they are missing because nothing here looks for them.
const KINDS: [&str; 3] = ["cpu", "cuda", "wgpu"];
const LIBRARIES: [&str; 2] = ["mpi", "nccl"];

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { probes: Vec::new() });

#[derive(Default)]
struct Registry {
    probes: Vec<(&'static str, Probe)>,
}

enum Probe {
    Devices(Box<dyn Fn() -> Result<Vec<Facts>, String> + Send>),
    Library(Box<dyn Fn() -> Result<String, String> + Send>),
}

fn lock() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    fn add(&mut self, name: &'static str, probe: Probe) -> Result<(), Error> {
        if name == Device::CPU.kind() || self.has(name) {
            return Err(Error::Argument(format!("a probe for {name:?} is registered already")));
        }
        let letters = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase());
        if name.is_empty() || !letters(name) {
            return Err(Error::Argument(format!("names of devices and libraries are small letters, found {name:?}")));
        }
        self.probes.push((name, probe));
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.probes.iter().any(|(known, _)| *known == name)
    }

    fn kinds(&self) -> Vec<&'static str> {
        let registered = self.probes.iter().filter(|(_, probe)| matches!(probe, Probe::Devices(_)));
        let others = registered.map(|(name, _)| *name).filter(|name| !KINDS.contains(name));
        KINDS.into_iter().chain(others).collect()
    }

    fn inventory(&self) -> Inventory {
        let mut all = Inventory { devices: vec![cpu::facts()], ..Inventory::default() };
        for (name, probe) in &self.probes {
            let reason = match probe {
                Probe::Devices(probe) => match guarded(probe) {
                    Ok(found) if found.is_empty() => Some("there is none".into()),
                    Ok(found) => {
                        all.devices.extend(found);
                        None
                    }
                    Err(reason) => Some(reason),
                },
                Probe::Library(probe) => {
                    guarded(probe).map(|version| all.libraries.push(Library { name, version })).err()
                }
            };
            all.missing.extend(reason.map(|reason| Missing { name, reason }));
        }
        for name in KINDS.into_iter().chain(LIBRARIES).filter(|name| *name != "cpu" && !self.has(name)) {
            all.missing.push(Missing { name, reason: "nothing in this program looks for it".into() });
        }
        all
    }
}

/// Runs a probe. Bindings of vendors' libraries are known to panic where the library is not there.
fn guarded<T>(probe: impl Fn() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(probe)).unwrap_or_else(|panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<&str>().map(|s| s.to_string()).or_else(|| panic.downcast_ref().cloned());
        Err(text.unwrap_or_else(|| "the search for it failed".into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(index: u32) -> Facts {
        Facts { device: Device::new("cuda", index), name: "GPU".into(), ..cpu::facts() }
    }

    #[test]
    fn what_is_found_is_listed_and_what_is_not_has_a_reason() {
        let mut registry = Registry::default();
        registry.add("cuda", Probe::Devices(Box::new(|| Ok(vec![gpu(0), gpu(1)])))).unwrap();
        registry.add("wgpu", Probe::Devices(Box::new(|| Err("no adapter".into())))).unwrap();
        registry.add("npu", Probe::Devices(Box::new(|| panic!("libnpu.so cannot be loaded")))).unwrap();
        registry.add("tpu", Probe::Devices(Box::new(|| Ok(Vec::new())))).unwrap();
        registry.add("nccl", Probe::Library(Box::new(|| Ok("2.27.3".into())))).unwrap();
        let inventory = registry.inventory();
        let names: Vec<String> = inventory.devices.iter().map(|facts| facts.device.to_string()).collect();
        assert_eq!(names, ["cpu", "cuda:0", "cuda:1"]);
        assert_eq!(inventory.libraries, [Library { name: "nccl", version: "2.27.3".into() }]);
        let missing: Vec<_> = inventory.missing.iter().map(|m| (m.name, m.reason.as_str())).collect();
        let expected = [
            ("wgpu", "no adapter"),
            ("npu", "libnpu.so cannot be loaded"),
            ("tpu", "there is none"),
            ("mpi", "nothing in this program looks for it"),
        ];
        assert_eq!(missing, expected);
        assert_eq!(registry.kinds(), ["cpu", "cuda", "wgpu", "npu", "tpu"]);
    }

    #[test]
    fn a_kind_has_one_probe_and_a_plain_name() {
        let mut registry = Registry::default();
        let probe = || Probe::Devices(Box::new(|| Ok(Vec::new())));
        assert!(registry.add("cpu", probe()).is_err());
        registry.add("npu", probe()).unwrap();
        assert!(registry.add("npu", probe()).is_err());
        assert!(registry.add("", probe()).is_err() && registry.add("npu:0", probe()).is_err());
    }

    #[test]
    fn a_registered_kind_can_be_named() {
        assert!("abacus:1".parse::<Device>().is_err());
        register_probe("abacus", || Err("the beads are gone".into())).unwrap();
        assert_eq!("abacus:1".parse::<Device>().unwrap(), Device::new("abacus", 1));
        let missing = inventory().missing;
        assert!(missing.iter().any(|m| m.name == "abacus" && m.reason == "the beads are gone"));
        register_library("loom", || Err("no thread".into())).unwrap();
        assert!(inventory().missing.iter().any(|m| m.name == "loom"));
    }
}
