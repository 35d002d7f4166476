//! Jobs and CronJobs. Pure.

use coracle_api::table::age;
use serde_json::Value;

use super::{
    config::head,
    page::{Page, date, items, selector, text, text_or, title},
    pod,
};

/// How many characters of the list of completed indexes are shown, up to the next comma.
const MAX_INDEXES: usize = 50;

pub(super) fn describe(page: &mut Page, object: &Value) {
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    page.field(0, "Name", text(&metadata["name"]));
    page.field(0, "Namespace", text(&metadata["namespace"]));
    page.field(0, "Selector", selector(&spec["selector"]));
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(0, &metadata["annotations"]);
    page.controller(object);
    for (name, value) in [
        ("Parallelism", text(&spec["parallelism"])),
        ("Completions", text_or(&spec["completions"], "<unset>")),
        ("Completion Mode", text(&spec["completionMode"])),
        ("Suspend", text(&spec["suspend"])),
        ("Backoff Limit", text(&spec["backoffLimit"])),
        ("TTL Seconds After Finished", text(&spec["ttlSecondsAfterFinished"])),
    ] {
        if !value.is_empty() {
            page.field(0, name, value);
        }
    }
    for (field, name) in [("startTime", "Start Time"), ("completionTime", "Completed At")] {
        if !status[field].is_null() {
            page.field(0, name, date(&status[field]));
        }
    }
    let time = |field: &str| status[field].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    if let (Some(start), Some(end)) = (time("startTime"), time("completionTime")) {
        page.field(0, "Duration", age(start, end));
    }
    if !spec["activeDeadlineSeconds"].is_null() {
        page.field(0, "Active Deadline Seconds", format!("{}s", text(&spec["activeDeadlineSeconds"])));
    }
    let count = |field: &str| text_or(&status[field], "0");
    let ready = if status["ready"].is_null() { String::new() } else { format!(" ({} Ready)", count("ready")) };
    let pods =
        format!("{} Active{ready} / {} Succeeded / {} Failed", count("active"), count("succeeded"), count("failed"));
    page.field(0, "Pods Statuses", pods);
    if spec["completionMode"] == "Indexed" {
        page.field(0, "Completed Indexes", shortened(&text(&status["completedIndexes"])));
    }
    pod::template(page, &spec["template"]);
}

fn shortened(indexes: &str) -> String {
    let cut = indexes.get(MAX_INDEXES..).and_then(|rest| rest.find(','));
    match cut {
        _ if indexes.is_empty() => "<none>".to_owned(),
        Some(at) => format!("{}...", &indexes[..=MAX_INDEXES + at]),
        None => indexes.to_owned(),
    }
}

pub(super) fn cron(page: &mut Page, object: &Value) {
    let (spec, status) = (&object["spec"], &object["status"]);
    let seconds = |value: &Value| if value.is_null() { "<unset>".to_owned() } else { format!("{}s", text(value)) };
    head(page, object);
    page.field(0, "Schedule", text(&spec["schedule"]));
    page.field(0, "Concurrency Policy", text(&spec["concurrencyPolicy"]));
    page.field(0, "Suspend", if spec["suspend"].is_null() { "<unset>" } else { title(&spec["suspend"]) });
    page.field(0, "Time Zone", text_or(&spec["timeZone"], "<unset>"));
    page.field(0, "Successful Job History Limit", text_or(&spec["successfulJobsHistoryLimit"], "<unset>"));
    page.field(0, "Failed Job History Limit", text_or(&spec["failedJobsHistoryLimit"], "<unset>"));
    page.field(0, "Starting Deadline Seconds", seconds(&spec["startingDeadlineSeconds"]));
    let job = &spec["jobTemplate"]["spec"];
    page.field(
        0,
        "Selector",
        if job["selector"].is_null() { "<unset>".to_owned() } else { selector(&job["selector"]) },
    );
    page.field(0, "Parallelism", text_or(&job["parallelism"], "<unset>"));
    page.field(0, "Completions", text_or(&job["completions"], "<unset>"));
    if !job["activeDeadlineSeconds"].is_null() {
        page.field(0, "Active Deadline Seconds", seconds(&job["activeDeadlineSeconds"]));
    }
    pod::template(page, &job["template"]);
    page.field(0, "Last Schedule Time", date(&status["lastScheduleTime"]));
    let active: Vec<String> = items(&status["active"]).map(|job| text(&job["name"])).collect();
    page.field(0, "Active Jobs", if active.is_empty() { "<none>".to_owned() } else { active.join(", ") });
}
