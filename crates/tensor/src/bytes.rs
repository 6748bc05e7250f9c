//! Numbers of bytes for messages.

use std::fmt;

/// A number of bytes, written as people read it: `37 MiB`, `1.5 GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
        // Rounding must not leave 1024 of a unit.
        let (mut value, mut unit) = (self.0 as f64, 0);
        while value >= 1023.5 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        let decimals = usize::from(unit > 0 && value < 9.95);
        write!(f, "{value:.decimals$} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_or_more_figures() {
        let text = |n| Bytes(n).to_string();
        assert_eq!(text(0), "0 bytes");
        assert_eq!(text(1000), "1000 bytes");
        assert_eq!(text(1 << 20), "1.0 MiB");
        assert_eq!(text((1 << 30) - 1), "1.0 GiB");
        assert_eq!(text(37 << 20), "37 MiB");
        assert_eq!(text(3 << 29), "1.5 GiB");
        assert_eq!(text(u64::MAX), "16777216 TiB");
    }
}
