//! Where a redirect leads, as Go's client and the kubelet's `RedirectChecker` have it: within the same host it is followed.
//! Pure.

use url::Url;

use super::Answer;

/// Redirects that are followed, one after the other.
pub(super) const MAX_REDIRECTS: usize = 10;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) scheme: String,
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query.
    pub(super) path: String,
    /// Whether a `Host` header that the pod declares is meant for it.
    pub(super) own_host: bool,
}

/// What follows an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is the last one.
    Here,
    /// It redirects within the host.
    There(Place),
    /// It redirects to another host.
    Elsewhere,
}

impl Place {
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", super::bracketed(&self.host), self.port)
    }

    pub(super) fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority(), self.path)
    }

    pub(super) fn next(&self, answer: &Answer) -> Next {
        let moved = matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308);
        let Some(location) = answer.location.as_deref().filter(|location| moved && !location.is_empty()) else {
            return Next::Here;
        };
        let (Ok(here), absolute) = (Url::parse(&self.url()), Url::parse(location).is_ok()) else { return Next::Here };
        let Ok(there) = here.join(location) else { return Next::Elsewhere };
        if there.host_str() != here.host_str() || !matches!(there.scheme(), "http" | "https") {
            return Next::Elsewhere;
        }
        let query = there.query().map(|query| format!("?{query}")).unwrap_or_default();
        Next::There(Self {
            scheme: there.scheme().to_owned(),
            host: self.host.clone(),
            port: there.port_or_known_default().unwrap_or(self.port),
            path: format!("{}{query}", there.path()),
            own_host: self.own_host && !absolute,
        })
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn redirects_lead_where_go_s_client_goes() {
        let place = |scheme: &str, port, path: &str, own_host| Place {
            scheme: scheme.into(),
            host: "fd00::7".into(),
            port,
            path: path.into(),
            own_host,
        };
        let here = place("http", 8080, "/a/b?x=1", true);
        for (location, expect) in [
            ("/login?next=1", Next::There(place("http", 8080, "/login?next=1", true))),
            ("c", Next::There(place("http", 8080, "/a/c", true))),
            ("http://[fd00::7]:9090/x", Next::There(place("http", 9090, "/x", false))),
            ("https://[fd00::7]/x", Next::There(place("https", 443, "/x", false))),
            ("//example.com/x", Next::Elsewhere),
            ("ftp://[fd00::7]/x", Next::Elsewhere),
        ] {
            let answer =
                |status| Answer { status, location: Some(location.to_owned()), body: String::new(), elsewhere: false };
            assert_eq!(here.next(&answer(StatusCode::FOUND)), expect, "{location}");
            assert_eq!(here.next(&answer(StatusCode::OK)), Next::Here);
            assert_eq!(here.next(&answer(StatusCode::NOT_MODIFIED)), Next::Here);
        }
    }
}
