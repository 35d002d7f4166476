//! pure: what a server behind `proxy` says of its own places, told so that a browser in front of it finds them: paths of links and
//! redirects get the path of the proxy before them, as Kubernetes' API server does it.

use std::collections::BTreeMap;

use html5gum::{DefaultEmitter, HtmlString, Spanned, StartTag, Token, Tokenizer};

/// Attributes that hold a URL, by their elements (HTML, section "Attributes", and those that HTML 4 had).
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Where the server's root is for those in front of the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root {
    /// The path of the proxy, without a slash at its end.
    pub(super) path: String,
    /// What the server itself is called: host and port.
    pub(super) server: String,
    /// What the proxy was called by who asks: host and port.
    pub(super) proxy: String,
}

impl Root {
    /// The place of a URL of the server's; `None` if it stays as it is.
    pub(super) fn url(&self, url: &str) -> Option<String> {
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, _)) if is_scheme(scheme) => (&url[..scheme.len() + 1], &url[scheme.len() + 1..]),
            _ => ("", url),
        };
        let (host, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
            None => ("", rest),
        };
        let is_elsewhere = !host.is_empty() && host != self.server && host != self.proxy;
        if is_elsewhere || !path.starts_with('/') {
            return None;
        }
        let before = if host == self.proxy && !host.is_empty() { format!("{scheme}//{host}") } else { String::new() };
        let is_below =
            path.strip_prefix(&self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']));
        let prefix = if is_below { "" } else { &self.path };
        Some(format!("{before}{prefix}{path}")).filter(|new| new != url)
    }

    /// A page with its links told so. What holds no such link stays as it is, byte by byte.
    pub(super) fn page(&self, page: &[u8]) -> Vec<u8> {
        let mut emitter = DefaultEmitter::<usize>::new_with_span();
        // Text of scripts and styles is none of the page's.
        emitter.naively_switch_states(true);
        let mut out = Vec::with_capacity(page.len() + page.len() / 16);
        let mut copied = 0;
        for token in Tokenizer::new_with_emitter(page, emitter) {
            let Ok(token) = token;
            let Token::StartTag(tag) = token else { continue };
            let (Some(text), Some(before)) = (page.get(tag.span.start..tag.span.end), page.get(copied..tag.span.start))
            else {
                continue;
            };
            if let Some(rewritten) = self.tag(&tag).filter(|_| text.starts_with(b"<") && text.ends_with(b">")) {
                out.extend_from_slice(before);
                out.extend_from_slice(&rewritten);
                copied = tag.span.end;
            }
        }
        out.extend_from_slice(page.get(copied..).unwrap_or_default());
        out
    }

    /// The text of a tag that has a link to be told otherwise.
    fn tag(&self, tag: &StartTag<usize>) -> Option<Vec<u8>> {
        let (_, links) = LINKS.iter().find(|(name, _)| name.as_bytes() == &*tag.name.0)?;
        let new: BTreeMap<&HtmlString, String> = tag
            .attributes
            .iter()
            .filter(|(name, _)| links.iter().any(|link| link.as_bytes() == &*name.0))
            .filter_map(|(name, value)| Some((name, self.url(std::str::from_utf8(&value.value.0).ok()?)?)))
            .collect();
        if new.is_empty() {
            return None;
        }
        let mut attributes: Vec<(&HtmlString, &Spanned<HtmlString, usize>)> = tag.attributes.iter().collect();
        attributes.sort_by_key(|(_, value)| value.span.start);
        let mut out = vec![b'<'];
        out.extend_from_slice(&tag.name.0);
        for (name, value) in attributes {
            out.push(b' ');
            out.extend_from_slice(&name.0);
            out.extend_from_slice(b"=\"");
            escape(new.get(name).map_or(&*value.value.0, |new| new.as_bytes()), &mut out);
            out.push(b'"');
        }
        out.extend_from_slice(if tag.self_closing { b"/>" } else { b">" });
        Some(out)
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// A value as it stands between double quotes.
fn escape(value: &[u8], out: &mut Vec<u8>) {
    for byte in value {
        match byte {
            b'&' => out.extend_from_slice(b"&amp;"),
            b'"' => out.extend_from_slice(b"&#34;"),
            other => out.push(*other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn root() -> Root {
        Root { path: "/p/proxy".to_owned(), server: "10.0.0.1:80".to_owned(), proxy: "here:6443".to_owned() }
    }

    #[test]
    fn only_the_server_s_own_places_move() {
        let check = |url: &str, expect: &str| {
            assert_eq!(root().url(url).as_deref().unwrap_or(url), expect, "{url}");
        };
        check("/", "/p/proxy/");
        check("/a/?b=/c#d", "/p/proxy/a/?b=/c#d");
        check("http://10.0.0.1:80/a", "/p/proxy/a");
        check("//10.0.0.1:80/a", "/p/proxy/a");
        check("https://here:6443/a", "https://here:6443/p/proxy/a");
        check("/p/proxy/a", "/p/proxy/a");
        check("/p/proxy?x", "/p/proxy?x");
        check("/p/proxylike", "/p/proxy/p/proxylike");
        for stays in [
            "a/b",
            "",
            "#top",
            "?q=1",
            "http://else.where/a",
            "//else.where/a",
            "mailto:a@b",
            "http://10.0.0.1:80",
            "data:text/plain,://",
        ] {
            check(stays, stays);
        }
    }

    #[test]
    fn links_of_a_page_move_and_nothing_else_changes() {
        let check = |page: &str, expect: &str| {
            assert_eq!(String::from_utf8(root().page(page.as_bytes())).unwrap(), expect);
        };
        check("<a href=\"/rewriteme\">test</a>", "<a href=\"/p/proxy/rewriteme\">test</a>");
        check("<A class=x HREF=/y title='a \"b\"'>", "<a class=\"x\" href=\"/p/proxy/y\" title=\"a &#34;b&#34;\">");
        check("<img src='/a?b=1&amp;c=2' alt=\"\"/>", "<img src=\"/p/proxy/a?b=1&amp;c=2\" alt=\"\"/>");
        check("é<link href=\"/s.css\">ü<p>", "é<link href=\"/p/proxy/s.css\">ü<p>");
        for stays in [
            "<p href=\"/x\">text /y</p>",
            "<!-- <a href=\"/x\"> -->",
            "<script>var a = '<a href=\"/x\">';</script>",
            "<a href=\"relative\"  title=unquoted>  <br >",
            "<a href=\"/unfinished",
            "no page at all",
        ] {
            check(stays, stays);
        }
    }

    proptest! {
        #[test]
        fn bytes_without_links_stay(page in prop::collection::vec(any::<u8>(), 0..200)) {
            let elsewhere = Root { path: String::new(), ..root() };
            let stays = !page.windows(2).any(|pair| pair == b"//");
            if stays {
                prop_assert_eq!(elsewhere.page(&page), page);
            }
        }

        #[test]
        fn tag_soup_never_panics(page in "[<>a/=\"' \r\n\u{0}é!-]{0,60}(href=|src=|<a |<img )[<>a/=\"' \r\né]{0,40}") {
            root().page(page.as_bytes());
        }
    }
}
