//! PriorityLevelConfiguration: how many requests of a level run at once.

use k8s_openapi::api::flowcontrol::v1::{
    LimitResponse, LimitedPriorityLevelConfiguration, PriorityLevelConfiguration, PriorityLevelConfigurationSpec,
    QueuingConfiguration,
};

use super::fields::{default_number, list, text};
use super::meta::{age_cell, name_cell, spec_and_status};
use crate::kind::{Info, Resource, Subresource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path, json};

const EXEMPT: &str = "exempt";
const CATCH_ALL: &str = "catch-all";
const MAX_QUEUES: i32 = 10_000_000;
/// The dealer of hands draws them from a hash of so many bits.
const MAX_HASH_BITS: u32 = 60;

impl Resource for PriorityLevelConfiguration {
    const INFO: Info = Info {
        subresources: &[Subresource::Status],
        columns: &[
            Column::NAME,
            Column::text(
                "Type",
                "`type` indicates whether this priority level is subject to limitation on request execution.  A value of `\"Exempt\"` means that requests of this priority level are not subject to a limit (and thus are never queued) and do not detract from the capacity made available to other priority levels.  A value of `\"Limited\"` means that (a) requests of this priority level _are_ subject to limits and (b) some of the server's limited capacity is made available exclusively to this priority level. Required.",
            ),
            Column::text(
                "NominalConcurrencyShares",
                "`nominalConcurrencyShares` (NCS) contributes to the computation of the NominalConcurrencyLimit (NominalCL) of this level.",
            ),
            Column::text("Queues", "`queues` is the number of queues for this priority level."),
            Column::text(
                "HandSize",
                "`handSize` is a small positive number that configures the shuffle sharding of requests into queues.",
            ),
            Column::text(
                "QueueLengthLimit",
                "`queueLengthLimit` is the maximum number of requests allowed to be waiting in a given queue of this priority level at a time; excess requests are rejected.",
            ),
            Column::AGE,
        ],
        has_generation: true,
        is_acted_on: false,
        ..Info::cluster("prioritylevelconfigurations", "prioritylevelconfiguration")
    };

    spec_and_status!();

    fn apply_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        if let Some(exempt) = &mut spec.exempt {
            exempt.nominal_concurrency_shares.get_or_insert(0);
            exempt.lendable_percent.get_or_insert(0);
        }
        let Some(limited) = &mut spec.limited else { return };
        limited.nominal_concurrency_shares.get_or_insert(30);
        limited.lendable_percent.get_or_insert(0);
        if let Some(queuing) = limited.limit_response.as_mut().and_then(|r| r.queuing.as_mut()) {
            default_number(&mut queuing.hand_size, 8);
            default_number(&mut queuing.queues, 64);
            default_number(&mut queuing.queue_length_limit, 50);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = PriorityLevelConfigurationSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let (at, name) = (Path::new("spec"), text(&self.metadata.name));
        validate_spec(name, spec, &at, errors);
        validate_mandatory(name, spec, &at, errors);
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut Errors) {
        let conditions = self.status.as_ref().map(|s| list(&s.conditions)).unwrap_or_default();
        validate_condition_types(conditions.iter().map(|c| text(&c.type_)), errors);
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = self.spec.as_ref();
        let limited = spec.and_then(|s| s.limited.as_ref());
        let queuing = limited.and_then(|l| l.limit_response.as_ref()).and_then(|r| r.queuing.as_ref());
        let number =
            |n: Option<Option<i32>>| -> Cell { n.map_or_else(|| "<none>".into(), |n| n.unwrap_or_default().into()) };
        vec![
            name_cell(&self.metadata),
            spec.map(|s| s.type_.as_str()).unwrap_or_default().into(),
            number(limited.map(|l| l.nominal_concurrency_shares)),
            number(queuing.map(|q| q.queues)),
            number(queuing.map(|q| q.hand_size)),
            number(queuing.map(|q| q.queue_length_limit)),
            age_cell(&self.metadata, now),
        ]
    }
}

/// The types of the conditions in `status.conditions`: none empty, none twice.
pub(super) fn validate_condition_types<'a>(types: impl Iterator<Item = &'a str>, errors: &mut Errors) {
    let root = Path::new("status");
    let all = root.child("conditions");
    let mut seen = Vec::new();
    for (i, kind) in types.enumerate() {
        let at = all.index(i);
        if seen.contains(&kind) {
            errors.duplicate(&at.child("type"), kind);
        }
        seen.push(kind);
        if kind.is_empty() {
            errors.required(&at.child("type"), "must not be empty");
        }
    }
}

/// The two levels without which a cluster could lock itself up. Of the exempt one, what it lends may change.
fn validate_mandatory(name: &str, spec: &PriorityLevelConfigurationSpec, at: &Path<'_>, errors: &mut Errors) {
    match name {
        EXEMPT if spec.type_ != "Exempt" || spec.limited.is_some() => {
            let why = "spec of 'exempt' except the 'spec.exempt' field must equal the fixed value";
            errors.invalid(at, json(spec), why);
        }
        CATCH_ALL => {
            let fixed = PriorityLevelConfigurationSpec {
                type_: "Limited".to_owned(),
                exempt: None,
                limited: Some(LimitedPriorityLevelConfiguration {
                    nominal_concurrency_shares: Some(5),
                    lendable_percent: Some(0),
                    borrowing_limit_percent: None,
                    limit_response: Some(LimitResponse { type_: "Reject".to_owned(), queuing: None }),
                }),
            };
            if *spec != fixed {
                errors.invalid(at, json(spec), "spec of 'catch-all' must equal the fixed value");
            }
        }
        _ => {}
    }
}

fn validate_spec(name: &str, spec: &PriorityLevelConfigurationSpec, at: &Path<'_>, errors: &mut Errors) {
    let kind = spec.type_.as_str();
    if (name == EXEMPT) != (kind == "Exempt") {
        errors.invalid(&at.child("type"), kind, "must be 'Exempt' if and only if `name` is 'exempt'");
    }
    let (exempt_at, limited_at) = (at.child("exempt"), at.child("limited"));
    match kind {
        "Exempt" => {
            if spec.limited.is_some() {
                errors.forbidden(&limited_at, "must be nil if the type is not Limited");
            }
            if let Some(exempt) = &spec.exempt {
                validate_shares(exempt.nominal_concurrency_shares, &exempt_at, errors);
                validate_lendable(exempt.lendable_percent, &exempt_at, errors);
            }
        }
        "Limited" => {
            if spec.exempt.is_some() {
                errors.forbidden(&exempt_at, "must be nil if the type is Limited");
            }
            match &spec.limited {
                None => errors.required(&limited_at, "must not be empty when type is Limited"),
                Some(limited) => validate_limited(limited, &limited_at, errors),
            }
        }
        other => errors.not_supported(&at.child("type"), other, &["Exempt", "Limited"]),
    }
}

fn validate_shares(shares: Option<i32>, at: &Path<'_>, errors: &mut Errors) {
    if let Some(shares) = shares.filter(|s| *s < 0) {
        errors.invalid(&at.child("nominalConcurrencyShares"), shares, "must be a non-negative integer");
    }
}

fn validate_lendable(percent: Option<i32>, at: &Path<'_>, errors: &mut Errors) {
    if let Some(percent) = percent.filter(|p| !(0..=100).contains(p)) {
        errors.invalid(&at.child("lendablePercent"), percent, "must be between 0 and 100, inclusive");
    }
}

fn validate_limited(limited: &LimitedPriorityLevelConfiguration, at: &Path<'_>, errors: &mut Errors) {
    validate_shares(limited.nominal_concurrency_shares, at, errors);
    let response_at = at.child("limitResponse");
    let empty = LimitResponse::default();
    let response = limited.limit_response.as_ref().unwrap_or(&empty);
    let queuing_at = response_at.child("queuing");
    match (response.type_.as_str(), &response.queuing) {
        ("Reject", None) => {}
        ("Reject", Some(_)) => {
            errors.forbidden(&queuing_at, "must be nil if limited.limitResponse.type is not Limited");
        }
        ("Queue", None) => {
            errors.required(&queuing_at, "must not be empty if limited.limitResponse.type is Limited");
        }
        ("Queue", Some(queuing)) => validate_queuing(queuing, &queuing_at, errors),
        (other, _) => errors.not_supported(&response_at.child("type"), other, &["Queue", "Reject"]),
    }
    validate_lendable(limited.lendable_percent, at, errors);
    if let Some(percent) = limited.borrowing_limit_percent.filter(|p| *p < 0) {
        errors.invalid(&at.child("borrowingLimitPercent"), percent, "must be a non-negative integer");
    }
}

fn validate_queuing(queuing: &QueuingConfiguration, at: &Path<'_>, errors: &mut Errors) {
    let length = queuing.queue_length_limit.unwrap_or_default();
    if length <= 0 {
        errors.invalid(&at.child("queueLengthLimit"), length, "must be positive");
    }
    let (queues, hand) = (queuing.queues.unwrap_or_default(), queuing.hand_size.unwrap_or_default());
    if queues <= 0 {
        errors.invalid(&at.child("queues"), queues, "must be positive");
    } else if queues > MAX_QUEUES {
        errors.invalid(&at.child("queues"), queues, format!("must not be greater than {MAX_QUEUES}"));
    }
    let hand_at = at.child("handSize");
    if hand <= 0 {
        errors.invalid(&hand_at, hand, "must be positive");
    } else if hand > queues {
        errors.invalid(&hand_at, hand, format!("should not be greater than queues ({queues})"));
    } else if entropy_bits(queues, hand) > MAX_HASH_BITS {
        let why = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MAX_HASH_BITS}"
        );
        errors.invalid(&hand_at, hand, why);
    }
}

/// How many bits of a hash it takes to deal `hand` cards out of a deck (`shufflesharding.RequiredEntropyBits`).
fn entropy_bits(deck: i32, hand: i32) -> u32 {
    // Each card is drawn from one less than the card before it.
    let bits: f64 = (0..hand).map(|dealt| f64::from(deck - dealt).log2()).sum();
    // At most 2^24 cards of 24 bits each, so it fits.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is positive and small")]
    let whole = bits.ceil() as u32;
    whole
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, expect, faults, row, status_faults, with};

    fn level(name: &str, spec: Value) -> Value {
        let base = json!({"metadata": {"creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": {"type": "Limited"}});
        with(base, json!({"metadata": {"name": name}, "spec": spec}))
    }

    #[track_caller]
    fn check(name: &str, spec: Value, expected: &[&str]) {
        expect(&faults::<PriorityLevelConfiguration>(level(name, spec)), expected);
    }

    #[test]
    fn defaults() {
        let limited = json!({"limited": {"limitResponse": {"type": "Queue", "queuing": {}}}});
        let made: PriorityLevelConfiguration = created(level("l", limited));
        assert_eq!(
            serde_json::to_value(made.spec.unwrap().limited).unwrap(),
            json!({"nominalConcurrencyShares": 30, "lendablePercent": 0, "limitResponse": {"type": "Queue", "queuing": {"handSize": 8, "queues": 64, "queueLengthLimit": 50}}})
        );
        let made: PriorityLevelConfiguration = created(level("exempt", json!({"type": "Exempt", "exempt": {}})));
        let exempt = serde_json::to_value(made.spec.unwrap().exempt).unwrap();
        assert_eq!(exempt, json!({"nominalConcurrencyShares": 0, "lendablePercent": 0}));
    }

    #[test]
    fn levels() {
        check("l", json!({"limited": {"limitResponse": {"type": "Reject"}}}), &[]);
        check(
            "l",
            json!({"exempt": {}}),
            &[
                "spec.exempt: Forbidden: must be nil if the type is Limited",
                "spec.limited: Required value: must not be empty when type is Limited",
            ],
        );
        check(
            "l",
            json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": -1, "lendablePercent": 101}, "limited": {}}),
            &[
                "spec.type: Invalid value: \"Exempt\": must be 'Exempt' if and only if `name` is 'exempt'",
                "spec.limited: Forbidden: must be nil if the type is not Limited",
                "spec.exempt.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
                "spec.exempt.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
            ],
        );
        check(
            "l",
            json!({"type": "X"}),
            &["spec.type: Unsupported value: \"X\": supported values: \"Exempt\", \"Limited\""],
        );
        check(
            "l",
            json!({"limited": {"borrowingLimitPercent": -1, "limitResponse": {"type": "Wait"}}}),
            &[
                "spec.limited.limitResponse.type: Unsupported value: \"Wait\": supported values: \"Queue\", \"Reject\"",
                "spec.limited.borrowingLimitPercent: Invalid value: -1: must be a non-negative integer",
            ],
        );
        check(
            "l",
            json!({"limited": {"limitResponse": {"type": "Reject", "queuing": {}}}}),
            &[
                "spec.limited.limitResponse.queuing: Forbidden: must be nil if limited.limitResponse.type is not Limited",
            ],
        );
        check(
            "l",
            json!({"limited": {"limitResponse": {"type": "Queue"}}}),
            &[
                "spec.limited.limitResponse.queuing: Required value: must not be empty if limited.limitResponse.type is Limited",
            ],
        );
    }

    #[test]
    fn queues() {
        let queuing = |queuing: Value, expected: &[&str]| {
            check("l", json!({"limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}}), expected);
        };
        let at = "spec.limited.limitResponse.queuing";
        queuing(json!({"queues": 512, "handSize": 4, "queueLengthLimit": 100}), &[]);
        queuing(
            json!({"queues": -1, "handSize": -1, "queueLengthLimit": -1}),
            &[
                &format!("{at}.queueLengthLimit: Invalid value: -1: must be positive"),
                &format!("{at}.queues: Invalid value: -1: must be positive"),
                &format!("{at}.handSize: Invalid value: -1: must be positive"),
            ],
        );
        queuing(
            json!({"queues": 4, "handSize": 5}),
            &[&format!("{at}.handSize: Invalid value: 5: should not be greater than queues (4)")],
        );
        queuing(
            json!({"queues": 512, "handSize": 8}),
            &[&format!(
                "{at}.handSize: Invalid value: 8: required entropy bits of deckSize 512 and handSize 8 should not be greater than 60"
            )],
        );
        queuing(
            json!({"queues": 10_000_001, "handSize": 1}),
            &[&format!("{at}.queues: Invalid value: 10000001: must not be greater than 10000000")],
        );
        assert_eq!((entropy_bits(128, 9), entropy_bits(128, 8)), (63, 56));
    }

    #[test]
    fn mandatory_levels_status_and_rows() {
        check("exempt", json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 10}}), &[]);
        let reject = json!({"limited": {"limitResponse": {"type": "Reject"}}});
        check(
            "exempt",
            reject.clone(),
            &["spec.type: Invalid value: \"Limited\": must be 'Exempt' if and only if", "spec: Invalid value: {"],
        );
        check("catch-all", with(reject.clone(), json!({"limited": {"nominalConcurrencyShares": 5}})), &[]);
        let changed = faults::<PriorityLevelConfiguration>(level("catch-all", reject.clone()));
        assert!(changed[0].ends_with("spec of 'catch-all' must equal the fixed value"), "{changed:?}");
        expect(
            &status_faults::<PriorityLevelConfiguration>(level("l", reject), json!({"conditions": [{}]})),
            &["status.conditions[0].type: Required value: must not be empty"],
        );
        let line = |spec: Value| row::<PriorityLevelConfiguration>(level("l", spec));
        assert_eq!(line(json!({"type": "Exempt"})), "l|Exempt|<none>|<none>|<none>|<none>|5m");
        let limited = json!({"limited": {"nominalConcurrencyShares": 3, "limitResponse": {"type": "Queue", "queuing": {"queues": 4, "handSize": 2, "queueLengthLimit": 9}}}});
        assert_eq!(line(limited), "l|Limited|3|4|2|9|5m");
    }
}
