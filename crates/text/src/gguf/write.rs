//! From a tokenizer.json and its companions to the keys of a GGUF, as llama.cpp's converter writes them.

use std::collections::HashMap;

use serde_json::{Map, Value};
use windlass_tensor::{Array, Limits, Metadata};

use super::pre::{self, Found};
use super::vocabulary::Type;
use super::{SPACE, SPECIAL, byte_of, key, merges};
use crate::hf::HfFiles;
use crate::json::{self, sequence};
use crate::{Error, validate};

/// Writes the `tokenizer.*` keys for a model whose embedding has `vocabulary` rows.
///
/// The second value lists what GGUF cannot say, in sentences for the user: a reader of this GGUF alone would tokenize some texts
/// differently. `architecture` is the GGUF's `general.architecture`.
pub fn to_gguf(
    files: &HfFiles,
    vocabulary: usize,
    architecture: &str,
    limits: &Limits,
) -> Result<(Metadata, Vec<String>), Error> {
    let mut tokenizer = json::parse("tokenizer.json", &files.tokenizer_json, limits)?;
    let facts = validate::check(&mut tokenizer, limits)?;
    let mut writer = Writer {
        config: optional(&files.tokenizer_config_json, "tokenizer_config.json", limits)?,
        special_map: optional(&files.special_tokens_map_json, "special_tokens_map.json", limits)?,
        model_config: optional(&files.config_json, "config.json", limits)?,
        table: Table::new(&tokenizer, vocabulary, limits)?,
        added: facts.added,
        tokenizer,
        metadata: Metadata::new(),
        warnings: Vec::new(),
    };
    writer.vocabulary(architecture)?;
    let around = Around::new(&writer.tokenizer["post_processor"]);
    writer.special_tokens(&around);
    writer.flags(&around);
    writer.chat_template(files)?;
    Ok((writer.metadata, writer.warnings))
}

fn optional(bytes: &Option<Vec<u8>>, file: &'static str, limits: &Limits) -> Result<Map<String, Value>, Error> {
    bytes.as_ref().map_or(Ok(Map::new()), |bytes| json::parse_object(file, bytes, limits))
}

/// Tokens by id, with type and score; rows without a token are fillers.
struct Table {
    tokens: Vec<String>,
    types: Vec<Type>,
    scores: Vec<f32>,
}

impl Table {
    fn new(tokenizer: &Value, rows: usize, limits: &Limits) -> Result<Self, Error> {
        crate::error::bound(|| "rows of the embedding".to_owned(), rows, limits.array_items)?;
        let mut table = Table {
            tokens: (0..rows).map(|i| format!("[PAD{i}]")).collect(),
            types: vec![Type::Unused; rows],
            scores: vec![-10_000.0; rows],
        };
        let fallback = tokenizer["model"]["byte_fallback"] == true;
        let unknown = tokenizer["model"]["unk_token"].as_str();
        match &tokenizer["model"]["vocab"] {
            Value::Array(list) => {
                let unknown = tokenizer["model"]["unk_id"].as_u64();
                for (i, item) in list.iter().enumerate() {
                    let kind = if unknown == Some(i as u64) { Type::Unknown } else { Type::Normal };
                    table.put(
                        i,
                        item[0].as_str().unwrap_or(""),
                        kind,
                        item[1].as_f64().unwrap_or(0.0) as f32,
                        fallback,
                    )?;
                }
            }
            Value::Object(map) => {
                for (token, id) in map {
                    let kind = if unknown == Some(token) && fallback { Type::Unknown } else { Type::Normal };
                    table.put(id.as_u64().unwrap_or(u64::MAX) as usize, token, kind, 0.0, fallback)?;
                }
            }
            _ => {}
        }
        Ok(table)
    }

    fn put(&mut self, id: usize, token: &str, kind: Type, score: f32, bytes: bool) -> Result<(), Error> {
        let rows = self.tokens.len();
        let (Some(t), Some(k), Some(s)) = (self.tokens.get_mut(id), self.types.get_mut(id), self.scores.get_mut(id))
        else {
            let message = format!("{token:?} has id {id}, but the model's embedding has {rows} rows");
            return Err(Error::invalid("tokenizer.json: model.vocab", message));
        };
        *t = token.to_owned();
        *k = if bytes && byte_of(token).is_some() { Type::Byte } else { kind };
        *s = score;
        Ok(())
    }
}

struct Writer {
    tokenizer: Value,
    config: Map<String, Value>,
    special_map: Map<String, Value>,
    model_config: Map<String, Value>,
    added: Vec<(String, u32)>,
    table: Table,
    metadata: Metadata,
    warnings: Vec<String>,
}

impl Writer {
    fn vocabulary(&mut self, architecture: &str) -> Result<(), Error> {
        let model = self.tokenizer["model"]["type"].as_str().unwrap_or_default();
        let byte_level =
            ["pre_tokenizer", "normalizer", "decoder"].iter().any(|part| has_part(&self.tokenizer[part], "ByteLevel"));
        let kind = match model {
            "BPE" if byte_level => "gpt2",
            "BPE" if architecture == "gemma4" => "gemma4",
            "BPE" => "llama",
            "Unigram" => "t5",
            "WordPiece" => "bert",
            other => return Err(Error::unsupported("tokenizer.json: model", format!("GGUF has no {other} tokenizer"))),
        };
        self.added_tokens(kind);
        let mut merges = self.merges();
        let mut pre = Some("default");
        match kind {
            "gpt2" => pre = Some(self.pre_tokenizer()),
            "gemma4" => {
                pre = None;
                // Merges decide; the scores are there because readers want the key.
                self.table.scores.fill(-1_000.0);
            }
            "llama" => {
                self.sentencepiece_structure();
                self.scores(&mut merges)?;
            }
            "t5" => {}
            _ => self.word_piece(),
        }
        self.metadata.set(key::MODEL, kind);
        if let Some(pre) = pre {
            self.metadata.set(key::PRE, pre);
        }
        self.metadata.set(key::TOKENS, Array::strings(std::mem::take(&mut self.table.tokens)));
        if matches!(kind, "llama" | "t5" | "gemma4") {
            self.metadata.set(key::SCORES, Array::F32(std::mem::take(&mut self.table.scores)));
        }
        self.metadata.set(key::TYPES, Array::I32(self.table.types.iter().map(|t| *t as i32).collect()));
        if !merges.is_empty() {
            let joined = merges.iter().map(|(left, right)| format!("{} {}", unspaced(left), unspaced(right)));
            self.metadata.set(key::MERGES, Array::strings(joined));
        }
        self.structure(kind)
    }

    /// Marks added tokens: control if special, else user-defined, which are spelled with plain spaces.
    fn added_tokens(&mut self, kind: &str) {
        let list = self.tokenizer["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
        for ((content, id), token) in self.added.iter().zip(list) {
            let id = *id as usize;
            if id >= self.table.tokens.len() {
                let rows = self.table.tokens.len();
                self.warnings.push(format!(
                    "added token {content:?} has id {id}, but the embedding has {rows} rows: it is left out"
                ));
                continue;
            }
            let special = token["special"] == true || (kind != "gemma4" && looks_special(content));
            // Byte and unknown pieces keep their type: sentencepiece readers need it.
            if !matches!(self.table.types[id], Type::Byte | Type::Unknown) {
                self.table.types[id] = if special { Type::Control } else { Type::UserDefined };
            }
            let plain = special || kind == "gpt2" || kind == "bert";
            self.table.tokens[id] = if plain { content.clone() } else { content.replace(SPACE, " ") };
            if kind == "llama" {
                self.table.scores[id] = -1_000.0;
            }
            if ["lstrip", "rstrip", "single_word"].iter().any(|flag| token[flag] == true) {
                self.warnings.push(format!(
                    "added token {content:?} strips spaces around it or matches whole words only: GGUF cannot say so"
                ));
            }
        }
    }

    fn merges(&self) -> Vec<(String, String)> {
        let list = self.tokenizer["model"]["merges"].as_array().map_or(&[][..], Vec::as_slice);
        list.iter().filter_map(|m| Some((m[0].as_str()?.to_owned(), m[1].as_str()?.to_owned()))).collect()
    }

    fn pre_tokenizer(&mut self) -> &'static str {
        let default = "default";
        match pre::recognise(&self.tokenizer) {
            Found::Exactly(pre) => pre.names[0],
            Found::Nearly(pre) => {
                let name = pre.names[0];
                self.warnings.push(format!("the tokenizer splits like {name:?} but normalizes or joins whole words differently; {name:?} is written"));
                name
            }
            Found::Not => {
                self.warnings.push(format!(
                    "the pre-tokenizer has no name in GGUF; {default:?} is written, which splits some texts differently"
                ));
                default
            }
        }
    }

    /// Writes scores from merges, and drops the merges if the scores say the same.
    fn scores(&mut self, merges: &mut Vec<(String, String)>) -> Result<(), Error> {
        let own = merges::to_scores(&self.table.tokens, merges);
        for (i, score) in own.into_iter().enumerate() {
            match self.table.types[i] {
                Type::Normal => self.table.scores[i] = score,
                Type::Byte | Type::Unknown => self.table.scores[i] = 0.0,
                _ => {}
            }
        }
        // User-defined tokens are matched as they are, so merges that make them or use them do not count.
        let plain: HashMap<&str, Type> =
            self.table.tokens.iter().map(String::as_str).zip(self.table.types.iter().copied()).collect();
        let counts = |piece: &str| plain.get(piece) == Some(&Type::Normal);
        let wanted = merges.iter().filter(|(l, r)| counts(l) && counts(r) && counts(&format!("{l}{r}")));
        let rebuilt = merges::from_scores(&self.table.tokens, &self.table.types, &self.table.scores)?;
        let rebuilt = rebuilt.into_iter().filter(|(l, r)| counts(l) && counts(r) && counts(&format!("{l}{r}")));
        if wanted.map(|(l, r)| (l.as_str(), r.as_str())).eq(rebuilt) {
            merges.clear();
        } else {
            self.warnings.push(
                "the merges do not follow from scores: they are kept beside them, but llama.cpp reads the scores only"
                    .to_owned(),
            );
        }
        Ok(())
    }

    fn sentencepiece_structure(&mut self) {
        let part =
            |name: &str, key: &str| sequence(&self.tokenizer[name], key).into_iter().cloned().collect::<Vec<_>>();
        let normalizers = part("normalizer", "normalizers");
        let spaces = |n: &&Value| matches!(n["type"].as_str(), Some("Prepend" | "Replace"));
        if normalizers.iter().any(|n| !spaces(&n)) {
            self.warnings.push(
                "the normalizer does more than mark spaces: GGUF cannot say so for this kind of tokenizer".to_owned(),
            );
        }
        let pre_tokenizers = part("pre_tokenizer", "pretokenizers");
        if pre_tokenizers.iter().any(|p| p["type"] == "Metaspace" && p["prepend_scheme"] == "first") {
            let message =
                "a space is put before the first word only; readers of GGUF also put one after each special token";
            self.warnings.push(message.to_owned());
        }
        let harmless = |p: &&Value| p["type"] == "Metaspace" || (p["type"] == "Split" && p["pattern"]["String"] == " ");
        if pre_tokenizers.iter().any(|p| !harmless(&p)) {
            self.warnings
                .push("the pre-tokenizer splits words: GGUF cannot say so for this kind of tokenizer".to_owned());
        }
    }

    fn word_piece(&mut self) {
        if self.table.tokens.iter().any(|token| token.strip_prefix("##").is_some_and(|rest| rest.starts_with(SPACE))) {
            self.warnings
                .push(format!("a piece inside of words begins with {SPACE:?}, which marks the start of words in GGUF"));
        }
        for (token, kind) in self.table.tokens.iter_mut().zip(&self.table.types) {
            if *kind == Type::Control {
                continue;
            }
            *token = match token.strip_prefix("##") {
                Some(rest) => rest.to_owned(),
                None => format!("{SPACE}{token}"),
            };
        }
    }

    /// Spaces, case and the character map.
    fn structure(&mut self, kind: &str) -> Result<(), Error> {
        let normalizers: Vec<Value> =
            sequence(&self.tokenizer["normalizer"], "normalizers").into_iter().cloned().collect();
        let splits: Vec<Value> =
            sequence(&self.tokenizer["pre_tokenizer"], "pretokenizers").into_iter().cloned().collect();
        let metaspace = splits.iter().find(|p| p["type"] == "Metaspace");
        let prefix = normalizers.iter().any(|n| n["type"] == "Prepend")
            || metaspace.is_some_and(|m| m["prepend_scheme"] != "never" && m["add_prefix_space"] != false)
            || splits.iter().any(|p| p["type"] == "ByteLevel" && p["add_prefix_space"] == true);
        match kind {
            "gpt2" if !prefix => {}
            "bert" => {}
            _ => self.metadata.set(key::ADD_SPACE_PREFIX, prefix),
        }
        if kind == "t5" {
            let squeeze = splits.iter().any(|p| p["type"] == "WhitespaceSplit");
            self.metadata.set(key::REMOVE_EXTRA_WHITESPACES, squeeze);
        }
        for normalizer in &normalizers {
            match normalizer["type"].as_str() {
                Some("Precompiled") if kind == "t5" => {
                    let map = normalizer["precompiled_charsmap"].as_str().unwrap_or_default();
                    let blob = base64::decode(map).map_err(|e| {
                        Error::invalid("tokenizer.json: normalizer.precompiled_charsmap", e.to_string())
                    })?;
                    self.metadata.set(key::CHARACTER_MAP, Array::U8(blob));
                }
                Some("BertNormalizer") => {
                    for (flag, key) in [("lowercase", key::LOWERCASE), ("strip_accents", key::STRIP_ACCENTS)] {
                        if let Some(set) = normalizer[flag].as_bool() {
                            self.metadata.set(key, set);
                        }
                    }
                }
                Some("Lowercase") => self.metadata.set(key::LOWERCASE, true),
                Some("StripAccents") => self.metadata.set(key::STRIP_ACCENTS, true),
                _ => {}
            }
        }
        Ok(())
    }

    /// The text of a special token as the side files name it.
    fn named(&self, name: &str) -> Option<&str> {
        let entry = [&self.config, &self.special_map]
            .into_iter()
            .find_map(|file| file.get(&format!("{name}_token")).filter(|v| !v.is_null()))?;
        entry.as_str().or_else(|| entry["content"].as_str())
    }

    fn id_of(&self, content: &str) -> Option<u32> {
        let added = self.added.iter().find(|(c, _)| c == content).map(|(_, id)| *id);
        added.or_else(|| self.tokenizer["model"]["vocab"].get(content).and_then(Value::as_u64).map(|id| id as u32))
    }

    fn special_tokens(&mut self, around: &Around) {
        let id_in_config = |name: &str| {
            let key = format!("{name}_token_id");
            let id = self.model_config.get(&key).or_else(|| self.model_config.get("text_config")?.get(&key))?;
            // Several end-of-text tokens may be listed; the first is the one of the base model.
            id.as_u64().or_else(|| id[0].as_u64())
        };
        let mut ids: Vec<(&str, Option<u32>)> = SPECIAL
            .iter()
            .map(|(name, _)| {
                (
                    *name,
                    self.named(name)
                        .and_then(|content| self.id_of(content))
                        .or_else(|| Some(id_in_config(name)? as u32)),
                )
            })
            .collect();
        let mut fill = |name: &str, others: &[Option<u32>]| {
            if let Some(slot) = ids.iter_mut().find(|(n, id)| *n == name && id.is_none()) {
                slot.1 = others.iter().copied().flatten().next();
            }
        };
        let own = |name: &str| self.named(name).and_then(|content| self.id_of(content));
        // Encoders call begin and end of text by other names; what the post-processor adds counts too.
        fill("bos", &[around.first, own("cls")]);
        fill("eos", &[around.last, own("sep")]);
        if self.tokenizer["model"]["type"] != "BPE" || self.tokenizer["model"]["byte_fallback"] == true {
            fill(
                "unk",
                &[
                    self.tokenizer["model"]["unk_token"].as_str().and_then(|u| self.id_of(u)),
                    self.tokenizer["model"]["unk_id"].as_u64().map(|u| u as u32),
                ],
            );
        }
        let rows = self.table.types.len();
        for ((name, key), (_, id)) in SPECIAL.iter().zip(ids) {
            match id {
                Some(id) if (id as usize) < rows => self.metadata.set(*key, id),
                Some(id) => self
                    .warnings
                    .push(format!("the {name} token has id {id}, but the embedding has {rows} rows: it is left out")),
                None => {}
            }
        }
    }

    /// Whether begin and end of text are added: what the post-processor does, in every case, because readers' defaults differ.
    fn flags(&mut self, around: &Around) {
        let id = |this: &Self, name: &str| {
            let key = SPECIAL.iter().find(|(n, _)| *n == name).map(|(_, key)| *key)?;
            this.metadata.get(key)?.as_u64().map(|id| id as u32)
        };
        for (name, alias, key, added) in
            [("bos", "cls", key::ADD_BOS, around.first), ("eos", "sep", key::ADD_EOS, around.last)]
        {
            let own = [id(self, name), id(self, alias)];
            if added.is_some() && !own.contains(&added) {
                self.warnings.push(format!("the tokenizer adds token {added:?} around a text, which is not its {name} token: GGUF cannot say so"));
            }
            self.metadata.set(key, added.is_some() && own.contains(&added));
        }
        if self.metadata.get(key::MODEL).is_some_and(|m| m.as_str() == Some("bert")) {
            self.metadata.set(key::ADD_SEP, false);
        }
        if !around.simple {
            self.warnings.push(
                "the post-processor adds more than one token before or after a text: GGUF cannot say so".to_owned(),
            );
        }
    }

    fn chat_template(&mut self, files: &HfFiles) -> Result<(), Error> {
        let text = |bytes: &Vec<u8>| {
            String::from_utf8(bytes.clone())
                .map_err(|_| Error::Json { file: "chat_template.jinja", message: "it is not UTF-8".to_owned() })
        };
        let alone = files.chat_template_jinja.as_ref().map(text).transpose()?;
        match (alone, self.config.get("chat_template")) {
            (Some(template), _) => self.metadata.set(key::CHAT_TEMPLATE, template),
            (None, Some(Value::String(template))) => self.metadata.set(key::CHAT_TEMPLATE, template.as_str()),
            (None, Some(Value::Array(named))) => {
                let named: Vec<_> =
                    named.iter().filter_map(|t| Some((t["name"].as_str()?, t["template"].as_str()?))).collect();
                let mut names = Vec::new();
                for (name, template) in named {
                    if name == "default" {
                        self.metadata.set(key::CHAT_TEMPLATE, template);
                    } else {
                        names.push(name.to_owned());
                        self.metadata.set(format!("{}.{name}", key::CHAT_TEMPLATE), template);
                    }
                }
                if !names.is_empty() {
                    self.metadata.set(key::CHAT_TEMPLATES, Array::strings(names));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// What a post-processor puts before and after a single text.
struct Around {
    first: Option<u32>,
    last: Option<u32>,
    /// At most one token on each side.
    simple: bool,
}

impl Around {
    fn new(component: &Value) -> Self {
        let mut around = Around { first: None, last: None, simple: true };
        for part in sequence(component, "processors") {
            match part["type"].as_str() {
                Some("BertProcessing" | "RobertaProcessing") => {
                    around.first = part["cls"][1].as_u64().map(|id| id as u32);
                    around.last = part["sep"][1].as_u64().map(|id| id as u32);
                }
                Some("TemplateProcessing") => around.template(part),
                _ => {}
            }
        }
        around
    }

    fn template(&mut self, part: &Value) {
        let items = part["single"].as_array().map_or(&[][..], Vec::as_slice);
        let Some(text) = items.iter().position(|item| item.get("Sequence").is_some()) else { return };
        let id = |item: &Value| {
            let name = item["SpecialToken"]["id"].as_str()?;
            part["special_tokens"][name]["ids"][0].as_u64().map(|id| id as u32)
        };
        self.simple = text <= 1 && items.len() - text <= 2;
        self.first = items[..text].first().and_then(id);
        self.last = items.get(text + 1..).and_then(<[Value]>::last).and_then(id);
    }
}

fn has_part(component: &Value, kind: &str) -> bool {
    ["pretokenizers", "normalizers", "decoders"]
        .iter()
        .any(|key| sequence(component, key).iter().any(|part| part["type"] == kind))
}

/// Spaces inside a half of a merge, spelled as byte-level BPE spells them: a space separates the halves.
fn unspaced(half: &str) -> String {
    half.replace(' ', "Ġ")
}

/// Some models do not mark all of their control tokens.
fn looks_special(token: &str) -> bool {
    matches!(token, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]")
        || (token.starts_with("<|") && token.ends_with("|>"))
        || (token.starts_with("<｜") && token.ends_with("｜>"))
        || (token.starts_with("<unused") && token.ends_with('>'))
}
