//! The node's conditions: what readings of the machine mean, in the kubelet's words. Pure: readings, thresholds and times are
//! given.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::NodeCondition, apimachinery::pkg::apis::meta::v1::Time};

use crate::eviction::EvictionHard;

/// A pressure is told for this long after it was last seen: the kubelet's `evictionPressureTransitionPeriod`.
const PRESSURE_LASTS: Duration = Duration::from_secs(300);

/// A part of a whole, such as free bytes of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) total: u64,
    pub(crate) free: u64,
}

/// What the machine says of itself. `None` is what cannot be read: it is no pressure.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readings {
    pub(crate) memory: Option<Share>,
    pub(crate) disk: Option<Share>,
    pub(crate) inodes: Option<Share>,
    pub(crate) processes: Option<Share>,
    /// Why pods cannot have addresses yet; `None` when they can.
    pub(crate) network_problem: Option<String>,
    /// Why pods would not be looked after; `None` when they are.
    pub(crate) agent_problem: Option<String>,
}

/// The four conditions with the times of their last changes.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    /// At what pressure begins.
    eviction: EvictionHard,
    by_name: BTreeMap<&'static str, NodeCondition>,
    /// When each pressure was last seen.
    seen: BTreeMap<&'static str, Timestamp>,
}

impl Conditions {
    /// None yet.
    pub(crate) fn new(eviction: EvictionHard) -> Self {
        Self { eviction, ..Self::default() }
    }

    /// Takes new readings.
    pub(crate) fn judge(&mut self, readings: &Readings, now: Timestamp) {
        let memory = self.eviction.memory_pressure(readings);
        let disk = self.eviction.disk_pressure(readings);
        let processes = self.eviction.pid_pressure(readings);
        let memory = self.lasting("MemoryPressure", memory, now);
        self.set(
            "MemoryPressure",
            memory,
            ["KubeletHasSufficientMemory", "KubeletHasInsufficientMemory"],
            ["kubelet has sufficient memory available", "kubelet has insufficient memory available"],
            now,
        );
        let disk = self.lasting("DiskPressure", disk, now);
        self.set(
            "DiskPressure",
            disk,
            ["KubeletHasNoDiskPressure", "KubeletHasDiskPressure"],
            ["kubelet has no disk pressure", "kubelet has disk pressure"],
            now,
        );
        let processes = self.lasting("PIDPressure", processes, now);
        self.set(
            "PIDPressure",
            processes,
            ["KubeletHasSufficientPID", "KubeletHasInsufficientPID"],
            ["kubelet has sufficient PID available", "kubelet has insufficient PID available"],
            now,
        );
        let problem = readings.network_problem.as_ref().map(|why| {
            format!(
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network \
                 plugin returns error: {why}"
            )
        });
        let problem = readings.agent_problem.clone().or(problem);
        let not_ready = problem.as_deref().unwrap_or_default();
        let messages = [not_ready, "kubelet is posting ready status"];
        self.set("Ready", problem.is_none(), ["KubeletNotReady", "KubeletReady"], messages, now);
    }

    /// Whether the node is Ready by the last readings.
    pub(crate) fn is_ready(&self) -> bool {
        self.by_name.get("Ready").is_some_and(|condition| condition.status == "True")
    }

    /// Which conditions hold.
    pub(crate) fn holding(&self) -> impl Iterator<Item = (&str, bool)> {
        self.by_name.iter().map(|(name, condition)| (*name, condition.status == "True"))
    }

    /// What the conditions say, without times, for comparisons.
    pub(crate) fn verdicts(&self) -> BTreeMap<&'static str, [&str; 2]> {
        self.by_name
            .iter()
            .map(|(name, condition)| {
                (*name, [condition.status.as_str(), condition.message.as_deref().unwrap_or_default()])
            })
            .collect()
    }

    /// The conditions as they are sent.
    pub(crate) fn list(&self, now: Timestamp) -> Vec<NodeCondition> {
        let beat =
            |condition: &NodeCondition| NodeCondition { last_heartbeat_time: Some(Time(now)), ..condition.clone() };
        self.by_name.values().map(beat).collect()
    }

    /// Whether `known` says what these say. A node that was silent for a while is marked `Unknown` in the API, and stays so
    /// until its agent says otherwise.
    pub(crate) fn stand_in(&self, known: &[NodeCondition]) -> bool {
        self.by_name
            .iter()
            .all(|(name, ours)| known.iter().any(|theirs| theirs.type_ == *name && theirs.status == ours.status))
    }

    fn lasting(&mut self, name: &'static str, now_seen: bool, now: Timestamp) -> bool {
        if now_seen {
            self.seen.insert(name, now);
        }
        let since = self.seen.get(name).map(|seen| Duration::try_from(now.duration_since(*seen)).unwrap_or_default());
        since.is_some_and(|since| since < PRESSURE_LASTS)
    }

    fn set(&mut self, name: &'static str, holds: bool, reasons: [&str; 2], messages: [&str; 2], now: Timestamp) {
        let status = if holds { "True" } else { "False" };
        let old = self.by_name.get(name).filter(|condition| condition.status == status);
        let since = old.and_then(|condition| condition.last_transition_time.clone());
        let condition = NodeCondition {
            type_: name.to_owned(),
            status: status.to_owned(),
            reason: Some(reasons[usize::from(holds)].to_owned()),
            message: Some(messages[usize::from(holds)].to_owned()),
            last_heartbeat_time: None,
            last_transition_time: since.or(Some(Time(now))),
        };
        self.by_name.insert(name, condition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn memory(free: u64) -> Option<Share> {
        Some(Share { total: 2 << 30, free })
    }

    fn plenty() -> Readings {
        let half = Some(Share { total: 1000, free: 500 });
        Readings {
            memory: memory(1 << 30),
            disk: half,
            inodes: half,
            processes: half,
            network_problem: None,
            agent_problem: None,
        }
    }

    fn found(conditions: &Conditions, name: &str) -> (String, String, String) {
        let list = conditions.list(at(0));
        let one = list.into_iter().find(|condition| condition.type_ == name).unwrap();
        (one.status, one.reason.unwrap(), one.message.unwrap())
    }

    #[test]
    fn readings_become_the_kubelets_words() {
        let check = |readings: Readings, name: &str, status: &str, reason: &str, message: &str| {
            let thresholds = "memory.available<100Mi,nodefs.available<5%,nodefs.inodesFree<5%,pid.available<10%";
            let mut conditions = Conditions::new(thresholds.parse().unwrap());
            conditions.judge(&readings, at(0));
            assert_eq!(found(&conditions, name), (status.to_owned(), reason.to_owned(), message.to_owned()));
        };
        let (ok, bad) = ("kubelet has sufficient memory available", "kubelet has insufficient memory available");
        check(plenty(), "MemoryPressure", "False", "KubeletHasSufficientMemory", ok);
        let low = Readings { memory: memory(99 << 20), ..plenty() };
        check(low, "MemoryPressure", "True", "KubeletHasInsufficientMemory", bad);
        let (ok, bad) = ("kubelet has no disk pressure", "kubelet has disk pressure");
        check(plenty(), "DiskPressure", "False", "KubeletHasNoDiskPressure", ok);
        let full = Readings { disk: Some(Share { total: 1000, free: 49 }), ..plenty() };
        check(full, "DiskPressure", "True", "KubeletHasDiskPressure", bad);
        let inodes = Readings { inodes: Some(Share { total: 1000, free: 49 }), ..plenty() };
        check(inodes, "DiskPressure", "True", "KubeletHasDiskPressure", bad);
        let none = Readings { inodes: Some(Share { total: 0, free: 0 }), ..plenty() };
        check(none, "DiskPressure", "False", "KubeletHasNoDiskPressure", ok);
        let pids = Readings { processes: Some(Share { total: 100, free: 3 }), ..plenty() };
        let bad = "kubelet has insufficient PID available";
        check(pids, "PIDPressure", "True", "KubeletHasInsufficientPID", bad);
        check(plenty(), "Ready", "True", "KubeletReady", "kubelet is posting ready status");
        let lost = Readings { network_problem: Some("no range".into()), ..plenty() };
        let message = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady \
                       message:Network plugin returns error: no range";
        check(lost, "Ready", "False", "KubeletNotReady", message);
        let stopped = Readings { agent_problem: Some("the loop has ended".into()), ..plenty() };
        check(stopped, "Ready", "False", "KubeletNotReady", "the loop has ended");
    }

    #[test]
    fn a_pressure_lasts_five_minutes_and_its_time_is_that_of_its_change() {
        let mut conditions = Conditions::default();
        conditions.judge(&plenty(), at(0));
        conditions.judge(&Readings { memory: memory(1), ..plenty() }, at(10));
        conditions.judge(&plenty(), at(309));
        let held = conditions.list(at(309)).into_iter().find(|one| one.type_ == "MemoryPressure").unwrap();
        assert_eq!((held.status.as_str(), held.last_transition_time), ("True", Some(Time(at(10)))));
        conditions.judge(&plenty(), at(310));
        assert_eq!(found(&conditions, "MemoryPressure").0, "False");
    }

    #[test]
    fn a_node_that_is_marked_unknown_does_not_stand() {
        let mut conditions = Conditions::default();
        conditions.judge(&plenty(), at(0));
        let said = conditions.list(at(0));
        assert!(conditions.stand_in(&said));
        let mut unknown = said.clone();
        for condition in &mut unknown {
            condition.status = "Unknown".into();
        }
        assert!(!conditions.stand_in(&unknown), "the node life-cycle controller marked it");
        assert!(!conditions.stand_in(&said[1..]), "one is missing");
        assert!(!conditions.stand_in(&[]), "the node is new");
        let mut more = said;
        more.push(NodeCondition { type_: "Else".into(), status: "False".into(), ..NodeCondition::default() });
        assert!(conditions.stand_in(&more), "conditions of others say nothing");
    }
}
