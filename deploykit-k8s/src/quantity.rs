//! Amounts as Kubernetes writes them: `500m`, `1.5Gi`, `12e6`
//! ([apimachinery's `resource`](https://pkg.go.dev/k8s.io/apimachinery/pkg/api/resource#Quantity)).

use std::fmt;
use std::str::FromStr;

/// The finest step: a thousand-millionth.
const NANO: i32 = -9;

/// How the unit of an amount was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `Ki`, `Mi`, …: powers of 1024.
    BinarySi,
    /// `m`, `k`, `M`, … or nothing: powers of 1000.
    DecimalSi,
    /// `e6`: a power of ten.
    DecimalExponent,
}

/// An amount: `unscaled` times ten to the `scale`.
///
/// ```
/// use deploykit_k8s::Quantity;
/// let memory: Quantity = "1.5Gi".parse()?;
/// assert_eq!(memory.to_u64(), Some(1_610_612_736));
/// assert_eq!(memory.to_string(), "1536Mi");
/// # Ok::<(), deploykit_k8s::QuantityError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    unscaled: i128,
    scale: i32,
    format: Format,
}

/// Why a text is not an amount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantityError(String);

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not an amount; write it like 500m, 2, 1.5Gi or 12e6", self.0)
    }
}

impl std::error::Error for QuantityError {}

const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

const BINARY: [(&str, u32); 6] =
    [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

enum Unit {
    PowerOfTwo(u32),
    PowerOfTen(i32, Format),
}

fn unit(suffix: &str) -> Option<Unit> {
    if let Some((_, power)) = BINARY.iter().find(|(known, _)| *known == suffix) {
        return Some(Unit::PowerOfTwo(*power));
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(known, _)| *known == suffix) {
        return Some(Unit::PowerOfTen(*power, Format::DecimalSi));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let written = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let power = exponent.parse().ok().filter(|_| written)?;
    Some(Unit::PowerOfTen(power, Format::DecimalExponent))
}

/// Splits `-12.50Gi` into sign, digits before and after the point, and suffix.
fn parts(text: &str) -> (bool, &str, &str, &str) {
    let negative = text.starts_with('-');
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = text.split_at(digits(text));
    match rest.strip_prefix('.') {
        Some(rest) => {
            let (fraction, suffix) = rest.split_at(digits(rest));
            (negative, whole, fraction, suffix)
        }
        None => (negative, whole, "", rest),
    }
}

fn power_of_ten(power: i32) -> Option<i128> {
    10i128.checked_pow(u32::try_from(power).ok()?)
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error = || QuantityError(text.to_owned());
        let (negative, whole, fraction, suffix) = parts(text);
        if whole.is_empty() && fraction.is_empty() {
            return Err(error());
        }
        let digits = format!("{whole}{fraction}");
        let mut unscaled: i128 = digits.parse().map_err(|_| error())?;
        let mut scale = -i32::try_from(fraction.len()).map_err(|_| error())?;
        let mut format = match unit(suffix).ok_or_else(error)? {
            Unit::PowerOfTen(power, format) => {
                scale = scale.checked_add(power).ok_or_else(error)?;
                format
            }
            Unit::PowerOfTwo(power) => {
                unscaled = unscaled.checked_mul(1 << power).ok_or_else(error)?;
                Format::BinarySi
            }
        };
        if scale < NANO {
            // Who asks for some gets some: what is finer than the finest step is rounded up.
            unscaled = match power_of_ten(NANO - scale) {
                Some(step) => unscaled / step + i128::from(unscaled % step != 0),
                None => i128::from(unscaled != 0),
            };
            scale = NANO;
        }
        let mut amount = Self { unscaled, scale, format };
        if format == Format::BinarySi {
            let cap = Self { unscaled: i64::MAX.into(), scale: 0, format };
            if amount.floor().is_none_or(|floor| floor >= cap.unscaled) {
                amount = cap;
            }
            let one = power_of_ten(-amount.scale).ok_or_else(error)?;
            if (1..one).contains(&amount.unscaled) {
                format = Format::DecimalSi;
            }
        }
        if negative {
            amount.unscaled = -amount.unscaled;
        }
        Ok(Self { format, ..amount })
    }
}

impl Quantity {
    /// How the unit was written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The whole units in it, towards zero; nothing where they are too many to count.
    fn floor(&self) -> Option<i128> {
        match power_of_ten(-self.scale) {
            Some(step) => Some(self.unscaled / step),
            None => self.unscaled.checked_mul(power_of_ten(self.scale)?),
        }
    }

    /// The amount as a whole number, rounded up; nothing where it is negative or too large.
    pub fn to_u64(&self) -> Option<u64> {
        let whole = self.floor()?;
        let exact = power_of_ten(-self.scale).is_none_or(|step| self.unscaled % step == 0);
        u64::try_from(whole).ok()?.checked_add(u64::from(!exact))
    }

    /// The digits without zeros at the end, and the power of ten that they are multiplied by.
    pub fn normal(&self) -> (i128, i32) {
        let (mut unscaled, mut scale) = (self.unscaled, self.scale);
        if unscaled == 0 {
            return (0, 0);
        }
        while unscaled % 10 == 0 {
            unscaled /= 10;
            scale += 1;
        }
        (unscaled, scale)
    }
}

/// In the shortest form that Kubernetes writes: no digits after a point, the largest unit.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut digits, mut power) = self.normal();
        if digits == 0 {
            return f.write_str("0");
        }
        if self.format == Format::BinarySi
            && power >= 0
            && let Some(mut whole) = self.floor().filter(|whole| whole.abs() >= 1024)
        {
            let mut suffix = "";
            for (larger, _) in BINARY {
                if whole % 1024 != 0 {
                    break;
                }
                whole /= 1024;
                suffix = larger;
            }
            return write!(f, "{whole}{suffix}");
        }
        while power % 3 != 0 || (self.format != Format::DecimalExponent && power > 18) {
            digits *= 10;
            power -= 1;
        }
        match DECIMAL.iter().find(|(_, known)| *known == power) {
            Some((suffix, _)) if self.format != Format::DecimalExponent || power == 0 => {
                write!(f, "{digits}{suffix}")
            }
            _ => write!(f, "{digits}e{power}"),
        }
    }
}
