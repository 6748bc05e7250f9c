//! Tensor types: the numbers that files store, and the elements they stand for.

use windlass_quant::Packing;
use windlass_tensor::{DType, Element};

/// Type ids with the name of the plain type or of the scheme. Whether the scheme is there is asked when it is needed.
const TYPES: [(u32, &str); 35] = [
    (0, "f32"),
    (1, "f16"),
    (2, "q4_0"),
    (3, "q4_1"),
    (6, "q5_0"),
    (7, "q5_1"),
    (8, "q8_0"),
    (10, "q2_k"),
    (11, "q3_k"),
    (12, "q4_k"),
    (13, "q5_k"),
    (14, "q6_k"),
    (16, "iq2_xxs"),
    (17, "iq2_xs"),
    (18, "iq3_xxs"),
    (19, "iq1_s"),
    (20, "iq4_nl"),
    (21, "iq3_s"),
    (22, "iq2_s"),
    (23, "iq4_xs"),
    (24, "i8"),
    (25, "i16"),
    (26, "i32"),
    (27, "i64"),
    (28, "f64"),
    (29, "iq1_m"),
    (30, "bf16"),
    (34, "tq1_0"),
    (35, "tq2_0"),
    (39, "mxfp4"),
    (40, "nvfp4"),
    (41, "q1_0"),
    (42, "q2_0"),
    (9, "q8_1"),
    (15, "q8_k"),
];

/// Names of all tensor types that can be written now.
pub(super) fn holdable() -> Vec<String> {
    let there = |name: &&str| element_named(name).is_some();
    TYPES.iter().map(|row| row.1).filter(there).map(String::from).collect()
}

/// The id under which files store `element`, if they can.
pub fn type_id(element: &Element) -> Option<u32> {
    let id = TYPES.iter().find(|row| row.1.eq_ignore_ascii_case(element.name()))?.0;
    // A user's plain type may bear a scheme's name, or the other way round; only the right kind is stored.
    (element_named(element.name())? == *element).then_some(id)
}

/// The element that a type id stands for, or why there is none.
pub fn element(id: u32) -> Result<Element, String> {
    if let Some((_, name)) = TYPES.iter().find(|row| row.0 == id) {
        return element_named(name)
            .ok_or_else(|| format!("type id {id} ({name}) is known, but there is no scheme of this name to read it"));
    }
    Err(match id {
        4 | 5 | 31..=33 | 36..=38 => {
            format!("type id {id} was removed from the format; make the file anew with a current llama.cpp")
        }
        43.. => format!("type id {id} is not known (known are 0 to 42): newer than this program, or a damaged file"),
        _ => format!("type id {id} was never assigned"),
    })
}

fn element_named(name: &str) -> Option<Element> {
    if let Some(dtype) = DType::built_in().find(|d| d.name().eq_ignore_ascii_case(name)) {
        return Some(dtype.into());
    }
    let scheme = windlass_quant::scheme(name).ok()?;
    Some(Packing { scheme, float: DType::F32 }.element())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_elements_go_there_and_back() {
        for (id, name) in TYPES {
            if let Ok(element) = element(id) {
                assert!(element.name().eq_ignore_ascii_case(name));
                assert_eq!(type_id(&element), Some(id));
            }
        }
        assert_eq!(element(30), Ok(DType::BF16.into()));
        assert_eq!(type_id(&DType::F8E4M3.into()), None);
        assert_eq!(type_id(&DType::Bool.into()), None);
    }

    #[test]
    fn refusals_name_the_type_id() {
        for (id, phrase) in [(4, "removed"), (33, "removed"), (43, "newer"), (u32::MAX, "newer"), (9, "no scheme")] {
            let message = element(id).unwrap_err();
            assert!(message.contains(phrase) && message.contains(&id.to_string()), "{message}");
        }
    }
}
