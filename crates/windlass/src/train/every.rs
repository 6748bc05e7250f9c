//! How often something happens: after so many steps, or so much time.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `500` steps, or `90s`, `15m`, `2h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    Steps(u64),
    Time(Duration),
}

impl Every {
    /// Whether it is time, after `step` and so long after the last time.
    pub fn is_due(&self, step: u64, since: Duration) -> bool {
        match self {
            Every::Steps(steps) => step.is_multiple_of(*steps),
            Every::Time(time) => since >= *time,
        }
    }
}

impl std::str::FromStr for Every {
    type Err = String;

    fn from_str(text: &str) -> Result<Every, String> {
        let wrong =
            || format!("{text:?} is neither a number of steps, such as 500, nor a time, such as 90s, 15m or 2h");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        let seconds = match &text[digits.len()..] {
            "" => return if number > 0 { Ok(Every::Steps(number)) } else { Err(wrong()) },
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3600,
            _ => return Err(wrong()),
        };
        number.checked_mul(seconds).map(|seconds| Every::Time(Duration::from_secs(seconds))).ok_or_else(wrong)
    }
}

impl<'de> Deserialize<'de> for Every {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Every, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let text = value.as_str().map_or_else(|| value.to_string(), String::from);
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Every {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Every::Steps(steps) => serializer.serialize_u64(*steps),
            Every::Time(time) => serializer.serialize_str(&format!("{}s", time.as_secs())),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_times_are_read() {
        assert_eq!("500".parse(), Ok(Every::Steps(500)));
        for (text, seconds) in [("90s", 90), ("15m", 900), ("15min", 900), ("2h", 7200)] {
            assert_eq!(text.parse(), Ok(Every::Time(Duration::from_secs(seconds))));
        }
        for text in ["", "0", "-1", "1.5", "ten", "5 d", "99999999999999999h", "é"] {
            assert!(text.parse::<Every>().is_err(), "{text}");
        }
        assert_eq!(serde_json::from_str::<Every>("7").unwrap(), Every::Steps(7));
        assert_eq!(serde_json::to_string(&serde_json::from_str::<Every>("\"2h\"").unwrap()).unwrap(), "\"7200s\"");
        assert!(Every::Steps(5).is_due(10, Duration::ZERO) && !Every::Steps(5).is_due(11, Duration::MAX));
        assert!(Every::Time(Duration::from_secs(5)).is_due(11, Duration::from_secs(6)));
    }
}
