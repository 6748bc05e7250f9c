//! What happens when a program asks for a device that is not here.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::{Device, Inventory, Missing};
use crate::Error;

/// What to do about a device that is not here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// It is an error.
    #[default]
    Strict,
    /// The next best device takes its place, and the record says so.
    Redirect,
}

/// Where a program asked for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    pub file: String,
    pub line: u32,
    /// What it was asked for.
    pub op: String,
}

/// A device that took the place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    pub wanted: Device,
    pub given: Device,
    pub site: Site,
    pub why: String,
    /// How often this site asked.
    pub count: u64,
}

/// Answers requests for devices by a policy, and keeps the record.
pub struct Resolver {
    policy: Policy,
    present: Vec<Device>,
    missing: Vec<Missing>,
    records: Mutex<Vec<Redirect>>,
}

impl Resolver {
    /// Sites that the record keeps.
    pub const MOST_RECORDS: usize = 4096;

    /// Answers from what `inventory` found.
    pub fn new(policy: Policy, inventory: &Inventory) -> Resolver {
        let present = inventory.devices.iter().map(|facts| facts.device).collect();
        Resolver { policy, present, missing: inventory.missing.clone(), records: Mutex::default() }
    }

    /// The device that serves a request for `wanted`: itself if it is here. Otherwise an error that says why it is not;
    /// or, under [`Policy::Redirect`], the first of its kind, else the first device that is not the host, else the host.
    pub fn resolve(&self, wanted: Device, site: Site) -> Result<Device, Error> {
        if self.present.contains(&wanted) {
            return Ok(wanted);
        }
        let why = self.why_not(wanted);
        if self.policy == Policy::Strict {
            let present: Vec<String> = self.present.iter().map(Device::to_string).collect();
            let Site { file, line, op } = site;
            let message = format!("{op} at {file}:{line} asks for {wanted}: {why}; there is {}", present.join(", "));
            return Err(Error::Argument(message));
        }
        let first = |choose: &dyn Fn(&&Device) -> bool| self.present.iter().find(choose).copied();
        let given = first(&|device| device.kind() == wanted.kind())
            .or_else(|| first(&|device| **device != Device::CPU))
            .unwrap_or(Device::CPU);
        self.record(Redirect { wanted, given, site, why, count: 1 });
        Ok(given)
    }

    /// Every redirection so far, in the order of the first request of its site.
    pub fn records(&self) -> Vec<Redirect> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn why_not(&self, wanted: Device) -> String {
        let here = self.present.iter().filter(|device| device.kind() == wanted.kind()).count();
        match self.missing.iter().find(|missing| missing.name == wanted.kind()) {
            Some(missing) => missing.reason.clone(),
            None if here == 1 => format!("there is only one {}", wanted.kind()),
            None => format!("there are {here} of its kind"),
        }
    }

    fn record(&self, redirect: Redirect) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let room = records.len() < Self::MOST_RECORDS;
        match records.iter_mut().find(|r| r.wanted == redirect.wanted && r.site == redirect.site) {
            Some(known) => known.count += 1,
            None if room => records.push(redirect),
            None => {}
        }
    }
}

impl Site {
    /// The line of Rust that calls this.
    #[track_caller]
    pub fn here(op: impl Into<String>) -> Site {
        let caller = std::panic::Location::caller();
        Site { file: caller.file().into(), line: caller.line(), op: op.into() }
    }
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Redirect { wanted, given, site: Site { file, line, op }, why, count } = self;
        write!(f, "{op} at {file}:{line} asked for {wanted} and got {given}: {why}")?;
        if *count > 1 { write!(f, " ({count} times)") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Facts;
    use super::*;

    fn inventory(devices: &[Device]) -> Inventory {
        let facts = |device: &Device| Facts { device: *device, ..super::super::cpu::facts() };
        let reason = "libcuda.so.1 cannot be loaded".to_string();
        let cuda = devices.iter().any(|device| device.kind() == "cuda");
        let missing = if cuda { Vec::new() } else { vec![Missing { name: "cuda", reason }] };
        Inventory { devices: devices.iter().map(facts).collect(), missing, ..Inventory::default() }
    }

    fn site(line: u32) -> Site {
        Site { file: "train.py".into(), line, op: "Tensor.to".into() }
    }

    #[test]
    fn strict_is_an_error_that_says_why() {
        let strict = Resolver::new(Policy::Strict, &inventory(&[Device::CPU]));
        let error = strict.resolve(Device::new("cuda", 0), site(7)).unwrap_err().to_string();
        assert_eq!(error, "Tensor.to at train.py:7 asks for cuda:0: libcuda.so.1 cannot be loaded; there is cpu");
        assert_eq!(strict.resolve(Device::CPU, site(8)).unwrap(), Device::CPU);
        assert!(strict.records().is_empty());
    }

    #[test]
    fn a_redirection_takes_the_nearest_device_and_is_on_record() {
        let (cuda, wgpu) = (Device::new("cuda", 0), Device::new("wgpu", 0));
        for (present, wanted, given, why) in [
            (vec![Device::CPU], cuda, Device::CPU, "libcuda.so.1 cannot be loaded"),
            (vec![Device::CPU, wgpu], cuda, wgpu, "libcuda.so.1 cannot be loaded"),
            (vec![Device::CPU, cuda, wgpu], Device::new("cuda", 3), cuda, "there is only one cuda"),
            (vec![Device::CPU, cuda], Device::new("npu", 0), cuda, "there are 0 of its kind"),
        ] {
            let resolver = Resolver::new(Policy::Redirect, &inventory(&present));
            assert_eq!(resolver.resolve(wanted, site(1)).unwrap(), given);
            assert_eq!(resolver.resolve(Device::CPU, site(2)).unwrap(), Device::CPU, "the host is never exchanged");
            resolver.resolve(wanted, site(1)).unwrap();
            let [record] = &resolver.records()[..] else { panic!() };
            assert_eq!((record.wanted, record.given, record.why.as_str(), record.count), (wanted, given, why, 2));
            let expected = format!("Tensor.to at train.py:1 asked for {wanted} and got {given}: {why} (2 times)");
            assert_eq!(record.to_string(), expected);
        }
    }

    #[test]
    fn a_site_knows_its_line_and_the_record_is_bounded() {
        let here = Site::here("matmul");
        assert_eq!((here.line, here.op.as_str()), (line!() - 1, "matmul"));
        assert!(here.file.ends_with("policy.rs"));
        let resolver = Resolver::new(Policy::Redirect, &inventory(&[Device::CPU]));
        (0..5000).for_each(|line| drop(resolver.resolve(Device::new("cuda", 0), site(line))));
        assert_eq!(resolver.records().len(), Resolver::MOST_RECORDS);
    }
}
