//! Settings by name, as configurations give them.

use std::collections::BTreeMap;

use crate::Error;

/// One setting: a number; yes is 1 and no is 0.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub name: &'static str,
    pub default: f64,
    pub about: &'static str,
}

impl Setting {
    /// A setting and what holds where it is not given.
    pub const fn new(name: &'static str, default: f64, about: &'static str) -> Self {
        Self { name, default, about }
    }
}

/// The values of all settings of something.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings(BTreeMap<&'static str, f64>);

impl Settings {
    /// `given` over the defaults of `known`. A name that is not known is an error that names the nearest; `of` is what they
    /// belong to.
    pub fn new(of: &str, known: &'static [Setting], given: &BTreeMap<String, f64>) -> Result<Self, Error> {
        let mut values: BTreeMap<&'static str, f64> = known.iter().map(|s| (s.name, s.default)).collect();
        for (name, value) in given {
            let Some(slot) = values.get_mut(name.as_str()) else {
                let names: Vec<&str> = known.iter().map(|s| s.name).collect();
                let hint = match windlass_quant::nearest(name, names.iter().copied()) {
                    Some(nearest) => format!("; did you mean {nearest:?}?"),
                    None if names.is_empty() => "; it has none".into(),
                    None => format!("; there are {}", names.join(", ")),
                };
                return Err(Error::Setting(format!("{of} has no setting {name:?}{hint}")));
            };
            if !value.is_finite() {
                return Err(Error::Setting(format!("{name} of {of} must be a number, not {value}")));
            }
            *slot = *value;
        }
        Ok(Self(values))
    }

    /// The value of a setting; 0 where nobody knows it.
    pub fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Whether a setting is not 0.
    pub fn is(&self, name: &str) -> bool {
        self.get(name) != 0.0
    }

    /// The value of a setting that must be in a range.
    pub fn within(&self, name: &str, range: impl std::ops::RangeBounds<f64>) -> Result<f64, Error> {
        let value = self.get(name);
        if range.contains(&value) {
            return Ok(value);
        }
        let bound = |bound: std::ops::Bound<&f64>| match bound {
            std::ops::Bound::Included(v) => format!("{v}"),
            std::ops::Bound::Excluded(v) => format!("{v} (not itself)"),
            std::ops::Bound::Unbounded => "any".into(),
        };
        let (low, high) = (bound(range.start_bound()), bound(range.end_bound()));
        Err(Error::Setting(format!("{name} must be from {low} to {high}, not {value}")))
    }

    /// The value of a setting that counts something.
    pub fn count(&self, name: &str) -> Result<u64, Error> {
        let value = self.within(name, 0.0..=1e15)?;
        if value.fract() == 0.0 {
            return Ok(value as u64);
        }
        Err(Error::Setting(format!("{name} must be a whole number, not {value}")))
    }
}

/// The entry of a name in a registry, or an error that names the nearest one and all.
pub(crate) fn find<'a, T>(kind: &str, name: &str, all: &'a [T], name_of: impl Fn(&T) -> &str) -> Result<&'a T, Error> {
    if let Some(entry) = all.iter().find(|entry| name_of(entry) == name) {
        return Ok(entry);
    }
    let names: Vec<&str> = all.iter().map(name_of).collect();
    let hint = windlass_quant::nearest(name, names.iter().copied());
    let hint = hint.map(|nearest| format!("did you mean {nearest:?}? ")).unwrap_or_default();
    Err(Error::Setting(format!("no {kind} is called {name:?}; {hint}there are {}", names.join(", "))))
}
