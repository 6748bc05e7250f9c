//! Sizes in bytes, as people write and read them.

/// Reads `4096`, `512MiB`, `4GB`, `1.5G`. Units with an `i`, and single letters, are powers of 1024.
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is not a size: write 512MiB or 4GB"))?;
    let unit = unit.trim().to_lowercase();
    let powers = ["", "k", "m", "g", "t"];
    let base = if unit.ends_with('b') && !unit.ends_with("ib") { 1000f64 } else { 1024f64 };
    let letter = unit.trim_end_matches('b').trim_end_matches('i');
    let power = powers
        .iter()
        .position(|p| *p == letter)
        .ok_or_else(|| format!("{unit:?} is not a unit: use KiB, MiB, GiB, KB, MB, GB"))?;
    Ok((number * base.powi(power as i32)) as u64)
}

/// Writes a number of bytes with three figures: `1.19 GB`.
pub fn show(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = if unit == 0 || value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("512MiB"), Ok(512 << 20));
        assert_eq!(parse("4GB"), Ok(4_000_000_000));
        assert_eq!(parse("1.5g"), Ok(3 << 29));
        assert!(parse("a lot").is_err());
        assert!(parse("4 parsecs").is_err());
    }

    #[test]
    fn sizes_are_written() {
        assert_eq!(show(999), "999 B");
        assert_eq!(show(1_191_586_416), "1.19 GB");
        assert_eq!(show(39_500_000), "39.5 MB");
    }
}
