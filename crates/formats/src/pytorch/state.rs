//! Finds the state dict in what a pickle made: tensors by name, scalars as metadata, and what is neither.

use std::collections::HashSet;

use windlass_tensor::{Limits, Metadata};

use super::pickle::{Object, Pickle, Tensor, Value};
use crate::Problem;
use crate::json::short;

/// Keys under which programs put the state dict into a larger dictionary, in the order in which they are tried.
const WRAPPERS: [&str; 5] = ["state_dict", "model_state_dict", "model", "module", "params"];
/// How often one wrapper may be in another.
const DEPTH: usize = 4;

/// A state dict.
#[derive(Debug)]
pub struct State<'p> {
    /// In the order of the dictionary.
    pub tensors: Vec<(&'p str, &'p Tensor)>,
    /// Numbers and texts beside the tensors and around them, as text.
    pub metadata: Metadata,
    /// Entries that are neither tensors nor scalars.
    pub skipped: Vec<Problem>,
}

/// Looks for the dictionary of tensors in the root of `pickle` and in the wrappers around it.
pub fn find<'p>(pickle: &'p Pickle<'p>, limits: &Limits) -> Result<State<'p>, Problem> {
    let mut state = State { tensors: Vec::new(), metadata: Metadata::new(), skipped: Vec::new() };
    let mut room = pickle.length;
    let mut current = pickle.root;
    for _ in 0..DEPTH {
        let members = members(pickle, current)?;
        if members.is_empty() && current == pickle.root || members.iter().any(|(_, v)| pickle.tensor(*v).is_some()) {
            collect(pickle, &members, &mut state, &mut room, limits)?;
            return Ok(state);
        }
        let wrapped = WRAPPERS.iter().find_map(|name| {
            let member = members.iter().find(|(key, value)| key == name && pickle.dict(*value).is_some());
            member.copied()
        });
        let Some((name, inner)) = wrapped else {
            let names: Vec<String> = members.iter().take(8).map(|(key, _)| format!("{:?}", short(key))).collect();
            let message = format!("holds no dictionary of tensors; its keys are {}", names.join(", "));
            return Err(
                Problem::new("no-tensors", message).help("save the state dict: torch.save(model.state_dict(), ...)")
            );
        };
        let around: Vec<_> = members.into_iter().filter(|(key, _)| *key != name).collect();
        collect(pickle, &around, &mut state, &mut room, limits)?;
        current = inner;
    }
    Err(Problem::new("no-tensors", format!("holds no dictionary of tensors within {DEPTH} dictionaries")))
}

/// The members of a dictionary under their names, each of which must be there once.
fn members<'p>(pickle: &'p Pickle<'p>, value: Value) -> Result<Vec<(&'p str, Value)>, Problem> {
    let help = "save a dictionary of tensors: torch.save(model.state_dict(), ...)";
    let Some(members) = pickle.dict(value) else {
        let message = format!("holds {} and not a dictionary of tensors", kind(pickle, value));
        return Err(Problem::new("no-tensors", message).help(help));
    };
    let mut seen = HashSet::with_capacity(members.len());
    let mut named = Vec::with_capacity(members.len());
    for (key, value) in members {
        let Some(name) = pickle.text(*key) else {
            let message = format!("a dictionary of tensors has a key that is {} and not a text", kind(pickle, *key));
            return Err(Problem::new("bad-key", message).help(help));
        };
        if !seen.insert(name) {
            return Err(Problem::new("duplicate-key", "the name is there twice").tensor(name));
        }
        named.push((name, *value));
    }
    Ok(named)
}

/// Sorts members into tensors, metadata and the rest. `room` is what names and texts may still have: a text that is
/// used many times must not become more than the file is.
fn collect<'p>(
    pickle: &'p Pickle<'p>,
    members: &[(&'p str, Value)],
    state: &mut State<'p>,
    room: &mut usize,
    limits: &Limits,
) -> Result<(), Problem> {
    for (name, value) in members {
        if let Some(tensor) = pickle.tensor(*value) {
            state.tensors.push((name, tensor));
            continue;
        }
        if *value == Value::None {
            continue;
        }
        if (state.metadata.len() + state.skipped.len()) as u64 >= limits.metadata_keys {
            let message = format!("more than {} entries that are no tensors", limits.metadata_keys);
            return Err(Problem::new("too-many-keys", message));
        }
        let text = pickle.text(*value).map_or(0, str::len);
        *room = room.checked_sub(text).ok_or_else(|| {
            Problem::new("too-large", "the texts beside the tensors are together larger than the pickle")
        })?;
        match scalar(pickle, *value) {
            Some(text) => state.metadata.set(*name, text),
            None => {
                let message = format!("is {}, which is not taken along", kind(pickle, *value));
                state.skipped.push(Problem::new("skipped-entry", message).tensor(name));
            }
        }
    }
    Ok(())
}

fn scalar(pickle: &Pickle, value: Value) -> Option<String> {
    match value {
        Value::Bool(b) => Some(b.to_string()),
        Value::Int(n) => Some(n.to_string()),
        Value::Float(x) => Some(x.to_string()),
        Value::Text(_) => pickle.text(value).map(String::from),
        _ => None,
    }
}

/// What a value is, for a message.
fn kind(pickle: &Pickle, value: Value) -> String {
    match (value, pickle.object(value)) {
        (_, Some(Object::Dict(members))) => format!("a dictionary of {} members", members.len()),
        (_, Some(Object::List(items))) => format!("a list of {} items", items.len()),
        (_, Some(Object::Tuple(items))) => format!("a tuple of {} items", items.len()),
        (_, Some(Object::Tensor(_))) => "a tensor".into(),
        (_, Some(Object::Storage(_))) => "a storage".into(),
        (Value::None, _) => "None".into(),
        (Value::Bool(_) | Value::Int(_) | Value::Long(_) | Value::Float(_), _) => "a number".into(),
        (Value::Text(_), _) => "a text".into(),
        (Value::Bytes, _) => "a string of bytes".into(),
        (Value::Global(global), _) => format!("{global:?}"),
        (Value::Object(_), None) => "nothing".into(),
    }
}
