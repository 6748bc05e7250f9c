//! Routes as tables, for people.

use serde::Serialize;

use super::{Question, candidates, tables};
use crate::{Op, ops};

/// One way that calls of an op may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    pub op: &'static str,
    pub device: String,
    /// Of the largest input; `*`: any.
    pub dtype: String,
    /// Values of the first output, as a range in a table is written; `*`: any.
    pub size: String,
    pub provider: &'static str,
    /// `built-in`, or file and line.
    pub source: String,
}

/// For each op, or for `only`: each line of a table that names it, in the order in which they are asked, then the
/// built-in preference.
pub fn overview(device: &str, only: Option<&'static Op>) -> Vec<Route> {
    let mut routes = Vec::new();
    for op in ops().iter().filter(|op| only.is_none_or(|o| o.name == op.name)) {
        for line in tables().iter().flat_map(|table| table.lines.iter()).filter(|line| line.names(op.name)) {
            let (from, to) = line.size;
            let end = if to == usize::MAX { String::new() } else { to.to_string() };
            let size = if (from, to) == (0, usize::MAX) { "*".into() } else { format!("{from}..{end}") };
            routes.extend(line.providers.iter().map(|provider| Route {
                op: op.name,
                device: line.device.clone().unwrap_or_else(|| "*".into()),
                dtype: line.dtype.clone().unwrap_or_else(|| "*".into()),
                size: size.clone(),
                provider,
                source: line.source.to_string(),
            }));
        }
        // No line fits an empty dtype and no size but those without conditions: what is left is the built-in order.
        let question = Question { op: op.name, device, dtype: "", values: 0 };
        let built_in = candidates(&question).into_iter().filter(|c| &*c.source == "built-in");
        routes.extend(built_in.map(|candidate| Route {
            op: op.name,
            device: device.into(),
            dtype: "*".into(),
            size: "*".into(),
            provider: candidate.provider,
            source: candidate.source.to_string(),
        }));
    }
    routes
}

/// The providers that a call is offered to, the preferred one first.
pub fn explain(op: &'static Op, device: &str, dtype: &str, values: usize) -> Vec<Route> {
    let question = Question { op: op.name, device, dtype, values };
    let found = candidates(&question).into_iter();
    found
        .map(|candidate| Route {
            op: op.name,
            device: device.into(),
            dtype: dtype.to_lowercase(),
            size: values.to_string(),
            provider: candidate.provider,
            source: candidate.source.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_op_has_a_route_and_the_reference_is_the_last() {
        for op in ops() {
            assert_eq!(explain(op, "cpu", "f32", 7).last().unwrap().provider, "reference");
            assert_eq!(overview("cpu", Some(op)).last().unwrap().op, op.name);
        }
        assert_eq!(explain(ops()[0], "nowhere", "f32", 1), []);
    }
}
