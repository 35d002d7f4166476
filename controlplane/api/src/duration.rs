//! Spans of time as Go writes them (`time.Duration.String`): `1m30.5s`, `250ms`. The JSON of `metav1.Duration`.

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// The text of so many nanoseconds.
#[must_use]
pub fn format(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let span = nanoseconds.unsigned_abs();
    let text = match span {
        0 => "0s".to_owned(),
        1..MICRO => format!("{span}ns"),
        MICRO..MILLI => format!("{}µs", decimal(span, MICRO)),
        MILLI..SECOND => format!("{}ms", decimal(span, MILLI)),
        _ => {
            let minutes = span / (60 * SECOND);
            let seconds = decimal(span % (60 * SECOND), SECOND);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    };
    format!("{sign}{text}")
}

/// `span` in `unit`s, with no zeros behind the last digit.
fn decimal(span: u64, unit: u64) -> String {
    let (whole, rest) = (span / unit, span % unit);
    let width = unit.ilog10() as usize;
    let text = format!("{whole}.{rest:0width$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The nanoseconds of a text (`time.ParseDuration`); `None` if it is none, or more than an `i64` has room for.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0i128;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(end);
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (name, behind) = behind.split_at(end);
        total = total.checked_add(part(number, unit(name)?)?)?;
        rest = behind;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

fn unit(name: &str) -> Option<i128> {
    Some(i128::from(match name {
        "ns" => 1,
        "us" | "µs" | "μs" => MICRO,
        "ms" => MILLI,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3600 * SECOND,
        _ => return None,
    }))
}

/// A number with a fraction, in nanoseconds; what is less than one is dropped.
fn part(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let mut value = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()?.into() } * unit;
    let mut scale = unit;
    for digit in fraction.bytes() {
        scale /= 10;
        value += i128::from(digit - b'0') * scale;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_read_as_go_writes_them() {
        let check = |nanoseconds: i64, text: &str| {
            assert_eq!(format(nanoseconds), text);
            assert_eq!(parse(text), Some(nanoseconds), "{text}");
        };
        check(0, "0s");
        check(1, "1ns");
        check(1_100, "1.1µs");
        check(2_200_000, "2.2ms");
        check(3_300_000_000, "3.3s");
        check(10_062_000_000, "10.062s");
        check(60_000_000_000, "1m0s");
        check(245_000_000_000, "4m5s");
        check(18_367_001_000_000, "5h6m7.001s");
        check(-1_500_000_000, "-1.5s");
        check(i64::MIN, "-2562047h47m16.854775808s");
        check(i64::MAX, "2562047h47m16.854775807s");
    }

    #[test]
    fn other_texts_are_read_as_go_reads_them() {
        for (text, expect) in [
            ("0", Some(0)),
            ("+5s", Some(5_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            (".5s", Some(500_000_000)),
            ("5.s", Some(5_000_000_000)),
            ("1us", Some(1_000)),
            ("0.9ns", Some(0)),
            ("", None),
            ("-", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("1d", None),
            ("2562048h", None),
        ] {
            assert_eq!(parse(text), expect, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_span_comes_back(nanoseconds: i64) {
            prop_assert_eq!(parse(&format(nanoseconds)), Some(nanoseconds));
        }

        #[test]
        fn no_text_does_harm(text in "[-+0-9.nuµmsh]{0,12}") {
            let _ = parse(&text);
        }
    }
}
