//! Recipes that a user writes.

use serde::Deserialize;
use windlass_tensor::{DType, Element};

use super::{ModelFacts, Target, TensorFacts, element, float_type, kept, packing, pure};
use crate::{Error, SchemeRef};

/// Rules a file may have, and characters of a pattern: more is a mistake.
const MOST: usize = 4096;

/// A recipe file.
pub struct File {
    pub base: Option<String>,
    pub default: Option<String>,
    pub rules: Vec<Rule>,
}

/// What tensors of some names get.
#[derive(Clone, Debug)]
pub struct Rule {
    pattern: Vec<char>,
    pub choice: Choice,
}

/// What a rule gives.
#[derive(Clone, Debug)]
pub enum Choice {
    Keep,
    Float(DType),
    Scheme(SchemeRef),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    base: Option<String>,
    default: Option<String>,
    #[serde(default)]
    rule: Vec<TextRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TextRule {
    #[serde(rename = "match")]
    pattern: String,
    scheme: String,
}

impl File {
    /// Reads and checks; all names of schemes must be known.
    pub fn parse(text: &str) -> Result<File, Error> {
        let text: Text = toml::from_str(text).map_err(|e| Error::Recipe(located(text, &e)))?;
        if text.rule.len() > MOST {
            return Err(Error::Recipe(format!("{} rules are more than {MOST}", text.rule.len())));
        }
        let rules = text.rule.into_iter().map(Rule::new).collect::<Result<_, _>>()?;
        Ok(File { base: text.base, default: text.default, rules })
    }
}

/// What is wrong with a file and on which line, as one line.
fn located(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().lines().collect::<Vec<_>>().join(" ");
    let before = error.span().and_then(|span| text.get(..span.start));
    before.map_or(message.clone(), |before| format!("line {}: {message}", before.matches('\n').count() + 1))
}

impl Rule {
    /// The pattern as it was written.
    pub fn pattern(&self) -> String {
        self.pattern.iter().collect()
    }

    fn new(text: TextRule) -> Result<Rule, Error> {
        if text.pattern.is_empty() || text.pattern.len() > MOST {
            return Err(Error::Recipe(format!("a pattern of {} characters", text.pattern.len())));
        }
        let choice = match text.scheme.as_str() {
            "keep" => Choice::Keep,
            name => match element(name)? {
                Element::Plain(dtype) => Choice::Float(dtype),
                packed => packing(&packed).map_or(Choice::Keep, |p| Choice::Scheme(p.scheme)),
            },
        };
        Ok(Rule { pattern: text.pattern.chars().collect(), choice })
    }

    /// Whether this name is meant.
    pub fn means(&self, name: &str) -> bool {
        glob(&self.pattern, name)
    }

    /// Whether the GGUF name or the source's own is meant.
    pub fn matches(&self, tensor: &TensorFacts) -> bool {
        self.means(tensor.name) || tensor.alias.is_some_and(|alias| self.means(alias))
    }
}

impl Choice {
    /// The element for a tensor; `None` if it may not be quantized.
    pub fn apply(&self, tensor: &TensorFacts, model: &ModelFacts, target: Target) -> Result<Option<Element>, Error> {
        match self {
            Choice::Keep => Ok(Some(kept(tensor, target))),
            Choice::Float(dtype) => Ok(float_type(tensor, *dtype, Target::Hf).map(Element::Plain)),
            Choice::Scheme(scheme) => pure(tensor, *scheme, model),
        }
    }
}

/// Whether all of `name` matches: `*` is any characters, `?` any one. Takes the product of both lengths at most.
fn glob(pattern: &[char], name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // Where to go on if the last star has to take one character more.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((after, taken)) => {
                    star = Some((after, taken + 1));
                    (p, n) = (after, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        let matches = |pattern: &str, name| glob(&pattern.chars().collect::<Vec<_>>(), name);
        assert!(matches("blk.*.ffn_down.weight", "blk.13.ffn_down.weight"));
        assert!(matches("*", ""));
        assert!(matches("blk.?.*", "blk.3.attn_q.weight"));
        assert!(matches("*a*b*", "xxaybzb"));
        assert!(!matches("blk.?.*", "blk.13.attn_q.weight"));
        assert!(!matches("ffn_down", "blk.1.ffn_down.weight"));
        assert!(!matches("*.bias", "blk.1.ffn_down.weight"));
        assert!(!matches(&"*a".repeat(500), &"a".repeat(400)));
    }
}
