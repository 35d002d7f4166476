//! The `*Review` kinds: questions about tokens and permissions that are answered when they are created and never kept.

use coracle_api::selector::FieldSelector;
use coracle_api::{ApiError, Resource};
use http::{Response, StatusCode};
use k8s_openapi::api::authentication::v1::{
    SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewStatus, UserInfo,
};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, NonResourceAttributes, ResourceAttributes, ResourceRule, SelfSubjectAccessReview,
    SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewStatus, SubjectRulesReviewStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldSelectorRequirement;

use crate::api::Call;
use crate::auth::{AUTHENTICATED, Attributes, Decision, MASTERS, User};
use crate::body::Body;
use crate::render;
use crate::request::{ResourcePath, Verb};

/// Answers a review.
pub(crate) fn create(call: &Call<'_>, body: &[u8]) -> Result<Response<Body>, ApiError> {
    match call.kind().kind {
        "TokenReview" => answer(read::<TokenReview>(call, body)?, |r| token(call, r)),
        "SelfSubjectReview" => answer(read::<SelfSubjectReview>(call, body)?, |r| {
            r.status = Some(SelfSubjectReviewStatus { user_info: Some(info(call.user)) });
            Ok(())
        }),
        "SubjectAccessReview" => answer(read::<SubjectAccessReview>(call, body)?, |r| {
            let user = subject(r.spec.user.as_deref(), r.spec.groups.as_deref(), r.spec.uid.as_deref())?;
            r.status = Some(decide(
                call,
                &user,
                r.spec.resource_attributes.as_ref(),
                r.spec.non_resource_attributes.as_ref(),
            )?);
            Ok(())
        }),
        "LocalSubjectAccessReview" => answer(read::<LocalSubjectAccessReview>(call, body)?, |r| {
            let user = subject(r.spec.user.as_deref(), r.spec.groups.as_deref(), r.spec.uid.as_deref())?;
            let asked = r.spec.resource_attributes.as_ref();
            if asked.and_then(|a| a.namespace.as_deref()).unwrap_or_default() != call.path.namespace {
                return Err(ApiError::bad_request("spec.resourceAttributes.namespace must match metadata.namespace"));
            }
            r.status = Some(decide(call, &user, asked, None)?);
            Ok(())
        }),
        "SelfSubjectAccessReview" => answer(read::<SelfSubjectAccessReview>(call, body)?, |r| {
            let (resource, other) = (r.spec.resource_attributes.as_ref(), r.spec.non_resource_attributes.as_ref());
            r.status = Some(decide(call, call.user, resource, other)?);
            Ok(())
        }),
        "SelfSubjectRulesReview" => answer(read::<SelfSubjectRulesReview>(call, body)?, |r| {
            r.status = Some(rules(call.user));
            Ok(())
        }),
        _ => Err(ApiError::method_not_allowed(call.kind().resource(), Verb::Create.as_str())),
    }
}

fn read<T: Resource>(call: &Call<'_>, body: &[u8]) -> Result<T, ApiError> {
    let (kind, version) = (call.kind().kind, call.kind().version);
    let read = call.kind().decode(body);
    let mut object = read.map_err(|e| {
        ApiError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {e}"))
    })?;
    let review = object.as_any_mut().downcast_mut::<T>();
    review.map(std::mem::take).ok_or_else(|| ApiError::internal("a review is of another kind"))
}

fn answer<T: Resource>(
    mut review: T,
    fill: impl FnOnce(&mut T) -> Result<(), ApiError>,
) -> Result<Response<Body>, ApiError> {
    fill(&mut review)?;
    Ok(render::json(StatusCode::CREATED, Body::full(coracle_api::kind::encode(&review))))
}

fn info(user: &User) -> UserInfo {
    UserInfo {
        username: Some(user.name.clone()),
        uid: Some(user.uid.clone()).filter(|u| !u.is_empty()),
        groups: Some(user.groups.clone()),
        extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
    }
}

fn token(call: &Call<'_>, review: &mut TokenReview) -> Result<(), ApiError> {
    let text = std::mem::take(&mut review.spec.token);
    if text.is_empty() {
        return Err(ApiError::bad_request(
            "spec.token: Required value: token is required for TokenReview in authentication",
        ));
    }
    let authenticator = &call.api.authenticator;
    let audiences = review.spec.audiences.clone().unwrap_or_else(|| authenticator.signer().audiences().to_vec());
    let status = match authenticator.token(&call.api.store, &text, &audiences, call.now) {
        Ok(proved) => TokenReviewStatus {
            authenticated: Some(true),
            user: Some(info(&proved.user)),
            audiences: Some(proved.audiences),
            error: None,
        },
        Err(why) => {
            TokenReviewStatus { error: Some(why.to_string()), user: Some(UserInfo::default()), ..Default::default() }
        }
    };
    // The token itself does not come back.
    review.status = Some(status);
    Ok(())
}

fn subject(user: Option<&str>, groups: Option<&[String]>, uid: Option<&str>) -> Result<User, ApiError> {
    if user.unwrap_or_default().is_empty() && groups.unwrap_or_default().is_empty() {
        return Err(ApiError::bad_request(
            "spec.user: Required value: at least one of user or group must be specified",
        ));
    }
    Ok(User {
        name: user.unwrap_or_default().to_owned(),
        uid: uid.unwrap_or_default().to_owned(),
        groups: groups.unwrap_or_default().to_vec(),
        ..User::default()
    })
}

fn verb_of(text: &str) -> Option<Verb> {
    [Verb::Get, Verb::List, Verb::Watch, Verb::Create, Verb::Update, Verb::Patch, Verb::Delete, Verb::DeleteCollection]
        .into_iter()
        .find(|v| v.as_str() == text)
}

/// The fields a review is about: what narrows nothing is left out, as Kubernetes does with what it does not know.
fn selected_fields(asked: &ResourceAttributes) -> FieldSelector {
    let Some(selector) = &asked.field_selector else { return FieldSelector::default() };
    let exact = |requirement: &FieldSelectorRequirement| {
        let values = requirement.values.as_deref().unwrap_or_default();
        let [value] = values else { return None };
        (requirement.operator == "In").then(|| format!("{}={value}", requirement.key))
    };
    let each = selector.requirements.iter().flatten().filter_map(exact);
    let text: Vec<String> = selector.raw_selector.iter().cloned().chain(each).collect();
    FieldSelector::parse(&text.join(",")).unwrap_or_default()
}

fn decide(
    call: &Call<'_>,
    user: &User,
    resource: Option<&ResourceAttributes>,
    other: Option<&NonResourceAttributes>,
) -> Result<SubjectAccessReviewStatus, ApiError> {
    let decision = match (resource, other) {
        (Some(asked), None) => {
            let text = |v: &Option<String>| v.clone().unwrap_or_default();
            let path = ResourcePath {
                group: text(&asked.group),
                version: text(&asked.version),
                namespace: text(&asked.namespace),
                resource: text(&asked.resource),
                name: text(&asked.name),
                subresource: text(&asked.subresource),
                rest: String::new(),
                watch_prefix: false,
            };
            match verb_of(asked.verb.as_deref().unwrap_or_default()) {
                Some(verb) => {
                    let fields = selected_fields(asked);
                    call.api.authorizer.authorize(user, Attributes::Resource { verb, path: &path, fields: &fields })
                }
                // `*`, `use`, `bind` and their like: only who may do everything may do them.
                None if user.is_in(MASTERS) => Decision::Allow,
                None => Decision::Deny(String::new()),
            }
        }
        (None, Some(asked)) => {
            let (verb, path) = (asked.verb.as_deref().unwrap_or_default(), asked.path.as_deref().unwrap_or_default());
            call.api.authorizer.authorize(user, Attributes::NonResource { verb, path })
        }
        _ => {
            return Err(ApiError::bad_request(
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ));
        }
    };
    Ok(match decision {
        Decision::Allow => SubjectAccessReviewStatus { allowed: true, ..Default::default() },
        Decision::Deny(why) => {
            SubjectAccessReviewStatus { reason: Some(why).filter(|w| !w.is_empty()), ..Default::default() }
        }
    })
}

/// What the built-in identities may do, as far as it can be listed.
fn rules(user: &User) -> SubjectRulesReviewStatus {
    let all = || vec!["*".to_owned()];
    let mut resource_rules = Vec::new();
    let mut incomplete = true;
    if user.is_in(MASTERS) {
        incomplete = false;
        resource_rules.push(ResourceRule {
            api_groups: Some(all()),
            resources: Some(all()),
            verbs: all(),
            resource_names: None,
        });
    }
    if user.is_in(AUTHENTICATED) {
        let own: [(&str, &[&str]); 2] = [
            ("authorization.k8s.io", &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
            ("authentication.k8s.io", &["selfsubjectreviews"]),
        ];
        resource_rules.extend(own.map(|(group, resources)| ResourceRule {
            api_groups: Some(vec![group.to_owned()]),
            resources: Some(resources.iter().map(ToString::to_string).collect()),
            verbs: vec!["create".to_owned()],
            resource_names: None,
        }));
    }
    SubjectRulesReviewStatus { incomplete, resource_rules, non_resource_rules: Vec::new(), evaluation_error: None }
}
