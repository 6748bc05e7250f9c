//! Which files of a folder hold the model, and what each of them says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;
use windlass_tensor::{Limits, Metadata};

use super::header::{self, Header};
use super::index::{INDEX, Index};
use crate::{Error, Problem, SourceBuilder, adapter};

/// How the weight files of a folder are called.
pub struct Naming {
    /// The file that holds a whole model; it goes before an index, as it does in transformers.
    pub single: &'static str,
    pub index: &'static str,
    /// How the name of every weight file begins and ends.
    pub prefix: &'static str,
    pub extension: &'static str,
    /// How the weight file of an adapter may be called.
    pub adapters: &'static [&'static str],
}

/// Names of safetensors files.
pub const NAMING: Naming = Naming {
    single: "model.safetensors",
    index: INDEX,
    prefix: "",
    extension: ".safetensors",
    adapters: &[adapter::PEFT_WEIGHTS, adapter::MLX_WEIGHTS],
};

/// Most side files that are taken along; a model has about ten.
const SIDE_FILES: usize = 1000;

/// The headers of one file, or of all parts of a folder.
pub struct Headers {
    /// Path and checked header of each part, already added to the builder under the same number.
    pub parts: Vec<(PathBuf, Header)>,
    /// Of the first part that has one.
    pub metadata: Metadata,
}

/// Names of the parts of a folder, out of the names of all its files.
#[derive(Debug, PartialEq, Eq)]
pub enum Parts {
    /// The index says.
    Indexed,
    /// These files; no index is needed, or there is none.
    Named(Vec<String>),
    /// No weight file at all.
    None,
}

/// Finds the parts in the sorted names of a folder's files.
pub fn find_parts(files: &[String], naming: &Naming) -> Result<Parts, Problem> {
    let Naming { single, index, prefix, extension, adapters } = *naming;
    let has = |name: &str| contains(files, name);
    if has(single) {
        return Ok(Parts::Named(vec![single.into()]));
    }
    // Beside an adapter lie the checkpoints of its training, under names of their own.
    let adapter = adapters.iter().find(|name| has(name));
    if let Some(adapter) = adapter.filter(|_| has(adapter::CONFIG) && !has(index)) {
        return Ok(Parts::Named(vec![adapter.to_string()]));
    }
    if has(index) {
        return Ok(Parts::Indexed);
    }
    let weights: Vec<&String> = files.iter().filter(|f| f.starts_with(prefix) && f.ends_with(extension)).collect();
    let Some(first) = weights.first() else { return Ok(Parts::None) };
    let Some((stem, count)) = part_name(first, extension) else {
        if weights.len() == 1 {
            return Ok(Parts::Named(vec![first.to_string()]));
        }
        let kind = extension.trim_start_matches('.');
        let message = format!("{} {kind} files and no {index} that says which make up the model", weights.len());
        return Err(Problem::new("no-index", message).help("give the path of one of the files, or download the index"));
    };
    let names: Vec<String> =
        (1..=count.min(100_000)).map(|i| format!("{stem}-{i:05}-of-{count:05}{extension}")).collect();
    match names.iter().find(|name| !has(name)) {
        Some(missing) => Err(missing_part(missing)),
        None => Ok(Parts::Named(names)),
    }
}

/// Opens a file, or every part of a folder, and checks the headers and the index.
pub fn read(path: &Path, limits: &Limits, builder: &mut SourceBuilder) -> Result<Headers, Error> {
    if !path.is_dir() {
        let part = read_part(path, limits, builder)?;
        return Ok(Headers { metadata: part.metadata.clone(), parts: vec![(path.into(), part)] });
    }
    let files = crate::Probe::new(path)?.files;
    let (names, index) = part_names(path, &files, &NAMING, limits)?;
    let mut headers = Headers { parts: Vec::new(), metadata: Metadata::new() };
    for name in &names {
        let part = path.join(name);
        let header = read_part(&part, limits, builder)?;
        if headers.metadata.is_empty() {
            headers.metadata = header.metadata.clone();
        }
        headers.parts.push((part, header));
    }
    if let Some(index) = index {
        let tensors = |(name, (_, header)): (&'_ String, &'_ (PathBuf, Header))| {
            let name = name.clone();
            header.tensors.iter().map(|t| (name.clone(), t.name.clone())).collect::<Vec<_>>()
        };
        let found: Vec<(String, String)> = names.iter().zip(&headers.parts).flat_map(tensors).collect();
        let found: Vec<(&str, &str)> = found.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
        index.check(&found).map_err(|p| Error::refused(&path.join(INDEX), p))?;
    }
    side_files(path, &files, builder)?;
    Ok(headers)
}

/// Names of the parts of a folder, all of which exist, and its index where that says them.
pub fn part_names(
    path: &Path,
    files: &[String],
    naming: &Naming,
    limits: &Limits,
) -> Result<(Vec<String>, Option<Index>), Error> {
    let refuse = |problem| Error::refused(path, problem);
    let (names, index) = match find_parts(files, naming).map_err(refuse)? {
        Parts::Named(names) => (names, None),
        Parts::Indexed => {
            let index = read_index(path, naming, limits)?;
            (index.parts().into_iter().map(String::from).collect(), Some(index))
        }
        Parts::None => {
            let kind = naming.extension.trim_start_matches('.');
            return Err(refuse(Problem::new("no-weights", format!("the folder holds no {kind} file"))));
        }
    };
    match names.iter().find(|name| !contains(files, name)) {
        Some(missing) => Err(refuse(missing_part(missing))),
        None => Ok((names, index)),
    }
}

/// The config.json of a folder; `Null` where there is none, and for a file. What older programs say of quantization in a file of its
/// own is put where newer ones have it.
pub fn read_config(path: &Path, limits: &Limits) -> Result<Json, Error> {
    let mut config = read_json(&path.join("config.json"), limits)?;
    if let Some(all) = config.as_object_mut().filter(|all| !all.contains_key("quantization_config")) {
        for (file, method, inner) in OLDER {
            let said = read_json(&path.join(file), limits)?;
            let said = if inner.is_empty() { Some(&said) } else { said.get(inner) };
            if let Some(Json::Object(said)) = said {
                let mut said = said.clone();
                said.entry("quant_method").or_insert_with(|| method.into());
                all.insert("quantization_config".into(), said.into());
                break;
            }
        }
    }
    Ok(config)
}

/// Files in which libraries said what config.json says today, the library's name there, and the member that says it.
const OLDER: [(&str, &str, &str); 3] = [
    ("quantize_config.json", "gptq", ""),
    ("quant_config.json", "awq", ""),
    ("hf_quant_config.json", "modelopt", "quantization"),
];

/// A file that may be missing.
fn read_json(path: &Path, limits: &Limits) -> Result<Json, Error> {
    if !path.is_file() {
        return Ok(Json::Null);
    }
    let text = crate::files::read_small(path, limits.side_file_bytes)?;
    let refuse = |message: String| Error::refused(path, Problem::new("bad-json", message));
    crate::json::check_depth(&text, limits.nesting).map_err(refuse)?;
    // Python writes `Infinity`, which is not JSON: such a file has nothing to say here that could be read.
    Ok(serde_json::from_slice(&text).unwrap_or(Json::Null))
}

/// Reads and checks the index of a folder.
pub fn read_index(folder: &Path, naming: &Naming, limits: &Limits) -> Result<Index, Error> {
    let path = folder.join(naming.index);
    let text = crate::files::read_small(&path, limits.header_bytes)?;
    if let Some(problem) = header::not_a_model(&text, text.len() as u64) {
        return Err(Error::refused(&path, problem));
    }
    Index::of_parts(&text, naming.extension, limits).map_err(|p| Error::refused(&path, p))
}

/// Reads the header of one file without adding it to a source.
pub fn read_header(path: &Path, limits: &Limits) -> Result<(Arc<std::fs::File>, Header), Error> {
    let file = crate::files::open(path)?;
    let io = |e| Error::io(path, e);
    let refuse = |problem| Error::refused(path, problem);
    let length = file.metadata().map_err(io)?.len();
    let mut head = vec![0; length.min(64) as usize];
    crate::files::read_exact_at(&file, &mut head, 0).map_err(io)?;
    let mut text = vec![0; header::header_length(&head, length, limits).map_err(refuse)?];
    crate::files::read_exact_at(&file, &mut text, 8).map_err(io)?;
    let header = header::parse_header(&text, length, limits).map_err(refuse)?;
    Ok((Arc::new(file), header))
}

/// Adds the files beside the weights that describe the model.
pub fn side_files(folder: &Path, files: &[String], builder: &mut SourceBuilder) -> Result<(), Error> {
    let names = files.iter().filter(|name| is_side_file(name) && folder.join(name).is_file());
    for (i, name) in names.enumerate() {
        if i == SIDE_FILES {
            let problem = Problem::new("too-many-files", format!("more than {SIDE_FILES} side files"));
            return Err(Error::refused(folder, problem));
        }
        builder.side_file(name, folder.join(name));
    }
    // Modules after the model have a number and a name, and a configuration each.
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let modules = entries.filter_map(|entry| Some(format!("{}/config.json", entry.file_name().to_str()?)));
    for name in modules.filter(|name| is_module_file(name) && folder.join(name).is_file()).take(SIDE_FILES) {
        let path = folder.join(&name);
        builder.side_file(name, path);
    }
    Ok(())
}

/// Whether a name is that of the configuration of a module that sentence-transformers puts after a model:
/// `1_Pooling/config.json`.
pub fn is_module_file(name: &str) -> bool {
    let Some((number, kind)) = name.strip_suffix("/config.json").and_then(|folder| folder.split_once('_')) else {
        return false;
    };
    let short = |text: &str, most: usize| !text.is_empty() && text.len() <= most;
    let digits = short(number, 2) && number.bytes().all(|b| b.is_ascii_digit());
    digits && short(kind, 32) && kind.bytes().all(|b| b.is_ascii_alphabetic())
}

/// Whether a file of this name describes a model (configuration, tokenizer, licence) and is taken along.
pub fn is_side_file(name: &str) -> bool {
    const KINDS: [&str; 11] = ["json", "txt", "jinja", "md", "model", "py", "tiktoken", "bpe", "vocab", "yaml", "yml"];
    const NAMES: [&str; 3] = ["LICENSE", "LICENCE", "NOTICE"];
    let kind = name.rsplit_once('.').map_or("", |(_, kind)| kind);
    let known = KINDS.contains(&kind) || NAMES.iter().any(|n| name.to_uppercase().starts_with(n));
    known && !name.starts_with('.') && !name.ends_with(".index.json")
}

/// Whether a file of this name is of a model whatever else there is: weights, their index, or a file that the tools that
/// write models give that name. A text of any other name may be the user's own.
pub fn is_model_file(name: &str) -> bool {
    const NAMES: [&str; 20] = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "chat_template.jinja",
        "chat_template.json",
        "preprocessor_config.json",
        "processor_config.json",
        "adapter_config.json",
        "quantize_config.json",
        "README.md",
        "LICENSE",
        "LICENSE.txt",
        ".gitattributes",
    ];
    const WEIGHTS: [(&str, &str); 5] = [
        ("model", ".safetensors"),
        ("pytorch_model", ".bin"),
        ("weights", ".npz"),
        ("adapter_model", ".safetensors"),
        ("adapter_model", ".bin"),
    ];
    let numbered = |rest: &str| rest.bytes().all(|b| b.is_ascii_digit() || b"-.of".contains(&b));
    let weights = |(stem, kind): &(&str, &str)| {
        name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(kind)).is_some_and(numbered)
    };
    let code = ["configuration_", "modeling_", "tokenization_"].iter().any(|stem| name.starts_with(stem));
    NAMES.contains(&name)
        || WEIGHTS.iter().any(weights)
        || (name.ends_with(".index.json") && name.contains("model"))
        || (code && name.ends_with(".py"))
}

fn contains(sorted: &[String], name: &str) -> bool {
    sorted.binary_search_by(|file| file.as_str().cmp(name)).is_ok()
}

fn read_part(path: &Path, limits: &Limits, builder: &mut SourceBuilder) -> Result<Header, Error> {
    let (file, header) = read_header(path, limits)?;
    builder.part(path, file)?;
    Ok(header)
}

fn missing_part(name: &str) -> Problem {
    let message = format!("part {name:?} is missing: the model is half downloaded");
    Problem::new("missing-part", message).help(format!("download {name:?} again"))
}

/// Stem and number of parts of a name such as `model-00001-of-00003.safetensors`.
fn part_name<'a>(name: &'a str, extension: &str) -> Option<(&'a str, usize)> {
    let (rest, count) = name.strip_suffix(extension)?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    (digits(number) && digits(count)).then_some((stem, count.parse().ok()?)).filter(|(_, count)| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(files: &[&str]) -> Result<Parts, Problem> {
        find_parts(&files.iter().map(|f| f.to_string()).collect::<Vec<_>>(), &NAMING)
    }

    #[test]
    fn parts_are_found_by_name_and_a_missing_one_is_named() {
        assert_eq!(find(&["config.json"]), Ok(Parts::None));
        assert_eq!(find(&[NAMING.single, INDEX]), Ok(Parts::Named(vec![NAMING.single.into()])));
        assert_eq!(find(&["m-00001-of-00002.safetensors", INDEX]), Ok(Parts::Indexed));
        assert_eq!(find(&["adapter_model.safetensors"]), Ok(Parts::Named(vec!["adapter_model.safetensors".into()])));
        let two = ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"];
        assert_eq!(find(&two), Ok(Parts::Named(two.map(String::from).to_vec())));
        let problem = find(&two[1..]).unwrap_err();
        assert_eq!(problem.code, "missing-part");
        assert!(problem.message.contains(two[0]), "{problem}");
        assert_eq!(find(&["a.safetensors", "b.safetensors"]).unwrap_err().code, "no-index");
    }

    #[test]
    fn configurations_of_modules_are_known_by_their_folders() {
        assert!(is_module_file("1_Pooling/config.json") && is_module_file("2_Normalize/config.json"));
        for name in
            ["config.json", "_Pooling/config.json", "1_/config.json", "../1_Pooling/config.json", "/1_P/config.json"]
        {
            assert!(!is_module_file(name), "{name}");
        }
        for name in ["1_Pooling/other.json", "1_Pooling/../config.json", "111_Pooling/config.json", "1_a/b/config.json"]
        {
            assert!(!is_module_file(name), "{name}");
        }
    }

    #[test]
    fn files_of_models_are_told_from_those_of_users() {
        for name in [INDEX, "model-00001-of-00002.safetensors", "weights.00.npz", "config.json", "modeling_x.py"] {
            assert!(is_model_file(name), "{name}");
        }
        for name in ["notes.md", "thesis.txt", "model-mine.safetensors", "run.py", "results.json", "data.npz"] {
            assert!(!is_model_file(name), "{name}");
        }
    }

    #[test]
    fn side_files_are_those_that_describe_the_model() {
        for name in ["config.json", "tokenizer.model", "chat_template.jinja", "README.md", "LICENSE", "license.txt"] {
            assert!(is_side_file(name), "{name}");
        }
        for name in [INDEX, "model.safetensors", ".gitattributes", ".x.json", "pytorch_model.bin", "w.npz"] {
            assert!(!is_side_file(name), "{name}");
        }
    }
}
