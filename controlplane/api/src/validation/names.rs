//! The rules for names, labels and their like (`k8s.io/apimachinery/pkg/util/validation`). Each function gives the texts of
//! the rules a value breaks, none when it is good.

/// The longest DNS-1123 label, RFC 1123.
pub const LABEL_MAX: usize = 63;
/// The longest DNS-1123 subdomain.
pub const SUBDOMAIN_MAX: usize = 253;

const DNS1123_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS1123_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS1035_LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_MAP_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENV_VAR_NAME: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";
const C_IDENTIFIER: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
/// What would end a segment of a path, or begin a code.
const PATH_SEGMENT: [char; 2] = ['/', '%'];

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// Whether all bytes are good and the ends are alphanumeric in the same alphabet.
fn shape(s: &str, inner: fn(u8) -> bool, end: fn(u8) -> bool) -> bool {
    match s.as_bytes() {
        [] => false,
        [only] => end(*only),
        [first, middle @ .., last] => end(*first) && end(*last) && middle.iter().all(|b| inner(*b)),
    }
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn lower_alnum_dash(b: u8) -> bool {
    lower_alnum(b) || b == b'-'
}

fn is_label(s: &str) -> bool {
    shape(s, lower_alnum_dash, lower_alnum)
}

/// RFC 1123 label: names of namespaces, containers, ports' hosts.
#[must_use]
pub fn dns1123_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_MAX {
        errors.push(too_long(LABEL_MAX));
    }
    if !is_label(value) {
        // Kubernetes names the wider rule when that one holds, since the dot is then what is wrong.
        if dns1123_subdomain(value).is_empty() {
            errors.push("must not contain dots".to_owned());
        } else {
            errors.push(DNS1123_LABEL.to_owned());
        }
    }
    errors
}

/// RFC 1123 subdomain: the names of most objects.
#[must_use]
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        errors.push(too_long(SUBDOMAIN_MAX));
    }
    if !value.split('.').all(is_label) {
        errors.push(DNS1123_SUBDOMAIN.to_owned());
    }
    errors
}

/// RFC 1035 label: names of Services.
#[must_use]
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_MAX {
        errors.push(too_long(LABEL_MAX));
    }
    if !is_label(value) || !value.as_bytes()[0].is_ascii_lowercase() {
        errors.push(DNS1035_LABEL.to_owned());
    }
    errors
}

fn name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')
}

fn alnum(b: u8) -> bool {
    b.is_ascii_alphanumeric()
}

/// `[prefix/]name`: keys of labels, annotations, taints, resources, finalizers.
#[must_use]
pub fn qualified_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let mut parts = value.splitn(3, '/');
    let (first, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let name = match (second, third) {
        (None, _) => first,
        (Some(name), None) => {
            if first.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(dns1123_subdomain(first).into_iter().map(|e| format!("prefix part {e}")));
            }
            name
        }
        (Some(_), Some(_)) => {
            let rule = QUALIFIED_NAME.strip_prefix("name part").unwrap_or(QUALIFIED_NAME);
            errors.push(format!(
                "a qualified name{rule} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
            return errors;
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        errors.push(format!("name part {}", too_long(LABEL_MAX)));
    }
    if !shape(name, name_byte, alnum) {
        errors.push(QUALIFIED_NAME.to_owned());
    }
    errors
}

/// The value of a label: empty or 63 characters at most.
#[must_use]
pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_MAX {
        errors.push(too_long(LABEL_MAX));
    }
    if !value.is_empty() && !shape(value, name_byte, alnum) {
        errors.push(LABEL_VALUE.to_owned());
    }
    errors
}

/// A key of a ConfigMap or a Secret, which becomes a file's name.
#[must_use]
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        errors.push(too_long(SUBDOMAIN_MAX));
    }
    if value.is_empty() || !value.bytes().all(name_byte) {
        errors.push(CONFIG_MAP_KEY.to_owned());
    }
    match value {
        "." => errors.push("must not be '.'".to_owned()),
        ".." => errors.push("must not be '..'".to_owned()),
        v if v.starts_with("..") => errors.push("must not start with '..'".to_owned()),
        _ => {}
    }
    errors
}

/// The name of an environment variable (relaxed since v1.34: any printable ASCII but `=`).
#[must_use]
pub fn env_var_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        Vec::new()
    } else {
        vec![ENV_VAR_NAME.to_owned()]
    }
}

/// A name that is safe as one segment of a URL's path: RBAC objects and events' lesser kin.
#[must_use]
pub fn path_segment(value: &str) -> Vec<String> {
    if matches!(value, "." | "..") {
        return vec![format!("may not be '{value}'")];
    }
    PATH_SEGMENT.iter().filter(|c| value.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// The name of a port: an IANA service name.
#[must_use]
pub fn port_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 15 {
        errors.push("must be no more than 15 characters".to_owned());
    }
    if !value.bytes().all(lower_alnum_dash) {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// An identifier as C and most languages have them: attributes of devices.
#[must_use]
pub fn c_identifier(value: &str) -> Vec<String> {
    let bytes = value.as_bytes();
    let start = bytes.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
    if start && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_') {
        Vec::new()
    } else {
        vec![C_IDENTIFIER.to_owned()]
    }
}

/// A domain of three labels at least: names of webhooks (`IsFullyQualifiedName`). At most one text.
#[must_use]
pub fn fully_qualified_name(value: &str) -> Option<String> {
    let broken = dns1123_subdomain(value);
    if !broken.is_empty() {
        Some(broken.join(","))
    } else if value.split('.').count() < 3 {
        Some("should be a domain with at least three segments separated by dots".to_owned())
    } else {
        None
    }
}

/// A port's number.
#[must_use]
pub fn port_number(value: i32) -> Vec<String> {
    if (1..=65_535).contains(&value) { Vec::new() } else { vec!["must be between 1 and 65535, inclusive".to_owned()] }
}

/// An absolute path's rule for ids of sets (`in`): a number that must not be negative.
#[must_use]
pub fn non_negative(value: i64) -> Vec<String> {
    if value < 0 { vec!["must be greater than or equal to 0".to_owned()] } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&str) -> Vec<String>, good: &[&str], bad: &[&str]) {
        for v in good {
            assert_eq!(rule(v), Vec::<String>::new(), "{v}");
        }
        for v in bad {
            assert!(!rule(v).is_empty(), "{v}");
        }
    }

    #[test]
    fn names_follow_their_rules() {
        let long = "a".repeat(64);
        check(dns1123_label, &["a", "0", "a-b", "9a"], &["", "-a", "a-", "A", "a.b", "a_b", &long]);
        check(dns1123_subdomain, &["a", "a.b", "1.2", &long], &["", ".", "a.", "a..b", "A.b", &"a".repeat(254)]);
        check(dns1035_label, &["a", "a1"], &["", "1a", "a.b", "a-"]);
        check(qualified_name, &["a", "A_b.c", "x.io/y"], &["", "/a", "a/", "a/b/c", "X/y", "-a", &long]);
        check(label_value, &["", "a", "A.b_c"], &["-", "a-", "a b", &long]);
        check(config_map_key, &["a", ".a", "A-b"], &["", ".", "..", "..a", "a/b"]);
        check(env_var_name, &["A", "a.b", "1"], &["", "a=b", "ä"]);
        check(c_identifier, &["a", "_1", "aB_9"], &["", "1a", "a-b", "a.b"]);
        let qualified = |value: &str| fully_qualified_name(value).into_iter().collect();
        check(qualified, &["a.b.c", "x.example.com"], &["", "a.b", "A.b.c"]);
        check(path_segment, &["system:node"], &[".", "..", "a/b", "a%b"]);
        check(port_name, &["http", "a-1"], &["", "1", "-a", "a--b", "HTTP", "abcdefghijklmnop"]);
    }
}
