//! Quantities (`500m`, `1Gi`, `1e3`) as exact numbers, with the canonical form of `k8s.io/apimachinery/pkg/api/resource`.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A thousandth of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MilliCpu(pub i64);

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub i64);

/// The family of suffixes a quantity was written with, kept when it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// `m`, none, `k`, `M`, `G`, `T`, `P`, `E`.
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`, `Gi`, `Ti`, `Pi`, `Ei`.
    BinarySi,
    /// `e3`.
    DecimalExponent,
}

/// An exact amount, in billionths.
#[derive(Debug, Clone, Copy, Default)]
pub struct Amount {
    nano: i128,
    format: Format,
}

/// A text that is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct QuantityError;

const NANO: i128 = 1_000_000_000;
/// Larger amounts are capped, as Kubernetes does: 2^63-1.
const MAX_NANO: i128 = i64::MAX as i128 * NANO;

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self { nano: 0, format: Format::DecimalSi };

    /// A whole number.
    #[must_use]
    pub const fn from_value(value: i64) -> Self {
        Self { nano: value as i128 * NANO, format: Format::DecimalSi }
    }

    /// Thousandths.
    #[must_use]
    pub const fn from_milli(milli: i64) -> Self {
        Self { nano: milli as i128 * 1_000_000, format: Format::DecimalSi }
    }

    /// Billionths.
    #[must_use]
    pub const fn from_nano(nano: i64) -> Self {
        Self { nano: nano as i128, format: Format::DecimalSi }
    }

    /// A number of bytes, printed with binary suffixes.
    #[must_use]
    pub const fn from_bytes(bytes: i64) -> Self {
        Self { nano: bytes as i128 * NANO, format: Format::BinarySi }
    }

    /// Reads a quantity. Digits beyond a billionth are rounded up, amounts beyond 2^63-1 capped.
    ///
    /// # Errors
    /// The text is no quantity.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError);
        }
        let (scale, format) = Scale::parse(suffix)?;
        let digits = || whole.bytes().chain(fraction.bytes());
        let nano = scale.nano(digits(), fraction.len())?.min(MAX_NANO);
        Ok(Self { nano: if negative { -nano } else { nano }, format })
    }

    /// The amount of a `Quantity`.
    ///
    /// # Errors
    /// The text is no quantity.
    pub fn of(quantity: &Quantity) -> Result<Self, QuantityError> {
        Self::parse(&quantity.0)
    }

    /// Thousandths, rounded up.
    #[must_use]
    pub fn milli(self) -> i64 {
        clamp(div_up(self.nano, 1_000_000))
    }

    /// The whole number, rounded up.
    #[must_use]
    pub fn value(self) -> i64 {
        clamp(div_up(self.nano, NANO))
    }

    /// Billionths.
    #[must_use]
    pub const fn nano(self) -> i128 {
        self.nano
    }

    /// As thousandths of a core.
    #[must_use]
    pub fn milli_cpu(self) -> MilliCpu {
        MilliCpu(self.milli())
    }

    /// As bytes.
    #[must_use]
    pub fn bytes(self) -> Bytes {
        Bytes(self.value())
    }

    /// Less than nothing.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.nano < 0
    }

    /// Nothing at all.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.nano == 0
    }

    /// The canonical text as a `Quantity`.
    #[must_use]
    pub fn to_quantity(self) -> Quantity {
        Quantity(self.to_string())
    }
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}
impl Eq for Amount {}
impl std::hash::Hash for Amount {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.nano.hash(state);
    }
}
impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Amount {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nano.cmp(&other.nano)
    }
}
impl Add for Amount {
    type Output = Self;
    /// The sum, printed in the family of the first that is not zero.
    fn add(self, other: Self) -> Self {
        let format = if self.nano == 0 { other.format } else { self.format };
        Self { nano: self.nano.saturating_add(other.nano).clamp(-MAX_NANO, MAX_NANO), format }
    }
}
impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
impl Sub for Amount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + Self { nano: -other.nano, ..other }
    }
}
impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

fn clamp(v: i128) -> i64 {
    i64::try_from(v).unwrap_or(if v < 0 { i64::MIN } else { i64::MAX })
}

/// Division that rounds away from zero, as `Quantity.Value` does.
fn div_up(a: i128, b: i128) -> i128 {
    let (q, r) = (a / b, a % b);
    if r == 0 { q } else { q + a.signum() }
}

/// What a suffix multiplies by.
enum Scale {
    /// 10^n.
    Ten(i32),
    /// 2^n.
    Two(u32),
}

impl Scale {
    fn parse(suffix: &str) -> Result<(Self, Format), QuantityError> {
        use Format::{BinarySi, DecimalExponent, DecimalSi};
        Ok(match suffix {
            "" => (Self::Ten(0), DecimalSi),
            "n" => (Self::Ten(-9), DecimalSi),
            "u" => (Self::Ten(-6), DecimalSi),
            "m" => (Self::Ten(-3), DecimalSi),
            "k" => (Self::Ten(3), DecimalSi),
            "M" => (Self::Ten(6), DecimalSi),
            "G" => (Self::Ten(9), DecimalSi),
            "T" => (Self::Ten(12), DecimalSi),
            "P" => (Self::Ten(15), DecimalSi),
            "E" => (Self::Ten(18), DecimalSi),
            "Ki" => (Self::Two(10), BinarySi),
            "Mi" => (Self::Two(20), BinarySi),
            "Gi" => (Self::Two(30), BinarySi),
            "Ti" => (Self::Two(40), BinarySi),
            "Pi" => (Self::Two(50), BinarySi),
            "Ei" => (Self::Two(60), BinarySi),
            _ => {
                let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError)?;
                let exponent: i32 = exponent.parse().map_err(|_| QuantityError)?;
                (Self::Ten(exponent), DecimalExponent)
            }
        })
    }

    /// `digits`, of which the last `fraction` stand behind the point, times the scale, in billionths rounded up.
    fn nano(&self, digits: impl Iterator<Item = u8>, fraction: usize) -> Result<i128, QuantityError> {
        // 39 digits fit an i128; what is longer is either capped anyway or too fine to matter.
        const MAX_DIGITS: usize = 30;
        let mut mantissa: i128 = 0;
        let mut dropped = 0;
        let mut sticky = false;
        for (i, d) in digits.skip_while(|d| *d == b'0').enumerate() {
            if i < MAX_DIGITS {
                mantissa = mantissa * 10 + i128::from(d - b'0');
            } else {
                dropped += 1;
                sticky |= d != b'0';
            }
        }
        let fraction = i32::try_from(fraction).map_err(|_| QuantityError)?;
        let (power, twos) = match self {
            Self::Ten(n) => (n.saturating_add(9 + dropped - fraction), 0),
            Self::Two(n) => (9 + dropped - fraction, *n),
        };
        let shifted = mantissa.checked_mul(1_i128 << twos).unwrap_or(i128::MAX);
        if power >= 0 {
            let scaled = 10_i128.checked_pow(power.unsigned_abs()).and_then(|p| shifted.checked_mul(p));
            return Ok(if shifted == 0 { 0 } else { scaled.unwrap_or(MAX_NANO) });
        }
        match 10_i128.checked_pow(power.unsigned_abs()) {
            Some(p) => Ok(div_up(shifted, p) + i128::from(sticky && shifted % p == 0)),
            None => Ok(i128::from(shifted != 0)),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        // Binary suffixes are for whole numbers of at least 1024; anything else prints as decimal.
        let whole = self.nano % NANO == 0;
        if self.format == Format::BinarySi && whole && (self.nano / NANO).abs() >= 1024 {
            const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
            let mut value = self.nano / NANO;
            let mut i = 0;
            while value % 1024 == 0 && i + 1 < SUFFIXES.len() {
                value /= 1024;
                i += 1;
            }
            return write!(f, "{value}{}", SUFFIXES[i]);
        }
        const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        let mut value = self.nano;
        let mut i = 0;
        while value % 1000 == 0 && i + 1 < SUFFIXES.len() {
            value /= 1000;
            i += 1;
        }
        if self.format == Format::DecimalExponent {
            let exponent = (i32::try_from(i).unwrap_or(0) - 3) * 3;
            return if exponent == 0 { write!(f, "{value}") } else { write!(f, "{value}e{exponent}") };
        }
        write!(f, "{value}{}", SUFFIXES[i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_amounts_and_canonical_texts() {
        let cases = [
            ("0", 0, "0"),
            ("100m", 100, "100m"),
            ("1", 1000, "1"),
            ("0.5", 500, "500m"),
            (".5", 500, "500m"),
            ("1.", 1000, "1"),
            ("1000m", 1000, "1"),
            ("1Ki", 1_024_000, "1Ki"),
            ("1024Ki", 1_048_576_000, "1Mi"),
            ("1.5Gi", 1_610_612_736_000, "1536Mi"),
            ("0.5Ki", 512_000, "512"),
            ("1e3", 1_000_000, "1e3"),
            ("12E2", 1_200_000, "1200"),
            ("1k", 1_000_000, "1k"),
            ("-1", -1000, "-1"),
            ("+2", 2000, "2"),
            ("0.1n", 1, "1n"),
            ("128974848", 128_974_848_000, "128974848"),
            ("129M", 129_000_000_000, "129M"),
        ];
        for (text, milli, canonical) in cases {
            let amount = Amount::parse(text).unwrap();
            assert_eq!((amount.milli(), amount.to_string().as_str()), (milli, canonical), "{text}");
        }
        for bad in ["", "x", "1x", "1.2.3", "--1", "e3", "1e", "1 Gi", "1gi", "."] {
            assert_eq!(Amount::parse(bad), Err(QuantityError), "{bad}");
        }
    }

    #[test]
    fn huge_amounts_are_capped_and_tiny_ones_rounded_up() {
        assert_eq!(Amount::parse("100E").unwrap().value(), i64::MAX);
        assert_eq!(Amount::parse("1e100").unwrap().value(), i64::MAX);
        assert_eq!(Amount::parse("0e100").unwrap().value(), 0);
        assert_eq!(Amount::parse("1e-100").unwrap().milli(), 1);
        assert_eq!(Amount::parse("0.0001").unwrap().milli(), 1);
        assert_eq!(Amount::parse("99999999999999999999999999999999999999999999").unwrap().value(), i64::MAX);
    }
}
