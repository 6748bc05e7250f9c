//! Models in several files: each says which part it is, and opening any of them opens all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_tensor::{Limits, Metadata, Value};

use super::{add_tensors, header::Header, load};
use crate::{Error, Problem, Source, SourceBuilder};

pub(super) const NUMBER: &str = "split.no";
pub(super) const COUNT: &str = "split.count";
pub(super) const TENSORS: &str = "split.tensors.count";

/// Whether a key speaks of the files and not of the model; such keys are not part of an opened model's metadata.
pub(super) fn is_split_key(key: &str) -> bool {
    [NUMBER, COUNT, TENSORS].contains(&key)
}

/// What follows the stem in the name of a part; `number` counts from 0.
pub(super) fn suffix(number: usize, count: usize) -> String {
    format!("-{:05}-of-{count:05}.gguf", number + 1)
}

/// A file name `STEM-00001-of-00003.gguf`, taken apart; `number` counts from 0.
#[derive(Debug, PartialEq)]
pub(super) struct PartName<'a> {
    pub stem: &'a str,
    pub number: usize,
    pub count: usize,
}

impl<'a> PartName<'a> {
    pub fn parse(name: &'a str) -> Option<Self> {
        let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| match text.len() {
            5.. if text.bytes().all(|b| b.is_ascii_digit()) => text.parse::<usize>().ok(),
            _ => None,
        };
        let (number, count) = (digits(number)?.checked_sub(1)?, digits(count)?);
        (number < count).then_some(Self { stem, number, count })
    }
}

/// What the keys of one part say.
#[derive(Debug, PartialEq)]
struct Place {
    number: usize,
    count: usize,
    tensors: usize,
}

impl Place {
    /// `None` where the file is a whole model.
    fn of(metadata: &Metadata) -> Result<Option<Self>, Problem> {
        let number = |key: &str| match metadata.get(key) {
            None => Err(Problem::new("bad-split", format!("{COUNT} is there but {key} is not"))),
            Some(value) => {
                let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
                number.ok_or_else(|| Problem::new("bad-split", format!("{key} must be a number from 0, found {value}")))
            }
        };
        // Merging leaves a count of 0 behind.
        if metadata.get(COUNT).is_none() || number(COUNT)? < 2 {
            return Ok(None);
        }
        let place = Self { number: number(NUMBER)?, count: number(COUNT)?, tensors: number(TENSORS)? };
        if place.number >= place.count {
            let message = format!("{NUMBER} is {}, but {COUNT} is {}", place.number, place.count);
            return Err(Problem::new("bad-split", message));
        }
        Ok(Some(place))
    }
}

/// Opens the file at `path`, and the other parts of the model if it is split.
pub(super) fn open(path: &Path, limits: &Limits) -> Result<Source, Error> {
    let (file, header) = load(path, limits)?;
    let mut builder = SourceBuilder::new("gguf", header.version().to_string(), path, limits);
    let Some(place) = Place::of(header.metadata()).map_err(|p| Error::refused(path, p))? else {
        let part = builder.part(path, Arc::new(file))?;
        let (metadata, tensors) = header.into_parts();
        builder.metadata(of_the_model(metadata));
        add_tensors(&mut builder, part, tensors)?;
        return Ok(builder.build());
    };
    drop((file, header));
    let mut whole = Metadata::new();
    let mut found = 0;
    for (number, part_path) in part_paths(path, &place, limits)?.iter().enumerate() {
        let (file, header) = load(part_path, limits).map_err(|e| missing(e, path, number, place.count))?;
        belongs(&header, &whole, number, &place).map_err(|problem| Error::refused(part_path, problem))?;
        let part = builder.part(part_path, Arc::new(file))?;
        let (metadata, tensors) = header.into_parts();
        found += tensors.len();
        whole = joined(whole, metadata);
        add_tensors(&mut builder, part, tensors)?;
    }
    if found != place.tensors {
        let message = format!("the parts have {found} tensors together, expected {} ({TENSORS})", place.tensors);
        return Err(Error::refused(path, Problem::new("bad-split", message).help("download all parts again")));
    }
    builder.metadata(whole);
    Ok(builder.build())
}

/// Paths of all parts, from the name of one of them.
fn part_paths(path: &Path, place: &Place, limits: &Limits) -> Result<Vec<PathBuf>, Error> {
    let refuse = |message: String, help: &str| Err(Error::refused(path, Problem::new("bad-split", message).help(help)));
    if place.count > limits.parts {
        return refuse(format!("{} parts, at most {} are allowed", place.count, limits.parts), "merge them first");
    }
    let name = path.file_name().and_then(|n| n.to_str()).and_then(PartName::parse);
    let message = format!("it is part {} of {}, and its name does not say so", place.number + 1, place.count);
    let help = format!("name the parts STEM{} and so on", suffix(0, place.count));
    match name {
        Some(name) if name.number == place.number && name.count == place.count => Ok((0..place.count)
            .map(|n| path.with_file_name(format!("{}{}", name.stem, suffix(n, name.count))))
            .collect()),
        _ => refuse(message, &help),
    }
}

fn missing(error: Error, path: &Path, number: usize, count: usize) -> Error {
    match error {
        Error::Io { path: part, source } if source.kind() == std::io::ErrorKind::NotFound => {
            let given = path.file_name().unwrap_or_default().to_string_lossy();
            let message = format!("part {} of {count} is missing; it must lie beside {given}", number + 1);
            let problem = Problem::new("missing-part", message);
            Error::refused(&part, problem.help("download all parts into one folder"))
        }
        other => other,
    }
}

/// Checks that a file is part `number` of the model that `place` and the `whole` so far speak of.
fn belongs(header: &Header, whole: &Metadata, number: usize, place: &Place) -> Result<(), Problem> {
    let other = |message: String| {
        let problem = Problem::new("wrong-part", format!("is not part {} of this model: {message}", number + 1));
        Err(problem.help("keep the parts of different models in different folders"))
    };
    let expected = Place { number, count: place.count, tensors: place.tensors };
    match Place::of(header.metadata())? {
        Some(found) if found == expected => {}
        Some(found) => return other(format!("expected {}, found {}", describe(&expected), describe(&found))),
        None => return other("it is a whole model".into()),
    }
    let key = "general.architecture";
    match (whole.get(key), header.metadata().get(key)) {
        (Some(expected), Some(found)) if expected != found => {
            other(format!("expected {key} {expected}, found {found}"))
        }
        _ => Ok(()),
    }
}

fn describe(place: &Place) -> String {
    format!("{NUMBER} {} of {} with {} tensors", place.number, place.count, place.tensors)
}

/// Metadata without the keys that speak of the files.
pub(super) fn of_the_model(mut metadata: Metadata) -> Metadata {
    for key in [NUMBER, COUNT, TENSORS] {
        metadata.remove(key);
    }
    metadata
}

/// Keys of all parts; the first part that has a key decides.
fn joined(whole: Metadata, part: Metadata) -> Metadata {
    let part = of_the_model(part);
    if whole.is_empty() {
        return part;
    }
    let seen: std::collections::HashSet<&str> = whole.iter().map(|(key, _)| key).collect();
    let fresh: Vec<(String, Value)> = part
        .iter()
        .filter(|(key, _)| !seen.contains(key))
        .map(|(key, value)| (key.to_string(), value.clone()))
        .collect();
    if fresh.is_empty() {
        return whole;
    }
    let all = whole.iter().map(|(key, value)| (key.to_string(), value.clone())).chain(fresh).collect();
    // Both have unique keys, and those of the second that the first has were left out.
    Metadata::from_entries(all).unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_names_are_taken_apart() {
        let part = PartName::parse("a-b-00002-of-00003.gguf").unwrap();
        assert_eq!(part, PartName { stem: "a-b", number: 1, count: 3 });
        assert_eq!(format!("a-b{}", suffix(1, 3)), "a-b-00002-of-00003.gguf");
        for bad in
            ["a.gguf", "a-00000-of-00003.gguf", "a-00004-of-00003.gguf", "a-1-of-3.gguf", "a-0000x-of-00003.gguf"]
        {
            assert_eq!(PartName::parse(bad), None, "{bad}");
        }
    }
}
