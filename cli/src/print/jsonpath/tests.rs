use serde_json::{Value, json};

use super::JsonPath;

fn store() -> Value {
    json!({
        "kind": "List",
        "items": [
            {"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "x", "n": "1"}}, "spec": {"n": 1, "on": true},
             "status": {"addresses": [{"type": "InternalIP", "address": "1.1.1.1"}, {"type": "Hostname", "address": "h"}]}},
            {"metadata": {"name": "b"}, "spec": {"n": 2}, "status": {"addresses": []}},
        ],
        "users": [{"name": "e2e", "user": {"password": "secret"}}],
    })
}

fn check(template: &str, expect: &str) {
    let path = JsonPath::parse(template).unwrap_or_else(|error| panic!("{template}: {error}"));
    assert_eq!(path.render(&store()).as_deref(), Ok(expect), "{template}");
}

#[test]
fn paths_find_what_kubectl_finds() {
    for (template, expect) in [
        ("kind is {.kind}", "kind is List"),
        ("{.items[*].metadata.name}", "a b"),
        ("{.items[0].metadata.name}", "a"),
        ("{.items[-1:].metadata.name}", "b"),
        ("{.items[0:2:2].metadata.name}", "a"),
        ("{.items[*]['metadata.name', 'spec.n']}", "a b 1 2"),
        ("{.items[0].metadata.labels.app\\.kubernetes\\.io/name}", "x"),
        ("{.items[0].metadata.labels['app\\.kubernetes\\.io/name']}", "x"),
        ("{.items[0].metadata.labels}", r#"{"app.kubernetes.io/name":"x","n":"1"}"#),
        ("{range .items[*]}[{.metadata.name}, {.spec.n}] {end}", "[a, 1] [b, 2] "),
        ("{range .items[*]}{.metadata.name}{\"\\t\"}{.spec.n}{\"\\n\"}{end}", "a\t1\nb\t2\n"),
        ("{..password}", "secret"),
        ("{.items[?(@.spec.n==2)].metadata.name}", "b"),
        ("{.items[?(@.spec.n>=1)].metadata.name}", "a b"),
        ("{.items[?(@.spec.on)].metadata.name}", "a"),
        ("{.items[?(@.spec.on==true)].metadata.name}", "a"),
        ("{.items[?(@.metadata.name!=\"a\")].metadata.name}", "b"),
        ("{.items[*].status.addresses[?(@.type==\"InternalIP\")].address}", "1.1.1.1"),
        ("{.users[?(@.name=='e2e')].user.password}", "secret"),
        ("{.missing}", ""),
        ("{.items[*].metadata.missing}", ""),
        ("{range .items[*]}{range .status.addresses[*]}{.type};{end}{end}", "InternalIP;Hostname;"),
        ("{$.kind}{' '}{@.kind}", "List List"),
        ("plain", "plain"),
    ] {
        check(template, expect);
    }
}

#[test]
fn errors_say_what_is_wrong() {
    for (template, expect) in [
        ("{.items[*]", "unclosed action"),
        ("{end}", "not in range, nothing to end"),
        ("{range .items[*]}{.x}", "unexpected end of template: a range has no {end}"),
        ("{.items[}", "unterminated array"),
        ("{.items[x]}", "invalid array index x"),
        ("{foo}", "unrecognized identifier foo"),
        ("{.items[?(@.a=b)]}", "unrecognized filter operator ="),
    ] {
        let error = JsonPath::parse(template).expect_err(template);
        assert_eq!(error.to_string(), expect, "{template}");
    }
    let out_of_bounds = JsonPath::parse("{.items[9]}").and_then(|path| path.render(&store()));
    assert_eq!(out_of_bounds.expect_err("there is none").to_string(), "array index out of bounds: index 9, length 2");
}

#[test]
fn relaxed_paths_need_no_braces() {
    for path in ["metadata.name", ".metadata.name", "{metadata.name}", "{.metadata.name}"] {
        let found = JsonPath::relaxed(path).and_then(|path| path.find(&json!({"metadata": {"name": "n"}})));
        assert_eq!(found, Ok(vec![json!("n")]), "{path}");
    }
    assert!(JsonPath::relaxed("").is_err());
}
