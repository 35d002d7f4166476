//! What a file of registries says of images, and what of it is refused.

use super::*;

fn parse(text: &str) -> Result<Registries, String> {
    Registries::parse(text).map_err(|wrong| format!("{}: {}", wrong.line, wrong.message))
}

/// Where an image is asked for: URL of its manifests' folder, what its logins go by, and whose login is known.
fn places(registries: &Registries, image: &str) -> Vec<String> {
    let reference: ImageReference = image.parse().unwrap();
    let show = |endpoint: &Endpoint<'_>| {
        let (login, tls) = (endpoint.login.map(|(user, _)| user.as_str()), endpoint.client.is_some());
        let more =
            format!("{}{}", login.map(|user| format!(" as {user}")).unwrap_or_default(), if tls { " tls" } else { "" });
        format!("{}{} [{}]{more}", endpoint.base, endpoint.path, endpoint.repository)
    };
    registries.endpoints(&reference).unwrap().iter().map(show).collect()
}

#[test]
fn mirrors_come_before_the_registry_itself() {
    let registries = parse(
        r#"
mirrors:
  docker.io:
    endpoint: ["https://one.example:5000", "http://two.example/v2/", "three.example/proxy/hub"]
    rewrite: {"^library/(.*)": "hub/$1", "^team/": "other/"}
  "*":
    endpoint: [https://all.example]
  short.example: {endpoint: ["http://mirror/"]}
  own.example:
configs:
  one.example:5000:
    auth: {username: u, password: p}
  "all.example":
    auth: {auth: YTpi}
    tls: {insecure_skip_verify: true}
  registry-1.docker.io:
    auth: {username: hub, password: p}
"#,
    )
    .unwrap();
    assert_eq!(
        places(&registries, "hello"),
        [
            "https://one.example:5000/v2/hub/hello [one.example:5000/hub/hello] as u",
            "http://two.example/v2/hub/hello [two.example/hub/hello]",
            "https://three.example/proxy/hub/hub/hello [three.example/hub/hello]",
            "https://index.docker.io/v2/library/hello [docker.io/library/hello] as hub",
        ]
    );
    assert_eq!(
        places(&registries, "team/x/y")[0],
        "https://one.example:5000/v2/other/x/y [one.example:5000/other/x/y] as u"
    );
    assert_eq!(places(&registries, "else/x")[0], "https://one.example:5000/v2/else/x [one.example:5000/else/x] as u");
    assert_eq!(
        places(&registries, "quay.io/x"),
        ["https://all.example/v2/x [all.example/x] as a tls", "https://quay.io/v2/x [quay.io/x]"]
    );
    let short = places(&registries, "short.example/x");
    assert_eq!(short[0], "http://mirror/v2/x [mirror:80/x]", "it gets no login that is meant for Docker Hub");
    assert_eq!(places(&registries, "own.example/x"), ["https://own.example/v2/x [own.example/x]"]);
    let reference = "docker.io/hello".parse().unwrap();
    assert!(registries.redirect(&reference));
    assert_eq!(registries.login(&reference).unwrap().0, "hub");
    assert!(!format!("{registries:?}").contains("\"u\""));
}

#[test]
fn a_host_with_certificates_is_spoken_to_with_them() {
    let registries = parse("configs:\n  localhost:5000:\n    tls: {insecure_skip_verify: true}\n  a.example: {auth: {username: u, password: p}}\n").unwrap();
    assert_eq!(places(&registries, "localhost:5000/x"), ["https://localhost:5000/v2/x [localhost:5000/x] tls"]);
    assert_eq!(places(&registries, "localhost:5001/x"), ["http://localhost:5001/v2/x [localhost:5001/x]"]);
    assert!(registries.redirect(&"localhost:5000/x".parse().unwrap()));
    assert!(!registries.redirect(&"a.example/x".parse().unwrap()), "a login is told with the pull");
    assert_eq!(registries.redirected(), ["localhost:5000"]);
    let any = parse("configs: {\"*\": {tls: {insecure_skip_verify: true}}}").unwrap();
    assert_eq!(places(&any, "a.example/x"), ["https://a.example/v2/x [a.example/x] tls"]);
}

#[test]
fn an_empty_file_says_nothing() {
    for text in ["", "# nothing\n", "mirrors:\nconfigs:\n"] {
        assert!(parse(text).unwrap().is_empty(), "{text:?}");
    }
    let nothing = Registries::default();
    assert_eq!(places(&nothing, "hello"), ["https://index.docker.io/v2/library/hello [docker.io/library/hello]"]);
    assert!(!nothing.redirect(&"hello".parse().unwrap()));
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_field() {
    for (text, line, words) in [
        ("mirrors:\n  docker.io:\n    endpoints: [x]\n", 3, "endpoints"),
        ("mirror: {}\n", 1, "mirror"),
        ("mirrors: [docker.io]\n", 1, ""),
        (
            "mirrors:\n  docker.io:\n    endpoint:\n    - https://a\n    - ftp://b\n",
            5,
            "mirrors.\"docker.io\".endpoint: \"ftp://b\" is no URL",
        ),
        ("mirrors:\n  docker.io:\n    endpoint: [\"https://u:sesame@a\"]\n", 3, "a login stands under configs"),
        ("mirrors:\n  a.io:\n    endpoint: [https://a/?x]\n", 3, "more than a host and a path"),
        (
            "mirrors:\n  a.io:\n    rewrite:\n      \"(\": x\n",
            4,
            "mirrors.\"a.io\".rewrite.\"(\": this is no regular expression",
        ),
        (
            "configs:\n  a.io:\n    auth: {username: sesame}\n",
            3,
            "configs.\"a.io\".auth: wanted is username with password",
        ),
        ("configs:\n  a.io:\n    auth:\n      auth: c2VzYW1l\n", 4, "auth must be base64 of username:password"),
        ("configs:\n  a.io:\n    auth:\n      identity_token: sesame\n", 4, "identity_token"),
        (
            "configs:\n  a.io:\n    tls:\n      ca_file: /no/such/file\n",
            4,
            "configs.\"a.io\".tls.ca_file: /no/such/file: No such file",
        ),
        ("configs:\n  a.io:\n    tls:\n      ca_file: /dev/null\n", 4, "there is no certificate in it"),
        ("configs:\n  a.io:\n    tls:\n      key_file: /dev/null\n", 4, "cert_file and key_file are wanted together"),
        ("configs:\n  a.io:\n    tls: {cert_file: /dev/null, key_file: /dev/null}\n", 3, "no certificate with its key"),
        ("configs:\n  a.io:\n    auth: {username: a, password: sesame}\n    tls: {insecure: true}\n", 4, "insecure"),
    ] {
        let error = parse(text).unwrap_err();
        let (found, message) = error.split_once(": ").unwrap();
        assert_eq!(found.parse::<u64>().unwrap(), line, "{text}\n{error}");
        assert!(message.contains(words) && !message.contains("sesame"), "{text}\n{error}");
    }
    let missing = Registries::read(Path::new("/no/such/registries.yaml")).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read the registries in /no/such/registries.yaml: "), "{missing}");
}
