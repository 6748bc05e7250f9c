//! Every scheme, by name. Adding one costs its file and one line in the list of its family.

use std::sync::RwLock;

use crate::{Error, SchemeRef};

/// The schemes of each family, in the order in which they are listed.
static FAMILIES: &[fn() -> Vec<SchemeRef>] = &[
    crate::ggml::schemes,
    crate::mlx::schemes,
    crate::bnb::schemes,
    crate::hqq::schemes,
    crate::quanto::schemes,
    crate::gptq::schemes,
    crate::awq::schemes,
    crate::compressed::schemes,
    crate::fp8::schemes,
    crate::nvfp4::schemes,
];

static USER: RwLock<Vec<SchemeRef>> = RwLock::new(Vec::new());

/// All schemes: the built-in ones, then those registered from outside.
pub fn schemes() -> Vec<SchemeRef> {
    let mut all: Vec<SchemeRef> = FAMILIES.iter().flat_map(|family| family()).collect();
    all.extend(USER.read().unwrap_or_else(|e| e.into_inner()).iter());
    all
}

/// The scheme of this name; upper or lower case.
pub fn scheme(name: &str) -> Result<SchemeRef, Error> {
    let all = schemes();
    if let Some(found) = all.iter().find(|s| s.name().eq_ignore_ascii_case(name)) {
        return Ok(*found);
    }
    Err(Error::Unknown { name: name.into(), suggestion: nearest(name, all.iter().map(|s| s.name())).map(String::from) })
}

/// Adds a scheme of one's own. It lives until the process ends.
pub fn register(scheme: Box<dyn crate::Scheme>) -> Result<SchemeRef, Error> {
    if self::scheme(scheme.name()).is_ok() {
        return Err(Error::Recipe(format!("a scheme called {:?} is registered already", scheme.name())));
    }
    let leaked: SchemeRef = Box::leak(scheme);
    USER.write().unwrap_or_else(|e| e.into_inner()).push(leaked);
    Ok(leaked)
}

/// The candidate that takes the fewest edits, if it is near enough to be a slip of the keyboard. `_` and `-` count for
/// nothing: `q4km` is `q4_k_m`.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['_', '-'], "");
    let wanted = plain(name);
    let distance = |c: &'a str| (edits(&wanted, &plain(c)), edits(name, c), c);
    candidates.map(distance).min().filter(|(n, _, _)| *n <= 1 + wanted.len() / 4).map(|(_, _, c)| c)
}

fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let keep = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = keep.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    #[test]
    fn separators_do_not_count_among_slips() {
        let near = |name| super::nearest(name, ["q4_0", "q4_k", "q4_k_m", "mlx4-g64"].into_iter());
        assert_eq!(near("q4km"), Some("q4_k_m"));
        assert_eq!(near("Q4-K-M"), Some("q4_k_m"));
        assert_eq!(near("mlx4_g64"), Some("mlx4-g64"));
        assert_eq!(near("q4_1"), Some("q4_0"));
        assert_eq!(near("resnet"), None);
    }
}
