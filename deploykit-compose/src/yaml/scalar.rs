//! What a plain scalar is.
//!
//! The rules are those of Go's YAML library, which Compose reads with: YAML 1.2 booleans (`yes` is
//! a text until a field asks for a boolean), YAML 1.1 octals and underscores in numbers.

use super::Value;

/// The value of a plain scalar without a tag.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Value::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return Value::from(text);
    }
    let plain = text.replace('_', "");
    if let Some(number) = whole(&plain) {
        return Value::Int(number);
    }
    match decimal(&plain).then(|| plain.parse::<f64>()) {
        Some(Ok(number)) => Value::Float(number),
        _ => Value::from(text),
    }
}

fn whole(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', rest @ ..] if !rest.is_empty() => (16, &lower[2..]),
        [b'0', b'o', rest @ ..] if !rest.is_empty() => (8, &lower[2..]),
        [b'0', b'b', rest @ ..] if !rest.is_empty() => (2, &lower[2..]),
        [b'0', rest @ ..] if !rest.is_empty() => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let number = i64::from_str_radix(digits, radix).ok()?;
    Some(if negative { -number } else { number })
}

fn decimal(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_fits = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['-', '+']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    (!whole.is_empty() || !fraction.is_empty())
        && digits(whole)
        && digits(fraction)
        && exponent_fits
}

/// A number as the shortest text that is the same number, with an exponent where it is very large
/// or very small.
pub(crate) fn format_float(number: f64) -> String {
    if number == 0.0 {
        return "0".into();
    }
    let exponent = number.abs().log10().floor();
    if (-4.0..21.0).contains(&exponent) || !number.is_finite() {
        return number.to_string();
    }
    let text = format!("{number:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = match exponent.strip_prefix('-') {
                Some(digits) => ('-', digits),
                None => ('+', exponent),
            };
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_plain_scalars_are() {
        for (text, number) in [
            ("0440", 288),
            ("0o17", 15),
            ("0x1F", 31),
            ("0b11", 3),
            ("1_000", 1000),
            ("-7", -7),
            ("0", 0),
        ] {
            assert_eq!(resolve(text), Value::Int(number), "{text}");
        }
        for (text, number) in [("2.5", 2.5), ("1e3", 1000.0), ("08", 8.0), (".5", 0.5)] {
            assert_eq!(resolve(text), Value::Float(number), "{text}");
        }
        for text in ["yes", "no", "on", "1.2.3", "-", "+", ".", "1e", "0x", "12:30", "1m"] {
            assert_eq!(resolve(text), Value::from(text), "{text}");
        }
    }

    #[test]
    fn numbers_as_text() {
        for (number, text) in [(2.5, "2.5"), (1e21, "1e+21"), (1e-7, "1e-07"), (3.0, "3")] {
            assert_eq!(format_float(number), text);
        }
    }
}
