//! Rules of the user: other weights and densities for tensors of some names.

use serde::Deserialize;
use windlass_edit::models::{Blend, Method};
use windlass_formats::files;
use windlass_tensor::Limits;

use crate::{Error, Result};

/// Rules that a file may have, and characters of a pattern.
const MOST: usize = 4096;

/// A file of rules; the first that matches a tensor's name holds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    #[serde(default)]
    rule: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// A name in which `*` stands for any characters.
    #[serde(rename = "match")]
    pattern: String,
    method: Option<String>,
    weights: Option<Vec<f64>>,
    densities: Option<Vec<f64>>,
    lambda: Option<f64>,
    /// The tensor stays as the first model, or the base, has it.
    #[serde(default)]
    keep: bool,
}

impl Rules {
    /// Reads a file (TOML).
    pub fn read(path: &std::path::Path, limits: &Limits) -> Result<Rules> {
        let bytes = files::read_small(path, limits.side_file_bytes)?;
        let refuse = |message: String| Error::usage(format!("{}: {message}", path.display())).at(path);
        let text = String::from_utf8(bytes).map_err(|_| refuse("is not text".into()))?;
        Rules::parse(&text).map_err(refuse)
    }

    fn parse(text: &str) -> Result<Rules, String> {
        let rules: Rules = toml::from_str(text).map_err(|e| e.message().lines().collect::<Vec<_>>().join(" "))?;
        if rules.rule.len() > MOST {
            return Err(format!("{} rules are more than {MOST}", rules.rule.len()));
        }
        match rules.rule.iter().find(|rule| rule.pattern.is_empty() || rule.pattern.len() > MOST) {
            Some(rule) => Err(format!("a pattern of {} characters", rule.pattern.len())),
            None => Ok(rules),
        }
    }

    /// What is done to a tensor; `None` if it stays as it is.
    pub fn apply(&self, name: &str, usual: &Blend) -> Result<Option<Blend>> {
        let Some(rule) = self.rule.iter().find(|rule| matches(&rule.pattern, name)) else {
            return Ok(Some(usual.clone()));
        };
        if rule.keep {
            return Ok(None);
        }
        let wrong = |message: String| Error::usage(format!("the rule for {:?}: {message}", rule.pattern)).tensor(name);
        let mut blend = usual.clone();
        if let Some(method) = &rule.method {
            let known = Method::named(method).ok_or_else(|| wrong(format!("no method is called {method:?}")))?;
            if known.needs_base() != usual.method.needs_base() {
                return Err(wrong(format!("{method} and the method of the others do not both take a base")));
            }
            (blend.method, blend.normalize) = (known, known.normalizes());
        }
        for (given, values) in [(&rule.weights, &mut blend.weights), (&rule.densities, &mut blend.densities)] {
            let Some(given) = given else { continue };
            if given.len() != values.len() {
                return Err(wrong(format!(
                    "expected {} numbers, one for each model, found {}",
                    values.len(),
                    given.len()
                )));
            }
            values.clone_from(given);
        }
        blend.lambda = rule.lambda.unwrap_or(blend.lambda);
        blend.problem().map_or(Ok(Some(blend)), |problem| Err(wrong(problem)))
    }

    /// Patterns that match no name.
    pub fn idle(&self, names: &[&str]) -> Vec<&str> {
        let idle = self.rule.iter().filter(|rule| !names.iter().any(|name| matches(&rule.pattern, name)));
        idle.map(|rule| rule.pattern.as_str()).collect()
    }
}

/// Whether a name is the pattern, with any characters for each `*`. Takes at most the product of both lengths.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n, mut back) = (0, 0, None);
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            back = Some((p, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            (p, n) = (p + 1, n + 1);
        } else if let Some((star, from)) = back {
            back = Some((star, from + 1));
            (p, n) = (star + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual() -> Blend {
        let method = Method::Linear;
        Blend { method, weights: vec![0.5, 0.5], densities: vec![1.0; 2], normalize: true, lambda: 1.0, seed: 0 }
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, wanted) in [
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "ab", false),
            ("*.mlp.*", "model.layers.1.mlp.up_proj.weight", true),
            ("*mlp", "mlp.mlp", true),
            ("mlp", "mlp.weight", false),
            ("*a*a*b", "aaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(matches(pattern, name), wanted, "{pattern} {name}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_holds() {
        let text = "[[rule]]\nmatch = \"*norm*\"\nkeep = true\n[[rule]]\nmatch = \"model.*\"\nweights = [0.2, 0.8]\n";
        let rules = Rules::parse(text).unwrap();
        assert_eq!(rules.apply("model.norm.weight", &usual()).unwrap(), None);
        assert_eq!(rules.apply("model.embed.weight", &usual()).unwrap().unwrap().weights, [0.2, 0.8]);
        assert_eq!(rules.apply("lm_head.weight", &usual()).unwrap(), Some(usual()));
        assert_eq!(rules.idle(&["lm_head.weight", "model.x"]), ["*norm*"]);
    }

    #[test]
    fn wrong_rules_are_told() {
        assert!(Rules::parse("[[rule]]\nmatch = \"a\"\nwight = 1\n").unwrap_err().contains("wight"));
        for (rule, says) in [
            ("weights = [1]", "expected 2 numbers"),
            ("method = \"ties\"", "do not both take a base"),
            ("method = \"soup\"", "no method"),
            ("densities = [0.0, 1.0]", "density"),
        ] {
            let rules = Rules::parse(&format!("[[rule]]\nmatch = \"*\"\n{rule}\n")).unwrap();
            assert!(rules.apply("x", &usual()).unwrap_err().message.contains(says), "{rule}");
        }
    }
}
