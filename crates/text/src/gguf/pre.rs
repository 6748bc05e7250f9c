//! The pre-tokenizers that GGUF knows by name, as the structure that they have in a tokenizer.json.

use serde_json::{Value, json};

use crate::json::sequence;

/// One pre-tokenizer.
pub(crate) struct Pre {
    /// Names in `tokenizer.ggml.pre`; the first is the one written.
    pub names: &'static [&'static str],
    /// Whether text is brought to Unicode NFC first.
    pub nfc: bool,
    /// Steps before the bytes are spelled out.
    pub steps: &'static [Step],
    /// Whether a whole word that is a token is taken without looking at merges.
    pub ignore_merges: bool,
    /// Whether begin-of-text is added when the file does not say.
    pub add_bos: bool,
}

/// One step of a pre-tokenizer.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Step {
    /// Every match, and what lies between matches, is a piece.
    Split(&'static str),
    /// Runs of digits, or each digit alone.
    Digits { individual: bool },
    /// Runs of punctuation.
    Punctuation,
    /// GPT-2's own expression, part of the step that spells out bytes. Always last among those that split words.
    Gpt2,
}

use Step::{Digits, Gpt2, Punctuation, Split};

const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const MINICPM5: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SEED_CODER: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
const EXAONE_MOE: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+";
const JAIS2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}";
const BAILING: &str =
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const BLOOM: &str = r" ?[^(\s|[.,!?…。，、।۔،])]+";
const THOUSANDS: &str = r"\d{1,3}(?=(?:\d{3})*\b)";
const DIGITS_UP_TO_3: &str = r"\p{N}{1,3}";
const THREE_DIGITS: &str = "[0-9][0-9][0-9]";
const LINE_ENDS: &str = r"[\r\n]";
const HAN_AND_KOREAN: &str = "[一-龥ࠀ-一가-\u{D7FF}]+";
const HAN_AND_KANA: &str = "[一-龥\u{3040}-ゟ゠-ヿ]+";
const DEEPSEEK_WORDS: &str = "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u{1F7D}ᾀ-ᾴᾶ-ᾼ\u{1FBE}ῂ-ῄῆ-ῌῐ-\u{1FD3}ῖ-\u{1FDB}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u{2126}ℨ\u{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
const DEEPSEEK_MARKS: &str = "\\s?[!-/:-~！-／：-～‘-‟\u{3000}-。]+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
const DEFAULT_MARKS: &str = r"[\p{P}\$\+<=>\^~\|]+";

const fn pre(names: &'static [&'static str], nfc: bool, steps: &'static [Step]) -> Pre {
    Pre { names, nfc, steps, ignore_merges: false, add_bos: false }
}

const fn whole_words(pre: Pre, add_bos: bool) -> Pre {
    Pre { ignore_merges: true, add_bos, ..pre }
}

/// All of them. Where several have the same structure, the first one is the one that is recognised.
pub(crate) static ALL: &[Pre] = &[
    pre(&["qwen2", "kormo", "f2llmv2", "hunyuan", "megrez"], true, &[Split(QWEN2)]),
    pre(&["stablelm2", "deepseek-r1-qwen", "solar-open", "grok-2"], false, &[Split(QWEN2)]),
    pre(&["qwen35"], true, &[Split(QWEN35)]),
    whole_words(
        pre(
            &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"],
            false,
            &[Split(LLAMA3)],
        ),
        true,
    ),
    pre(&["dbrx", "smaug-bpe", "chatglm-bpe"], false, &[Split(LLAMA3)]),
    whole_words(pre(&["glm4", "glm5"], false, &[Split(LLAMA3)]), false),
    pre(
        &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "jais",
            "trillion",
            "granite-docling",
            "jina-v1-en",
            "jina-v2-code",
            "roberta-bpe",
        ],
        false,
        &[Gpt2],
    ),
    pre(&["olmo", "mpt", "modern-bert"], true, &[Gpt2]),
    pre(
        &["starcoder", "refact", "smollm", "codeshell", "exaone", "exaone4", "minerva-7b", "mellum2"],
        false,
        &[Digits { individual: true }, Gpt2],
    ),
    pre(&["command-r"], true, &[Digits { individual: true }, Gpt2]),
    pre(&["falcon"], false, &[Punctuation, Gpt2, Digits { individual: false }, Split(THREE_DIGITS)]),
    whole_words(pre(&["tekken"], false, &[Split(TEKKEN)]), true),
    pre(&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], false, &[Split(O200K)]),
    pre(&["tiny_aya", "cohere2moe"], true, &[Split(THOUSANDS), Split(O200K)]),
    pre(
        &["deepseek-llm"],
        false,
        &[
            Split(LINE_ENDS),
            Split(DEEPSEEK_WORDS),
            Split(DEEPSEEK_MARKS),
            Split(r"\s+$"),
            Split(HAN_AND_KOREAN),
            Digits { individual: true },
        ],
    ),
    pre(
        &["deepseek-coder"],
        false,
        &[
            Split(LINE_ENDS),
            Split(r"\s?\p{L}+"),
            Split(r"\s?\p{P}+"),
            Split(HAN_AND_KOREAN),
            Digits { individual: true },
        ],
    ),
    pre(
        &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        false,
        &[Split(DIGITS_UP_TO_3), Split(HAN_AND_KANA), Split(DEEPSEEK3)],
    ),
    pre(&["bloom", "poro-chat", "gpt3-finnish"], false, &[Split(BLOOM)]),
    pre(&["viking"], false, &[Split(BLOOM), Digits { individual: true }]),
    pre(&["seed-coder"], false, &[Split(SEED_CODER)]),
    pre(&["bailingmoe", "bailingmoe2", "llada-moe"], false, &[Split(BAILING)]),
    pre(&["exaone-moe"], false, &[Split(EXAONE_MOE)]),
    pre(&["jais-2"], false, &[Split(JAIS2)]),
    whole_words(pre(&["minicpm5"], false, &[Split(DIGITS_UP_TO_3), Split(MINICPM5)]), false),
    pre(&["default"], false, &[Split(DEFAULT_MARKS), Gpt2, Digits { individual: false }, Split(THREE_DIGITS)]),
];

/// The pre-tokenizer called `name`.
pub(crate) fn by_name(name: &str) -> Option<&'static Pre> {
    ALL.iter().find(|p| p.names.contains(&name))
}

/// Whether an expression is one of these, which take steps back only where a text ends.
pub(crate) fn is_known(pattern: &str) -> bool {
    let pattern = visible(pattern);
    ALL.iter().flat_map(|p| p.steps).any(|step| matches!(step, Split(known) if *known == pattern))
}

/// Expressions are written with control characters or with their escapes.
fn visible(pattern: &str) -> String {
    pattern.replace('\r', r"\r").replace('\n', r"\n").replace('\t', r"\t")
}

/// How well a known pre-tokenizer stands for a tokenizer.json's.
pub(crate) enum Found {
    /// In every respect.
    Exactly(&'static Pre),
    /// It splits the same, but normalizes or treats whole words differently.
    Nearly(&'static Pre),
    /// None splits this way.
    Not,
}

/// Looks a tokenizer.json's structure up.
pub(crate) fn recognise(tokenizer: &Value) -> Found {
    let Some(steps) = steps_of(&tokenizer["pre_tokenizer"]) else { return Found::Not };
    let normalizers = sequence(&tokenizer["normalizer"], "normalizers");
    let nfc = match normalizers.as_slice() {
        [] => Some(false),
        [only] if only["type"] == "NFC" => Some(true),
        _ => None,
    };
    let ignore_merges = tokenizer["model"]["ignore_merges"].as_bool().unwrap_or(false);
    let splits = |p: &&Pre| p.steps.len() == steps.len() && p.steps.iter().zip(&steps).all(|(a, b)| b.is(a));
    let mut same = ALL.iter().filter(splits);
    match same.clone().find(|p| Some(p.nfc) == nfc && p.ignore_merges == ignore_merges) {
        Some(p) => Found::Exactly(p),
        None => same.next().map_or(Found::Not, Found::Nearly),
    }
}

/// A step as found in a file: expressions are not `'static` there.
enum Given {
    Split(String),
    Step(Step),
}

impl Given {
    fn is(&self, known: &Step) -> bool {
        match (self, known) {
            (Given::Split(given), Split(known)) => given == known,
            (Given::Step(given), known) => given == known,
            _ => false,
        }
    }
}

fn steps_of(component: &Value) -> Option<Vec<Given>> {
    let mut steps = Vec::new();
    for part in sequence(component, "pretokenizers") {
        steps.push(match part["type"].as_str()? {
            "Split" => {
                // Expressions that match everything do the same as delimiters to remove, inverted.
                let isolated = part["behavior"] == "Isolated" && part["invert"] != true;
                let inverted = part["behavior"] == "Removed" && part["invert"] == true;
                let pattern = part["pattern"]["Regex"].as_str().filter(|_| isolated || inverted)?;
                Given::Split(visible(pattern))
            }
            "Digits" => Given::Step(Digits { individual: part["individual_digits"] == true }),
            "Punctuation" if part["behavior"] == "Contiguous" => Given::Step(Punctuation),
            "ByteLevel" if part["use_regex"] != false => Given::Step(Gpt2),
            "ByteLevel" => continue,
            _ => return None,
        });
    }
    Some(steps)
}

impl Pre {
    /// The `normalizer` of a tokenizer.json.
    pub(crate) fn normalizer(&self) -> Value {
        if self.nfc { json!({"type": "NFC"}) } else { Value::Null }
    }

    /// The `pre_tokenizer` of a tokenizer.json.
    pub(crate) fn pre_tokenizer(&self, add_prefix_space: bool) -> Value {
        let byte_level = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": regex});
        let mut steps: Vec<Value> = self
            .steps
            .iter()
            .map(|step| match step {
                Split(regex) => {
                    json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
                }
                Digits { individual } => json!({"type": "Digits", "individual_digits": individual}),
                Punctuation => json!({"type": "Punctuation", "behavior": "Contiguous"}),
                Gpt2 => byte_level(true),
            })
            .collect();
        if !self.steps.contains(&Gpt2) {
            steps.push(byte_level(false));
        }
        if steps.len() == 1 { steps.remove(0) } else { json!({"type": "Sequence", "pretokenizers": steps}) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_there_once_and_every_expression_compiles() {
        let mut names: Vec<_> = ALL.iter().flat_map(|p| p.names).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
        for p in ALL {
            crate::split::Steps::new(&p.pre_tokenizer(false)).unwrap_or_else(|e| panic!("{}: {e}", p.names[0]));
        }
    }

    #[test]
    fn what_is_written_is_recognised_again() {
        for p in ALL {
            let tokenizer = json!({"normalizer": p.normalizer(), "pre_tokenizer": p.pre_tokenizer(false), "model": {"ignore_merges": p.ignore_merges}});
            let Found::Exactly(found) = recognise(&tokenizer) else { panic!("{} is not recognised", p.names[0]) };
            assert!(
                found.steps == p.steps && found.nfc == p.nfc && found.ignore_merges == p.ignore_merges,
                "{}",
                p.names[0]
            );
        }
        assert!(matches!(recognise(&json!({"pre_tokenizer": {"type": "WhitespaceSplit"}})), Found::Not));
    }
}
