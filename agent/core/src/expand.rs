//! `$(VAR)` in commands, arguments, environment values and `subPathExpr`, as Kubernetes expands them: `$$` is a dollar,
//! an unknown name stays as written.

/// Expands every reference that `lookup` knows.
pub fn expand(input: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = tail.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

/// Expands as [`expand`] does; the error names the references that `lookup` does not know, as the kubelet says it of a
/// `subPathExpr`.
pub fn expand_known(input: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let missing = std::cell::RefCell::new(Vec::new());
    let expanded = expand(input, |name| {
        let value = lookup(name);
        if value.is_none() {
            missing.borrow_mut().push(format!("{name:?}"));
        }
        value
    });
    let missing = missing.into_inner();
    if missing.is_empty() { Ok(expanded) } else { Err(format!("missing value for {}", missing.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands_as_kubernetes_does() {
        let lookup = |name: &str| match name {
            "VAR" => Some("foo".to_owned()),
            "DOLLAR" => Some("$(VAR)".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (input, expect) in [
            ("$(VAR)", "foo"),
            ("a-$(VAR)-b", "a-foo-b"),
            ("$$(VAR)", "$(VAR)"),
            ("$$$(VAR)", "$foo"),
            ("$$$$(VAR)", "$$(VAR)"),
            ("$(MISSING)", "$(MISSING)"),
            ("$(DOLLAR)", "$(VAR)"),
            ("$VAR", "$VAR"),
            ("$(VAR", "$(VAR"),
            ("x$", "x$"),
            ("$(EMPTY)|$(EMPTY)", "|"),
            ("", ""),
        ] {
            assert_eq!(expand(input, lookup), expect, "{input}");
        }
    }
}
