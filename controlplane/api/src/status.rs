//! Errors as the Kubernetes API reports them: a reason, an HTTP code, a message and details.
//!
//! Reasons, codes and wordings follow `k8s.io/apimachinery/pkg/api/errors`, since clients match on the reason and people
//! search for the words. Internals of this program never go into a message.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Status, StatusCause, StatusDetails};

use crate::validation::Errors;

/// Why a request failed, as `metav1.StatusReason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// 400, the request itself is wrong.
    BadRequest,
    /// 401, who calls is not known.
    Unauthorized,
    /// 403, the caller may not do this.
    Forbidden,
    /// 404.
    NotFound,
    /// 409, an object of this name exists.
    AlreadyExists,
    /// 409, the object changed meanwhile.
    Conflict,
    /// 410, the object is gone for good.
    Gone,
    /// 410, the resource version is older than what the store keeps.
    Expired,
    /// 422, the object breaks a rule.
    Invalid,
    /// 405.
    MethodNotAllowed,
    /// 406.
    NotAcceptable,
    /// 413.
    RequestEntityTooLarge,
    /// 415.
    UnsupportedMediaType,
    /// 429.
    TooManyRequests,
    /// 500.
    InternalError,
    /// 500, the server could not finish in time what the client may try again.
    ServerTimeout,
    /// 503.
    ServiceUnavailable,
    /// 504.
    Timeout,
}

impl Reason {
    /// The word in `Status.reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Gone => "Gone",
            Self::Expired => "Expired",
            Self::Invalid => "Invalid",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::TooManyRequests => "TooManyRequests",
            Self::InternalError => "InternalError",
            Self::ServerTimeout => "ServerTimeout",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::Timeout => "Timeout",
        }
    }

    /// The HTTP code that goes with the reason.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Gone | Self::Expired => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::InternalError | Self::ServerTimeout => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }
}

/// A failed request: everything a client is told.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Why.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// For machines; boxed since most results are not errors.
    pub details: Option<Box<StatusDetails>>,
}

/// The resource an error is about: the group and the plural name, as Kubernetes prints them (`deployments.apps`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceName<'a> {
    /// API group, empty for the core group.
    pub group: &'a str,
    /// Plural name.
    pub plural: &'a str,
}

impl std::fmt::Display for ResourceName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.plural)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

impl ApiError {
    /// An error with no details.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), details: None }
    }

    fn about(reason: Reason, resource: ResourceName<'_>, name: &str, message: String) -> Self {
        let mut error = Self::new(reason, message);
        error.details = Some(Box::new(StatusDetails {
            group: non_empty(resource.group),
            kind: non_empty(resource.plural),
            name: non_empty(name),
            ..Default::default()
        }));
        error
    }

    /// 404: `pods "x" not found`.
    #[must_use]
    pub fn not_found(resource: ResourceName<'_>, name: &str) -> Self {
        Self::about(Reason::NotFound, resource, name, format!("{resource} \"{name}\" not found"))
    }

    /// 404 for a path that is no resource.
    #[must_use]
    pub fn no_such_path() -> Self {
        let mut error = Self::new(Reason::NotFound, "the server could not find the requested resource");
        error.details = Some(Box::default());
        error
    }

    /// 409: `pods "x" already exists`.
    #[must_use]
    pub fn already_exists(resource: ResourceName<'_>, name: &str) -> Self {
        Self::about(Reason::AlreadyExists, resource, name, format!("{resource} \"{name}\" already exists"))
    }

    /// 409: the operation cannot be fulfilled, for `why`.
    #[must_use]
    pub fn conflict(resource: ResourceName<'_>, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}");
        Self::about(Reason::Conflict, resource, name, message)
    }

    /// 409 of an update with an old resource version.
    #[must_use]
    pub fn modified(resource: ResourceName<'_>, name: &str) -> Self {
        const WHY: &str = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, WHY)
    }

    /// 403: `pods "x" is forbidden: why`.
    #[must_use]
    pub fn forbidden(resource: ResourceName<'_>, name: &str, why: &str) -> Self {
        let message = if resource.plural.is_empty() {
            format!("forbidden: {why}")
        } else if name.is_empty() {
            format!("{resource} is forbidden: {why}")
        } else {
            format!("{resource} \"{name}\" is forbidden: {why}")
        };
        Self::about(Reason::Forbidden, resource, name, message)
    }

    /// 422 with one cause for each broken rule. `kind` is the Kind, not the plural, as Kubernetes prints it.
    #[must_use]
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &Errors) -> Self {
        let subject = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let message = format!("{subject} \"{name}\" is invalid: {}", errors.aggregate());
        let causes = errors
            .iter()
            .map(|e| StatusCause {
                field: Some(e.field.clone()),
                message: Some(e.body()),
                reason: Some(e.kind.cause().to_owned()),
            })
            .collect();
        Self {
            reason: Reason::Invalid,
            message,
            details: Some(Box::new(StatusDetails {
                causes: Some(causes),
                group: non_empty(group),
                kind: non_empty(kind),
                name: non_empty(name),
                ..Default::default()
            })),
        }
    }

    /// 400.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// 401.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(Reason::Unauthorized, "Unauthorized")
    }

    /// 405.
    #[must_use]
    pub fn method_not_allowed(resource: ResourceName<'_>, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind \"{resource}\"");
        Self::about(Reason::MethodNotAllowed, resource, "", message)
    }

    /// 405 for a method that no verb of the path uses.
    #[must_use]
    pub fn method_not_known() -> Self {
        let mut error =
            Self::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource");
        error.details = Some(Box::default());
        error
    }

    /// 406.
    #[must_use]
    pub fn not_acceptable(supported: &str) -> Self {
        Self::new(Reason::NotAcceptable, format!("only the following media types are accepted: {supported}"))
    }

    /// 415.
    #[must_use]
    pub fn unsupported_media_type(supported: &str) -> Self {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {supported}");
        Self::new(Reason::UnsupportedMediaType, message)
    }

    /// 413.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        Self::new(Reason::RequestEntityTooLarge, format!("Request entity too large: limit is {limit}"))
    }

    /// 410 `Expired`: the list or watch must start anew.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// 429; the client waits `retry_after_seconds` before it tries again.
    #[must_use]
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Self {
        let mut error = Self::new(Reason::TooManyRequests, message);
        error.details =
            Some(Box::new(StatusDetails { retry_after_seconds: Some(retry_after_seconds), ..Default::default() }));
        error
    }

    /// 504: the resource version asked for is not there yet, or the work took too long.
    #[must_use]
    pub fn timeout(message: impl Into<String>, retry_after_seconds: i32) -> Self {
        let mut error = Self::new(Reason::Timeout, format!("Timeout: {}", message.into()));
        error.details =
            Some(Box::new(StatusDetails { retry_after_seconds: Some(retry_after_seconds), ..Default::default() }));
        error
    }

    /// 500. The message is for people and says nothing of the inside.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        let message = message.into();
        let mut error = Self::new(Reason::InternalError, format!("Internal error occurred: {message}"));
        error.details = Some(Box::new(StatusDetails {
            causes: Some(vec![StatusCause { message: Some(message), ..Default::default() }]),
            ..Default::default()
        }));
        error
    }

    /// 503.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Reason::ServiceUnavailable, message)
    }

    /// The HTTP code.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.reason.code()
    }

    /// The `Status` object sent to the client.
    #[must_use]
    pub fn to_status(&self) -> Status {
        Status {
            code: Some(i32::from(self.code())),
            details: self.details.as_deref().cloned(),
            message: Some(self.message.clone()),
            metadata: ListMeta::default(),
            reason: Some(self.reason.as_str().to_owned()),
            status: Some("Failure".to_owned()),
        }
    }
}

fn non_empty(s: &str) -> Option<String> {
    (!s.is_empty()).then(|| s.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::FieldPath;

    const PODS: ResourceName<'_> = ResourceName { group: "", plural: "pods" };
    const DEPLOYMENTS: ResourceName<'_> = ResourceName { group: "apps", plural: "deployments" };

    #[test]
    fn messages_and_codes_are_those_of_kubernetes() {
        let mut errors = Errors::new();
        errors.required(&FieldPath::new("spec").child("containers"), "");
        let mut two = errors.clone();
        two.invalid(&FieldPath::new("metadata").child("name"), "A", "must be lower case");
        let cases = [
            (ApiError::not_found(PODS, "x"), 404, "pods \"x\" not found"),
            (ApiError::already_exists(DEPLOYMENTS, "d"), 409, "deployments.apps \"d\" already exists"),
            (
                ApiError::modified(DEPLOYMENTS, "d"),
                409,
                "Operation cannot be fulfilled on deployments.apps \"d\": the object has been modified; please apply your changes to the latest version and try again",
            ),
            (ApiError::forbidden(PODS, "x", "no"), 403, "pods \"x\" is forbidden: no"),
            (ApiError::invalid("", "Pod", "x", &errors), 422, "Pod \"x\" is invalid: spec.containers: Required value"),
            (
                ApiError::invalid("apps", "Deployment", "x", &two),
                422,
                "Deployment.apps \"x\" is invalid: [spec.containers: Required value, metadata.name: Invalid value: \"A\": must be lower case]",
            ),
            (ApiError::internal("it broke"), 500, "Internal error occurred: it broke"),
        ];
        for (error, code, message) in cases {
            assert_eq!((error.code(), error.message.as_str()), (code, message));
        }
    }
}
