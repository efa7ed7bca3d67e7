//! Durations and amounts of bytes.
//!
//! [Specification](https://github.com/compose-spec/compose-spec/blob/main/11-extension.md#specifying-durations)

use std::fmt::Write;
use std::time::Duration;

const UNITS: [(&str, u128); 10] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
];

/// Parses a duration like `1m30s`, `2.5s` or `1d`; nothing where the text is none, or is negative.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0_u128;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        nanos = nanos.checked_add(scaled(number, *scale)?)?;
        rest = tail;
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    (nanos <= i64::MAX as u128)
        .then(|| Duration::new(seconds, u32::try_from(nanos % 1_000_000_000).unwrap_or(0)))
}

/// A decimal number times `scale`, cut to a whole one.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || number.len() > 24 {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let part = digits(fraction)?.checked_mul(scale)? / 10_u128.checked_pow(fraction.len() as u32)?;
    digits(whole)?.checked_mul(scale)?.checked_add(part)
}

/// Writes a duration like `1h2m3.5s`, `1m0s` or `300ms`.
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    if nanos < 1_000_000_000 {
        let units = [("ns", 1), ("µs", 1_000), ("ms", 1_000_000)];
        let (unit, scale) =
            units.into_iter().rfind(|(_, scale)| nanos >= *scale).unwrap_or(("ns", 1));
        return fraction(nanos, scale) + unit;
    }
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let mut out = String::new();
    if hours > 0 {
        let _ = write!(out, "{hours}h");
    }
    if seconds >= 60 {
        let _ = write!(out, "{minutes}m");
    }
    out + &fraction(nanos % 60_000_000_000, 1_000_000_000) + "s"
}

fn fraction(value: u128, scale: u128) -> String {
    let width = scale.ilog10() as usize;
    let text = format!("{}.{:0width$}", value / scale, value % scale);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Parses an amount of bytes like `64m`, `1.5gb` or `1024`, in powers of 1024; a negative number
/// stands for no limit. Nothing where the text is none of that.
pub fn parse_bytes(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let digits = text.rfind(|c: char| c.is_ascii_digit() || c == '.').map_or(0, |at| at + 1);
    let (number, unit) = text.split_at(digits);
    let number = number.replace('_', "");
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let scale = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    if number.contains(['e', 'E']) {
        let amount = number.parse::<f64>().ok()? * 1024_f64.powi(scale as i32);
        return (0.0..9e18).contains(&amount).then_some(amount as i64);
    }
    i64::try_from(scaled(&number, 1024_u128.pow(scale))?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_trip() {
        for text in
            ["0s", "1m0s", "2m0s", "1h2m3.5s", "300ms", "1.5ms", "10ns", "26h0m1s", "1h0m0s"]
        {
            assert_eq!(parse_duration(text).map(format_duration).as_deref(), Some(text));
        }
        assert_eq!(parse_duration("1m30s"), Some(Duration::from_secs(90)));
        for text in ["", "1", "s", "1x", "-1s", "1s ", ".s", "99999999999999999999999999h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn amounts_of_bytes() {
        for (text, bytes) in [("64m", 67_108_864), ("640kb", 655_360), ("1.5 GiB", 1_610_612_736)] {
            assert_eq!(parse_bytes(text), Some(bytes));
        }
        assert_eq!((parse_bytes("-1"), parse_bytes("1024")), (Some(-1), Some(1024)));
        for text in ["", "m", "1x", "-2k", "9999999999999999999p"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }
}
