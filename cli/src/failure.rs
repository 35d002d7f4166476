//! What went wrong, in kubectl's words: people search for them and scripts match them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

/// The server's answer that says no.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", status.message.as_deref().unwrap_or("the server gave no reason"))]
pub(crate) struct Refused {
    /// Its own words.
    pub status: Box<Status>,
}

impl Refused {
    pub(crate) fn reason(&self) -> &str {
        self.status.reason.as_deref().unwrap_or_default()
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.reason() == "NotFound"
    }

    pub(crate) fn is_conflict(&self) -> bool {
        self.reason() == "Conflict"
    }

    /// Says what was being done, and with which file.
    pub(crate) fn while_doing(mut self, verb: &str, source: &str) -> Self {
        let message = self.status.message.take().unwrap_or_default();
        self.status.message = Some(format!("error when {verb} {source:?}: {message}"));
        self
    }
}

/// The server cannot be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreachable {
    /// Nothing listens there.
    #[error("The connection to the server {0} was refused - did you specify the right host or port?")]
    Refused(String),
    /// Anything else on the way.
    #[error("Unable to connect to the server: {0}")]
    Other(String),
}

/// Everything worth saying was said already; only the exit code is left.
#[derive(Debug, thiserror::Error)]
#[error("failed")]
pub(crate) struct AlreadySaid;

/// Adds what was being done to an error of the server's, and leaves others as they are.
pub(crate) fn while_doing(error: anyhow::Error, verb: &str, source: &str) -> anyhow::Error {
    match error.downcast::<Refused>() {
        Ok(refused) => refused.while_doing(verb, source).into(),
        Err(other) => other,
    }
}

pub(crate) fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(Refused::is_not_found)
}

pub(crate) fn is_conflict(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(Refused::is_conflict)
}

/// The text to end with; nothing when all was said.
pub(crate) fn explain(error: &anyhow::Error) -> Option<String> {
    if error.is::<AlreadySaid>() {
        return None;
    }
    if let Some(refused) = error.downcast_ref::<Refused>() {
        return Some(explain_status(&refused.status));
    }
    if error.is::<Unreachable>() {
        return Some(error.to_string());
    }
    Some(format!("error: {error:#}"))
}

/// Says all that went wrong with several objects, as the last thing a command does. What one alone is told of its mistakes is
/// told as the server's whole message where there are others.
pub(crate) fn say_all(problems: &[anyhow::Error]) -> anyhow::Result<()> {
    let told = |problem: &anyhow::Error| match problem.downcast_ref::<Refused>() {
        Some(refused) if problems.len() > 1 && refused.reason() == "Invalid" => {
            Some(format!("Error from server (Invalid): {refused}"))
        }
        None if problems.len() > 1 && !problem.is::<AlreadySaid>() => Some(format!("{problem:#}")),
        _ => explain(problem),
    };
    problems.iter().filter_map(told).for_each(|text| eprintln!("{text}"));
    if problems.is_empty() { Ok(()) } else { Err(AlreadySaid.into()) }
}

fn explain_status(status: &Status) -> String {
    let message = status.message.as_deref().unwrap_or_default();
    match status.reason.as_deref() {
        Some("Invalid") => explain_invalid(status).unwrap_or_else(|| message.to_owned()),
        Some("Unauthorized") => "error: You must be logged in to the server (Unauthorized)".to_owned(),
        Some(reason) if !reason.is_empty() => format!("Error from server ({reason}): {message}"),
        _ => format!("Error from server: {message}"),
    }
}

/// An object with mistakes: each on a line of its own.
fn explain_invalid(status: &Status) -> Option<String> {
    let details = status.details.as_ref()?;
    let kind = details.kind.as_deref().unwrap_or_default();
    let name = details.name.as_deref().unwrap_or_default();
    if kind.is_empty() {
        return Some(status.message.clone().unwrap_or_default());
    }
    let head = format!("The {kind} {name:?} is invalid");
    let mut causes: Vec<String> = Vec::new();
    for cause in details.causes.iter().flatten() {
        let text = match cause.field.as_deref() {
            Some(field) if !field.is_empty() => format!("{field}: {}", cause.message.as_deref().unwrap_or_default()),
            _ => cause.message.clone().unwrap_or_default(),
        };
        if !causes.contains(&text) {
            causes.push(text);
        }
    }
    Some(match causes.as_slice() {
        [] => head,
        [one] => format!("{head}: {one}"),
        many => format!("{head}: {}", many.iter().map(|cause| format!("\n* {cause}")).collect::<String>()),
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};

    use super::{AlreadySaid, Refused, explain, while_doing};

    fn refused(reason: &str, message: &str, causes: &[(&str, &str)]) -> anyhow::Error {
        let causes = causes.iter().map(|(field, message)| StatusCause {
            field: Some((*field).to_owned()),
            message: Some((*message).to_owned()),
            reason: None,
        });
        let details = StatusDetails {
            kind: Some("Pod".into()),
            name: Some("x".into()),
            causes: Some(causes.collect()),
            ..Default::default()
        };
        let status = Status {
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            details: Some(details),
            ..Default::default()
        };
        Refused { status: Box::new(status) }.into()
    }

    #[test]
    fn the_server_is_quoted_as_kubectl_does() {
        let text = |error: anyhow::Error| explain(&error).expect("there is something to say");
        assert_eq!(
            text(refused("NotFound", "pods \"x\" not found", &[])),
            "Error from server (NotFound): pods \"x\" not found"
        );
        assert_eq!(text(refused("", "odd", &[])), "Error from server: odd");
        assert_eq!(
            text(refused("Invalid", "…", &[("spec.a", "Required value")])),
            "The Pod \"x\" is invalid: spec.a: Required value"
        );
        assert_eq!(
            text(refused(
                "Invalid",
                "…",
                &[("spec.a", "Required value"), ("spec.b", "Invalid value: 1"), ("spec.a", "Required value")]
            )),
            "The Pod \"x\" is invalid: \n* spec.a: Required value\n* spec.b: Invalid value: 1"
        );
        assert_eq!(
            text(while_doing(refused("AlreadyExists", "pods \"x\" already exists", &[]), "creating", "f.yaml")),
            "Error from server (AlreadyExists): error when creating \"f.yaml\": pods \"x\" already exists"
        );
        assert_eq!(text(anyhow::anyhow!("no such flag")), "error: no such flag");
        assert_eq!(explain(&AlreadySaid.into()), None);
    }
}
