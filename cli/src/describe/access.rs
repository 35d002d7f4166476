//! Who may do what: roles, and the requests for certificates that name their holders. Pure.

use base64::Engine as _;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

use super::page::{Page, date, items, one_line, text};

/// A Role or ClusterRole.
pub(super) fn role(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(&object["metadata"]["name"]));
    page.labels(0, "Labels", &object["metadata"]["labels"]);
    page.annotations(0, &object["metadata"]["annotations"]);
    page.line(0, "PolicyRule:");
    page.line(1, "Resources\tNon-Resource URLs\tResource Names\tVerbs");
    page.line(1, "---------\t-----------------\t--------------\t-----");
    let mut grants = Vec::new();
    items(&object["rules"]).for_each(|rule| take_apart(rule, &mut grants));
    // In the order of Kubernetes' own text of a rule, which begins with the verbs.
    grants.sort_by_cached_key(|grant| {
        let Grant { group, resource, name, url, verbs } = grant;
        let shown = [verbs.join(" "), group.clone(), resource.clone(), name.clone(), url.clone()];
        shown.map(|part| format!("[{part}]"))
    });
    for grant in grants {
        let verbs = grant.verbs.join(" ");
        page.line(1, format!("{}\t[{}]\t[{}]\t[{verbs}]", grant.on(), grant.url, grant.name));
    }
}

/// One resource, perhaps one object of it, or one URL, and what may be done with it.
struct Grant {
    group: String,
    resource: String,
    name: String,
    url: String,
    verbs: Vec<String>,
}

impl Grant {
    /// `deployments.apps/scale`
    fn on(&self) -> String {
        match self.resource.split_once('/') {
            _ if self.group.is_empty() => self.resource.clone(),
            Some((resource, sub)) => format!("{resource}.{}/{sub}", self.group),
            None => format!("{}.{}", self.resource, self.group),
        }
    }
}

/// A rule as single grants, joined with those of the same resource that were found before.
fn take_apart(rule: &Value, grants: &mut Vec<Grant>) {
    let words = |field: &str| items(&rule[field]).map(text).collect::<Vec<_>>();
    let names = match words("resourceNames") {
        names if names.is_empty() => vec![String::new()],
        names => names,
    };
    for group in words("apiGroups") {
        for resource in words("resources") {
            for name in &names {
                let is_same =
                    |g: &&mut Grant| g.url.is_empty() && g.group == group && g.resource == resource && g.name == *name;
                if let Some(known) = grants.iter_mut().find(is_same) {
                    known.verbs.extend(words("verbs"));
                    continue;
                }
                let (group, resource, name) = (group.clone(), resource.clone(), name.clone());
                grants.push(Grant { group, resource, name, url: String::new(), verbs: words("verbs") });
            }
        }
    }
    for url in words("nonResourceURLs") {
        let none = String::new;
        // These are not joined.
        grants.extend(words("verbs").into_iter().map(|verb| Grant {
            group: none(),
            resource: none(),
            name: none(),
            url: url.clone(),
            verbs: vec![verb],
        }));
    }
}

/// A CertificateSigningRequest.
pub(super) fn certificate_request(page: &mut Page, object: &Value) {
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    page.field(0, "Name", text(&metadata["name"]));
    page.field(0, "Labels", one_line(&metadata["labels"]));
    page.field(0, "Annotations", one_line(&metadata["annotations"]));
    page.field(0, "CreationTimestamp", date(&metadata["creationTimestamp"]));
    page.field(0, "Requesting User", text(&spec["username"]));
    page.field(0, "Signer", text(&spec["signerName"]));
    if let Some(seconds) = spec["expirationSeconds"].as_i64() {
        page.field(0, "Requested Duration", coracle_api::table::human_duration(seconds));
    }
    page.field(0, "Status", decision(&object["status"]));
    let pem = base64::engine::general_purpose::STANDARD.decode(text(&spec["request"])).unwrap_or_default();
    let pem = parse_x509_pem(&pem);
    let Ok((_, pem)) = &pem else { return };
    let Ok((_, request)) = X509CertificationRequest::from_der(&pem.contents) else { return };
    subject(page, &request.certification_request_info.subject);
    alternatives(page, &request);
}

fn decision(status: &Value) -> String {
    let has = |sort: &str| items(&status["conditions"]).any(|condition| condition["type"] == sort);
    let mut words = vec![match () {
        () if has("Denied") => "Denied",
        () if has("Approved") => "Approved",
        () => "Pending",
    }];
    if has("Failed") {
        words.push("Failed");
    }
    if !text(&status["certificate"]).is_empty() {
        words.push("Issued");
    }
    words.join(",")
}

fn subject(page: &mut Page, name: &X509Name<'_>) {
    let all = |oid: &str| -> Vec<String> {
        let attributes = name.iter_attributes().filter(|a| a.attr_type().to_id_string() == oid);
        attributes.filter_map(|a| a.as_str().ok().map(str::to_owned)).collect()
    };
    page.line(0, "Subject:");
    for (oid, title) in [("2.5.4.3", "Common Name"), ("2.5.4.5", "Serial Number")] {
        page.line(0, format!("\t{title}:\t{}", all(oid).pop().unwrap_or_default()));
    }
    for (oid, title) in [
        ("2.5.4.10", "Organization"),
        ("2.5.4.11", "Organizational Unit"),
        ("2.5.4.6", "Country"),
        ("2.5.4.7", "Locality"),
        ("2.5.4.8", "Province"),
        ("2.5.4.9", "StreetAddress"),
        ("2.5.4.17", "PostalCode"),
    ] {
        under(page, title, &all(oid));
    }
}

fn under(page: &mut Page, title: &str, values: &[String]) {
    if !values.is_empty() {
        page.line(0, format!("\t{title}:\t{}", values.join("\n\t\t")));
    }
}

fn alternatives(page: &mut Page, request: &X509CertificationRequest<'_>) {
    let extensions = request.requested_extensions().into_iter().flatten();
    let names: Vec<&GeneralName<'_>> = extensions
        .filter_map(|extension| match extension {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .collect();
    let all = |pick: fn(&GeneralName<'_>) -> Option<String>| names.iter().filter_map(|n| pick(n)).collect::<Vec<_>>();
    let groups = [
        ("DNS Names", all(|n| if let GeneralName::DNSName(t) = n { Some((*t).to_owned()) } else { None })),
        ("Email Addresses", all(|n| if let GeneralName::RFC822Name(t) = n { Some((*t).to_owned()) } else { None })),
        ("URIs", all(|n| if let GeneralName::URI(t) = n { Some((*t).to_owned()) } else { None })),
        ("IP Addresses", all(|n| if let GeneralName::IPAddress(bytes) = n { address(bytes) } else { None })),
    ];
    if groups.iter().all(|(_, values)| values.is_empty()) {
        return;
    }
    page.line(0, "Subject Alternative Names:");
    groups.iter().for_each(|(title, values)| under(page, title, values));
}

fn address(bytes: &[u8]) -> Option<String> {
    let four = <[u8; 4]>::try_from(bytes).ok().map(|b| std::net::IpAddr::from(b).to_string());
    four.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(|b| std::net::IpAddr::from(b).to_string()))
}
