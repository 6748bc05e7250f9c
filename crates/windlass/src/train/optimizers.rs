//! Optimizers and schedules as options ask for them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use windlass_nn::optim::{self, Optimizer};
use windlass_nn::schedule::Schedule;
use windlass_nn::{Group, Parameters};

use super::Options;
use crate::{Error, Result};

/// Numbers by name: a table of a file, or `NAME=NUMBER` of the command line. Yes is 1 and no is 0.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "Given")]
pub struct Numbers(pub BTreeMap<String, f64>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Given {
    Table(BTreeMap<String, Number>),
    Words(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Truth(bool),
    Number(f64),
}

impl TryFrom<Given> for Numbers {
    type Error = String;

    fn try_from(given: Given) -> std::result::Result<Self, String> {
        match given {
            Given::Table(table) => {
                let number = |number| match number {
                    Number::Truth(truth) => f64::from(u8::from(truth)),
                    Number::Number(number) => number,
                };
                Ok(Numbers(table.into_iter().map(|(name, value)| (name, number(value))).collect()))
            }
            Given::Words(words) => {
                words.iter().map(|word| setting(word)).collect::<std::result::Result<_, _>>().map(Numbers)
            }
        }
    }
}

fn setting(word: &str) -> std::result::Result<(String, f64), String> {
    let wrong = || format!("{word:?} is not NAME=NUMBER");
    let (name, value) = word.split_once('=').ok_or_else(wrong)?;
    let value = match value {
        "true" => 1.0,
        "false" => 0.0,
        number => number.parse().map_err(|_| wrong())?,
    };
    Ok((name.into(), value))
}

/// The optimizer of the options.
pub(super) fn optimizer(options: &Options) -> Result<Box<dyn Optimizer>> {
    let mut settings = options.optimizer_settings.0.clone();
    let keys = [
        ("beta1", options.beta1),
        ("beta2", options.beta2),
        ("epsilon", options.epsilon),
        // Decay is zero where nobody asks for it, whatever an optimizer begins with.
        ("weight_decay", Some(options.weight_decay.unwrap_or(0.0))),
    ];
    for (name, value) in keys {
        let Some(value) = value else { continue };
        if optim::knows(&options.optimizer, name) || (value != 0.0 && optim::known(&options.optimizer)) {
            settings.entry(name.into()).or_insert(value);
        }
    }
    optim::optimizer(&options.optimizer, &settings).map_err(|error| Error::usage(error.to_string()))
}

/// The schedule of the options.
pub(super) fn schedule(options: &Options, steps: u64) -> Result<Schedule> {
    let settings = &options.scheduler_settings.0;
    Schedule::new(&options.scheduler, settings, options.learning_rate, options.warmup_steps, steps)
        .map_err(|error| Error::usage(error.to_string()))
}

/// Puts parameters into the groups of the options: `PATTERN:NAME=NUMBER,...` with `rate`, `weight_decay` and `plain`. The last
/// pattern that matches counts.
pub(super) fn regroup(options: &Options, parameters: &mut Parameters) -> Result<()> {
    for text in &options.parameter_groups {
        let wrong = |message: String| Error::usage(format!("--parameter-groups {text:?}: {message}"));
        let (pattern, settings) = text.rsplit_once(':').ok_or_else(|| wrong("expected PATTERN:NAME=NUMBER".into()))?;
        let mut group = Group::default();
        for word in settings.split(';') {
            let (name, value) = setting(word).map_err(wrong)?;
            match name.as_str() {
                "rate" => group.rate = value,
                "weight_decay" => group.weight_decay = Some(value),
                "plain" => group.plain = value != 0.0,
                other => {
                    return Err(wrong(format!("no setting is called {other:?}; there are rate, weight_decay, plain")));
                }
            }
        }
        if parameters.regroup(pattern, &group) == 0 {
            let first = parameters.get(0).map(|p| p.name.clone()).unwrap_or_default();
            return Err(wrong(format!("no parameter matches; they are called like {first:?}")));
        }
    }
    Ok(())
}
