//! The rules of a pod's life, one table each: restarts, waits, ends, probes, hooks, images, as the kubelet shows them.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod world;

use std::{sync::Arc, time::Duration};

use coracle_agent_core::{
    Agent, Command, PodUid,
    effect::{HookKind, MountFailure, Outcome, ProbeKind},
    workload::{
        ExitReason, StartStage,
        fake::{Behaviour, Life, OnStop},
    },
};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use serde_json::{Value, json};

use world::{World, deleted, ends, ends_after, facts, one, pod};

fn failure(text: &str) -> Outcome {
    Outcome::Failure { output: text.into() }
}

/// What a container waits for, and the event that told of it.
#[test]
fn what_a_container_waits_for_reads_as_the_kubelets_words() {
    let check = |image: &str, policy: &str, prepare: fn(&mut World), reason: &str, message: &str, event: &str| {
        let mut world = World::new(1);
        prepare(&mut world);
        let uid = world.set(one(json!({"name": "app", "image": image, "imagePullPolicy": policy,
            "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]})));
        world.run_for(Duration::from_millis(900));
        let waiting = world.main(&uid)["state"]["waiting"].clone();
        assert_eq!((&waiting["reason"], &waiting["message"]), (&json!(reason), &json!(message)));
        assert!(world.says(event), "{event}: {:?}", world.events);
        assert_eq!(world.status(&uid)["phase"], "Pending");
    };
    check(
        "gone:1",
        "Always",
        |world| world.fake.set_in_registry("gone:1", false),
        "ErrImagePull",
        "failed to pull \"gone:1\": not found",
        "Failed Failed to pull image \"gone:1\": failed to pull \"gone:1\": not found",
    );
    check(
        "local:1",
        "Never",
        |_| {},
        "ErrImageNeverPull",
        "Container image \"local:1\" is not present with pull policy of Never",
        "Failed Error: ErrImageNeverPull",
    );
    let parse = "couldn't parse image name \"BAD\": invalid reference format";
    check(
        "BAD",
        "Always",
        |_| {},
        "InvalidImageName",
        &format!("Failed to apply default image tag \"BAD\": {parse}"),
        &format!("InspectFailed Failed to apply default image tag \"BAD\": {parse}"),
    );
    check(
        "a",
        "Always",
        |_| {},
        "CreateContainerConfigError",
        "configmap \"cm\" not found",
        "Failed Error: configmap \"cm\" not found",
    );
    check(
        "a",
        "Always",
        |world| {
            world.sources.config_maps.insert("cm".into(), Some(Arc::new(ConfigMap::default())));
        },
        "CreateContainerConfigError",
        "couldn't find key k in ConfigMap ns/cm",
        "Failed Error: couldn't find key k in ConfigMap ns/cm",
    );
    let broken = |stage| Behaviour { life: Life::StartFails(stage), ..Behaviour::default() };
    let mut world = World::new(1);
    world.fake.set_behaviour("a", broken(StartStage::Create));
    let uid = world.set(one(json!({"name": "app", "image": "a"})));
    world.seconds(1);
    assert_eq!(world.main(&uid)["state"]["waiting"]["reason"], "CreateContainerError");
}

#[test]
fn a_start_that_fails_is_shown_then_backs_off() {
    let mut world = World::new(2);
    world.fake.set_behaviour("a", Behaviour { life: Life::StartFails(StartStage::Start), ..Behaviour::default() });
    let uid = world.set(one(json!({"name": "app", "image": "a"})));
    world.run_for(Duration::from_millis(900));
    let main = world.main(&uid);
    assert_eq!(main["state"]["waiting"]["reason"], "RunContainerError");
    assert_eq!(main["state"]["waiting"]["message"], "failed to start: injected fault");
    assert_eq!(main["lastState"]["terminated"]["exitCode"], 128);
    assert_eq!(main["lastState"]["terminated"]["reason"], "StartError");
    world.seconds(4);
    assert_eq!(world.main(&uid)["state"]["waiting"]["reason"], "CrashLoopBackOff");
    let mut world = World::new(2);
    world.fake.set_behaviour("a", Behaviour { life: Life::StartFails(StartStage::Start), ..Behaviour::default() });
    let uid = world.set(pod(json!({"restartPolicy": "Never", "containers": [{"name": "app", "image": "a"}]})));
    world.seconds(4);
    assert_eq!(world.status(&uid)["phase"], "Failed");
    assert_eq!(world.main(&uid)["state"]["terminated"]["reason"], "StartError");
}

#[test]
fn a_missing_config_map_heals_when_it_comes() {
    let mut world = World::new(3);
    let env = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]);
    let uid = world.set(one(json!({"name": "app", "image": "a", "env": env})));
    world.seconds(1);
    assert_eq!(world.main(&uid)["state"]["waiting"]["reason"], "CreateContainerConfigError");
    let map: ConfigMap = serde_json::from_value(json!({"data": {"k": "v"}})).unwrap();
    world.sources.config_maps.insert("cm".into(), Some(Arc::new(map)));
    let now = world.clock();
    world.agent.handle_reference_changed(now, &uid);
    world.run_for(Duration::from_millis(900));
    assert_eq!(world.status(&uid)["phase"], "Running");
    assert_eq!(world.main(&uid)["restartCount"], 0);
}

#[test]
fn a_volume_that_cannot_be_made_is_told_and_heals_when_its_source_comes() {
    let mut world = World::new(4);
    let message = "configmap \"cm\" not found".to_owned();
    world.unmountable = vec![MountFailure { volume: "v".into(), message }];
    let spec =
        json!({"containers": [{"name": "app", "image": "a"}], "volumes": [{"name": "v", "configMap": {"name": "cm"}}]});
    let uid = world.set(pod(spec));
    world.seconds(10);
    assert_eq!(world.main(&uid)["state"]["waiting"]["reason"], "ContainerCreating");
    assert_eq!(world.condition(&uid, "PodReadyToStartContainers")["status"], "False");
    assert!(world.says("FailedMount MountVolume.SetUp failed for volume \"v\" : configmap \"cm\" not found"));
    world.unmountable.clear();
    let now = world.clock();
    world.agent.handle_reference_changed(now, &uid);
    world.run_for(Duration::from_millis(900));
    assert_eq!(world.condition(&uid, "Ready")["status"], "True");
}

/// `back-off` grows from 10 s to 5 min, and ten quiet minutes forget it.
#[test]
fn the_restart_delay_doubles_to_five_minutes_and_is_forgotten() {
    let mut world = World::new(5);
    world.fake.set_behaviour("bad", ends(1));
    let uid = world.set(one(json!({"name": "app", "image": "bad"})));
    let mut seen = Vec::new();
    for _ in 0..1200 {
        world.seconds(1);
        let message = world.main(&uid)["state"]["waiting"]["message"].as_str().unwrap_or_default().to_owned();
        if !message.is_empty() && seen.last() != Some(&message) {
            seen.push(message);
        }
    }
    let delays: Vec<&str> = seen.iter().filter_map(|message| message.split(' ').nth(1)).collect();
    assert_eq!(delays, ["10s", "20s", "40s", "1m20s", "2m40s", "5m0s"]);
    // It runs well for more than ten minutes, then fails again.
    world.fake.set_behaviour("bad", ends_after(700, 1));
    while world.main(&uid)["state"]["running"].is_null() {
        world.seconds(1);
    }
    let restarts = world.main(&uid)["restartCount"].as_i64().unwrap();
    world.seconds(705);
    assert_eq!(world.main(&uid)["restartCount"], restarts + 1, "the first restart is immediate again");
    assert!(world.main(&uid)["state"]["running"].is_object());
}

/// A container's own policy and rules go before the pod's (KEP-5307).
#[test]
fn containers_have_restart_rules_of_their_own() {
    let check = |pod_policy: &str, own: Value, code: i32, restarts: bool, phase: &str| {
        let mut world = World::new(6);
        world.fake.set_behaviour("job", ends(code));
        let mut container = json!({"name": "app", "image": "job"});
        container.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        let uid = world.set(pod(json!({"restartPolicy": pod_policy, "containers": [container]})));
        world.seconds(8);
        assert_eq!(world.main(&uid)["restartCount"] == 1, restarts, "{pod_policy} {own} {code}");
        assert_eq!(world.status(&uid)["phase"], phase, "{pod_policy} {own} {code}");
    };
    let rule = |operator: &str| {
        json!({"restartPolicy": "Never", "restartPolicyRules":
            [{"action": "Restart", "exitCodes": {"operator": operator, "values": [42]}}]})
    };
    check("Always", json!({"restartPolicy": "Never"}), 1, false, "Failed");
    check("Always", json!({"restartPolicy": "OnFailure"}), 0, false, "Succeeded");
    check("Never", json!({"restartPolicy": "OnFailure"}), 1, true, "Running");
    check("Never", rule("In"), 42, true, "Running");
    check("Never", rule("In"), 1, false, "Failed");
    check("Never", rule("NotIn"), 1, true, "Running");
    check("Never", rule("NotIn"), 42, false, "Failed");
}

/// How each kind of end shows in `terminated`.
#[test]
fn ends_have_the_kubelets_reasons() {
    let check = |code: i32, reason: ExitReason, shown: &str| {
        let mut world = World::new(7);
        let life = Life::Ends { after: Duration::from_secs(1), code, reason };
        world.fake.set_behaviour("job", Behaviour { life, ..Behaviour::default() });
        let uid = world.set(pod(json!({"restartPolicy": "Never", "containers": [{"name": "app", "image": "job"}]})));
        world.seconds(4);
        let end = world.main(&uid)["state"]["terminated"].clone();
        assert_eq!((&end["exitCode"], &end["reason"]), (&json!(code), &json!(shown)));
        assert!(end["containerID"].is_string() && end["startedAt"].is_string() && end["finishedAt"].is_string());
    };
    check(0, ExitReason::Completed, "Completed");
    check(1, ExitReason::Error, "Error");
    check(137, ExitReason::OomKilled, "OOMKilled");
}

/// Until nothing runs any more the phase stays; readiness goes at once.
#[test]
fn what_the_node_ends_is_failed_once_nothing_runs() {
    let check = |begin: fn(&mut World, &PodUid), reason: &str, message: &str| {
        let mut world = World::new(8);
        world.fake.set_behaviour("a", Behaviour { on_stop: OnStop::Ignore, ..Behaviour::default() });
        let uid = world.set(pod(json!({"activeDeadlineSeconds": 10, "terminationGracePeriodSeconds": 5,
            "containers": [{"name": "app", "image": "a"}]})));
        world.seconds(5);
        begin(&mut world, &uid);
        world.run_for(Duration::from_millis(500));
        assert_eq!(world.status(&uid)["phase"], "Running", "{reason}");
        assert_eq!(world.status(&uid)["reason"], Value::Null, "{reason}");
        assert_eq!(world.condition(&uid, "Ready")["reason"], "PodFailed", "{reason}");
        world.seconds(10);
        let status = world.status(&uid);
        assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!(reason)));
        assert_eq!(status["message"], message);
        assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"], 137);
        assert!(world.says(&format!("{reason} {message}")));
        assert!(world.fake.is_gone(&uid));
        // A deletion afterwards changes nothing of it.
        let mut object = pod(json!({"containers": [{"name": "app", "image": "a"}]}));
        object["status"] = status;
        world.set(deleted(object, 0));
        let last = serde_json::to_value(world.statuses.last().unwrap()).unwrap();
        assert_eq!((&last["phase"], &last["reason"]), (&json!("Failed"), &json!(reason)));
    };
    let deadline = "Pod was active on the node longer than the specified deadline";
    check(|world, _| world.run_for(Duration::from_secs(5)), "DeadlineExceeded", deadline);
    let usage = "Usage of EmptyDir volume \"cache\" exceeds the limit \"1Mi\". ";
    let evict = |world: &mut World, uid: &PodUid| {
        let now = world.clock();
        world.agent.handle_eviction(now, uid, "Usage of EmptyDir volume \"cache\" exceeds the limit \"1Mi\". ".into());
    };
    check(evict, "Evicted", usage);
}

/// Deletion while the pod is on its way: what was begun is undone, and nothing is started.
#[test]
fn a_pod_can_be_deleted_at_every_stage() {
    for millis in [0, 1, 3, 10, 50, 200, 450] {
        let mut world = World::new(millis);
        let object = pod(json!({"initContainers": [{"name": "i", "image": "i"}],
            "containers": [{"name": "app", "image": "a"}], "volumes": [{"name": "v", "emptyDir": {}}]}));
        let uid = world.set(object.clone());
        world.run_for(Duration::from_millis(millis));
        world.set(deleted(object, 30));
        let started = world.starts().len();
        world.seconds(40);
        assert_eq!(world.starts().len(), started, "{millis} ms");
        assert_eq!(world.forgotten, std::slice::from_ref(&uid), "{millis} ms");
        assert!(world.fake.is_gone(&uid), "{millis} ms");
        let last = serde_json::to_value(world.statuses.last().unwrap()).unwrap();
        let never = last["containerStatuses"][0]["state"]["terminated"].clone();
        assert_eq!(never["reason"], "ContainerStatusUnknown", "{millis} ms: {last}");
        assert_eq!(last["phase"], "Failed", "{millis} ms");
    }
}

/// All `preStop` hooks begin at once; the signals of sidecars wait for their turn (KEP-753).
#[test]
fn sidecars_end_last_but_their_hooks_begin_with_the_others() {
    let mut world = World::new(9);
    world.fake.set_behaviour(
        "main",
        Behaviour { on_stop: OnStop::ExitAfter(Duration::from_secs(8)), ..Behaviour::default() },
    );
    let sleep = |seconds: i64| json!({"preStop": {"sleep": {"seconds": seconds}}});
    let object = pod(json!({
        "initContainers": [
            {"name": "s1", "image": "side", "restartPolicy": "Always", "lifecycle": sleep(5)},
            {"name": "s2", "image": "side", "restartPolicy": "Always"}],
        "containers": [{"name": "app", "image": "main"}]}));
    world.set(object.clone());
    world.seconds(2);
    world.set(deleted(object, 30));
    for name in ["s1", "s2", "app"] {
        assert!(world.says(&format!("Killing Stopping container {name}")), "all are told at once");
    }
    world.seconds(30);
    let stops = world.stops();
    let order: Vec<&str> = stops.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(order, ["app", "s2", "s1"]);
    // The main container took 8 s; the hook of s1 ran meanwhile and used none of what is left.
    assert!(stops[1].1 >= 21 && stops[2].1 >= 21, "{stops:?}");
    assert_eq!(world.events.iter().filter(|event| event.starts_with("Killing")).count(), 3);
}

#[test]
fn a_sidecar_that_crashes_comes_back_and_one_that_fails_at_the_end_does_not_count() {
    let mut world = World::new(10);
    world.fake.set_behaviour("side", ends_after(3, 1));
    world.fake.set_behaviour("main", ends_after(20, 0));
    let uid = world.set(pod(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "s", "image": "side", "restartPolicy": "Always"}],
        "containers": [{"name": "app", "image": "main"}]})));
    world.seconds(12);
    assert!(world.container(&uid, "s")["restartCount"].as_i64().unwrap() >= 1);
    assert_eq!(world.status(&uid)["phase"], "Running");
    world.seconds(30);
    assert_eq!(world.status(&uid)["phase"], "Succeeded");
}

/// Readiness is probed to the end; liveness is not.
#[test]
fn a_pod_that_ends_is_still_probed_for_readiness() {
    let mut world = World::new(11);
    let probe = json!({"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 1});
    world
        .fake
        .set_behaviour("a", Behaviour { on_stop: OnStop::ExitAfter(Duration::from_secs(10)), ..Behaviour::default() });
    let object = one(json!({"name": "app", "image": "a", "readinessProbe": probe, "livenessProbe": probe}));
    let uid = world.set(object.clone());
    world.seconds(3);
    world.set(deleted(object, 30));
    world.seconds(2);
    assert_eq!(world.condition(&uid, "Ready")["status"], "True");
    world.probe = failure("refused");
    world.seconds(3);
    assert_eq!(world.condition(&uid, "Ready")["status"], "False");
    assert!(!world.events.iter().any(|event| event.contains("Liveness")), "{:?}", world.events);
}

/// Which probe ends a container, with which words and how much time.
#[test]
fn failing_probes_end_a_container_with_their_own_grace() {
    let check = |kind: &str, policy: &str, own: Option<i64>, message: &str, grace: u64| {
        let mut world = World::new(12);
        world.probe = failure("refused");
        let mut probe = json!({"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 2});
        if let Some(own) = own {
            probe["terminationGracePeriodSeconds"] = json!(own);
        }
        let uid = world.set(pod(json!({"restartPolicy": policy, "terminationGracePeriodSeconds": 20,
            "containers": [{"name": "app", "image": "a", kind: probe}]})));
        world.run_for(Duration::from_millis(2500));
        assert!(world.says(&format!("Killing {message}")), "{kind}: {:?}", world.events);
        assert_eq!(world.stops()[0].1, grace);
        world.seconds(1);
        assert_eq!(world.status(&uid)["phase"], if policy == "Never" { "Failed" } else { "Running" });
    };
    check("livenessProbe", "Always", None, "Container app failed liveness probe, will be restarted", 20);
    check("livenessProbe", "Always", Some(3), "Container app failed liveness probe, will be restarted", 3);
    check("startupProbe", "Always", Some(4), "Container app failed startup probe, will be restarted", 4);
    check("livenessProbe", "Never", None, "Container app failed liveness probe", 20);
}

#[test]
fn a_probe_that_cannot_be_carried_out_changes_nothing() {
    let mut world = World::new(13);
    world.probe = Outcome::Error { message: "no".into() };
    let probe = json!({"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 1});
    let uid = world.set(one(json!({"name": "app", "image": "a", "livenessProbe": probe, "readinessProbe": probe})));
    world.seconds(10);
    assert_eq!(world.main(&uid)["restartCount"], 0);
    assert_eq!(world.main(&uid)["ready"], false);
    assert!(world.says("Unhealthy Readiness probe errored and resulted in unknown state: no"));
    world.probes.insert(ProbeKind::Readiness, Outcome::Success);
    world.seconds(2);
    assert_eq!(world.main(&uid)["ready"], true);
}

#[test]
fn a_startup_probe_holds_back_the_others_and_a_sidecar_the_next_container() {
    let mut world = World::new(14);
    world.probes.insert(ProbeKind::Startup, failure("starting"));
    let probe = json!({"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 30});
    let uid = world.set(pod(json!({
        "initContainers": [{"name": "s", "image": "s", "restartPolicy": "Always", "startupProbe": probe}],
        "containers": [{"name": "app", "image": "a"}]})));
    world.seconds(5);
    assert_eq!(world.starts(), ["s"]);
    assert_eq!(world.condition(&uid, "Initialized")["message"], "containers with incomplete status: [s]");
    assert_eq!(world.status(&uid)["phase"], "Pending");
    world.probes.clear();
    world.seconds(2);
    assert_eq!(world.starts(), ["s", "app"]);
    assert_eq!(world.condition(&uid, "Initialized")["status"], "True");
}

/// A hook that fails, and one that never comes back.
#[test]
fn hooks_that_fail_are_told_and_bounded() {
    let get = json!({"httpGet": {"port": 80, "path": "/stop"}});
    let mut world = World::new(15);
    world.hooks.insert(HookKind::PostStart, Some(failure("500")));
    let uid = world.set(one(json!({"name": "app", "image": "a", "lifecycle": {"postStart": get}})));
    world.seconds(2);
    assert!(world.says("FailedPostStartHook PostStartHook failed"));
    assert!(world.says("Killing FailedPostStartHook"));
    assert!(world.main(&uid)["lastState"]["terminated"].is_object());

    let check = |outcome: Option<Outcome>, told: bool, grace: u64| {
        let mut world = World::new(15);
        world.hooks.insert(HookKind::PreStop, outcome);
        let object = one(json!({"name": "app", "image": "a", "lifecycle": {"preStop": get}}));
        world.set(object.clone());
        world.seconds(2);
        world.set(deleted(object, 30));
        world.seconds(40);
        assert_eq!(world.says("FailedPreStopHook PreStopHook failed"), told);
        assert_eq!(world.stops(), [("app".to_owned(), grace)]);
    };
    check(Some(Outcome::Success), false, 30);
    check(Some(failure("500")), true, 30);
    check(None, false, 2);
}

/// A `postStart` that restores a large cache has no limit of its own.
#[test]
fn a_post_start_may_take_as_long_as_it_takes() {
    let get = json!({"httpGet": {"port": 80, "path": "/warm"}});
    let mut world = World::new(15);
    world.hooks.insert(HookKind::PostStart, None);
    let uid = world.set(one(json!({"name": "app", "image": "a", "lifecycle": {"postStart": get}})));
    world.seconds(3 * 3600);
    assert!(!world.says("FailedPostStartHook PostStartHook failed"));
    assert!(world.main(&uid)["state"]["running"].is_object());
}

/// A probe that ends with a redirect to another host passes, and says so.
#[test]
fn a_warning_of_a_probe_is_told_and_passes() {
    let mut world = World::new(15);
    world.probe = Outcome::Warning { output: "Probe terminated redirects, Response body: x".into() };
    let probe = json!({"httpGet": {"port": 80}, "periodSeconds": 1});
    let uid = world.set(one(json!({"name": "app", "image": "a", "readinessProbe": probe})));
    world.seconds(5);
    assert!(world.says("ProbeWarning Readiness probe warning: Probe terminated redirects, Response body: x"));
    assert_eq!(world.condition(&uid, "Ready")["status"], "True");
}

/// Nobody waits for a container that will never run.
#[test]
fn an_ephemeral_container_is_refused_in_words() {
    let mut world = World::new(15);
    let object = one(json!({"name": "app", "image": "a"}));
    let uid = world.set(object.clone());
    world.seconds(2);
    let mut with = serde_json::to_value(&object).unwrap();
    with["spec"]["ephemeralContainers"] = json!([{"name": "debugger", "image": "busybox"}]);
    for _ in 0..2 {
        world.set(serde_json::from_value(with.clone()).unwrap());
        world.seconds(2);
    }
    let status = world.status(&uid);
    let one = &status["ephemeralContainerStatuses"][0];
    assert_eq!((&one["name"], &one["image"]), (&json!("debugger"), &json!("busybox")));
    assert_eq!(one["state"]["terminated"]["reason"], "ContainerCannotRun");
    assert_eq!(status["phase"], "Running");
    let told = world.events.iter().filter(|event| event.contains("ephemeral containers are not supported")).count();
    assert_eq!(told, 1);
}

/// The image is the one thing of a container that may change.
#[test]
fn a_new_image_restarts_the_container_or_ends_its_wait() {
    let mut world = World::new(16);
    let uid = world.set(pod(json!({"restartPolicy": "Never", "containers": [{"name": "app", "image": "v1"}]})));
    world.seconds(2);
    world.set(pod(json!({"restartPolicy": "Never", "containers": [{"name": "app", "image": "v2"}]})));
    world.seconds(3);
    assert!(world.says("Killing Container app definition changed, will be restarted"));
    assert_eq!((&world.main(&uid)["image"], &world.main(&uid)["restartCount"]), (&json!("v2"), &json!(1)));
    assert_eq!(world.status(&uid)["phase"], "Running");

    let mut world = World::new(16);
    world.fake.set_in_registry("typo", false);
    let uid = world.set(one(json!({"name": "app", "image": "typo"})));
    world.seconds(40);
    world.set(one(json!({"name": "app", "image": "right"})));
    world.seconds(1);
    assert_eq!(world.status(&uid)["phase"], "Running");
    // Changed while the wrong one is being pulled.
    let mut world = World::new(16);
    world.fake.set_in_registry("typo", false);
    let uid = world.set(one(json!({"name": "app", "image": "typo"})));
    world.run_for(Duration::from_millis(10));
    world.set(one(json!({"name": "app", "image": "right"})));
    world.seconds(1);
    assert_eq!(world.status(&uid)["phase"], "Running");
    assert!(!world.events.iter().any(|event| event.starts_with("Failed")), "{:?}", world.events);
}

#[test]
fn readiness_gates_wait_for_their_conditions() {
    let check = |conditions: Value, status: &str, message: Value| {
        let mut world = World::new(17);
        let mut object =
            pod(json!({"readinessGates": [{"conditionType": "lb"}], "containers": [{"name": "app", "image": "a"}]}));
        object["status"] = json!({ "conditions": conditions });
        let uid = world.set(object);
        world.seconds(2);
        assert_eq!(world.condition(&uid, "ContainersReady")["status"], "True");
        let ready = world.condition(&uid, "Ready");
        assert_eq!((&ready["status"], &ready["message"]), (&json!(status), &message));
        assert_eq!(ready["reason"], if status == "True" { Value::Null } else { json!("ReadinessGatesNotReady") });
    };
    check(json!([]), "False", json!("corresponding condition of pod readiness gate \"lb\" does not exist."));
    let not = "the status of pod readiness gate \"lb\" is not \"True\", but False";
    check(json!([{"type": "lb", "status": "False"}]), "False", json!(not));
    check(json!([{"type": "lb", "status": "True"}]), "True", Value::Null);
}

#[test]
fn conditions_of_others_and_the_generation_are_kept() {
    let mut world = World::new(18);
    let mut object = one(json!({"name": "app", "image": "a"}));
    object["metadata"]["generation"] = json!(7);
    let disruption = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"});
    object["status"] = json!({ "conditions": [disruption] });
    let uid = world.set(object);
    world.seconds(2);
    assert_eq!(world.condition(&uid, "DisruptionTarget"), disruption);
    assert_eq!(world.status(&uid)["observedGeneration"], 7);
    for name in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] {
        assert_eq!(world.condition(&uid, name)["observedGeneration"], 7, "{name}");
    }
    assert_eq!(world.status(&uid)["hostIPs"], json!([{"ip": "192.0.2.1"}]));
    assert_eq!(world.status(&uid)["podIPs"], json!([{"ip": "10.42.0.5"}]));
}

/// As when a node was given up and comes back: what the node controller wrote meanwhile is no longer so.
#[test]
fn what_others_write_of_a_pod_is_written_again() {
    let mut world = World::new(22);
    let mut object = one(json!({"name": "app", "image": "a"}));
    let uid = world.set(object.clone());
    world.seconds(2);
    object["status"] = world.status(&uid);
    world.statuses.clear();
    world.set(object.clone());
    assert!(world.statuses.is_empty(), "it is as the node says");
    object["status"]["startTime"] = json!("1970-01-01T00:00:00.5Z");
    world.set(object.clone());
    assert!(world.statuses.is_empty(), "a time in another form is no other time");
    let conditions = object["status"]["conditions"].as_array_mut().unwrap();
    let ready = conditions.iter_mut().find(|condition| condition["type"] == "Ready").unwrap();
    ready["status"] = json!("False");
    world.set(object);
    assert_eq!(world.statuses.len(), 1);
    assert_eq!(world.condition(&uid, "Ready")["status"], "True");
}

#[test]
fn a_pod_the_node_does_not_take_says_why() {
    let mut world = World::new(19);
    let uid = world.set(pod(json!({"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "app", "image": "a"}]})));
    let words = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    let status = world.status(&uid);
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("NodeAffinity")));
    assert_eq!(status["message"], format!("Pod was rejected: {words}"));
    assert_eq!(world.events, [format!("NodeAffinity {words}")]);
}

/// As the kubelet does it: what the API has forgotten stands in nobody's way, even while its containers end; what is only
/// being deleted does.
#[test]
fn a_pod_whose_object_is_gone_takes_no_room() {
    let check = |gone: bool, phase: &str| {
        let mut world = World::new(21);
        let node = json!({"metadata": {}, "status": {"allocatable": {"cpu": "1"}}});
        world.agent.set_node(facts(), serde_json::from_value(node).unwrap());
        let slow = Behaviour { on_stop: OnStop::Ignore, ..Behaviour::default() };
        world.fake.set_behaviour("a", slow);
        let container = json!({"name": "app", "image": "a", "resources": {"requests": {"cpu": "800m"}}});
        let first = one(container);
        let uid = world.set(first.clone());
        world.seconds(2);
        world.set(deleted(first.clone(), 30));
        if gone {
            world.agent.handle_gone(world.clock(), &uid);
        }
        let mut second = first;
        second["metadata"]["uid"] = json!("u2");
        let second = world.set(second);
        assert!(world.fake.running().any(|key| key.pod == uid), "it takes its time to end");
        world.seconds(2);
        assert_eq!(world.status(&second)["phase"], phase, "gone: {gone}");
    };
    check(false, "Failed");
    check(true, "Running");
}

/// The machine went down with everything that ran: what is to run again does, init containers first.
#[test]
fn after_a_reboot_each_policy_has_its_way() {
    let check = |policy: &str, phase: &str, starts: &[&str], restarts: [i64; 3]| {
        let mut world = World::new(20);
        world.fake.set_behaviour("init", ends(0));
        let object = pod(json!({"restartPolicy": policy,
            "initContainers": [{"name": "i", "image": "init"}, {"name": "s", "image": "s", "restartPolicy": "Always"}],
            "containers": [{"name": "app", "image": "a"}]}));
        let uid = world.set(object.clone());
        world.seconds(5);
        assert_eq!(world.starts(), ["i", "s", "app"]);
        let mut again = object;
        again["status"] = world.status(&uid);
        world.fake.lose_everything();
        world.fake.history.clear();
        world.events.clear();
        world.agent = Agent::new(facts(), Node::default(), Vec::new());
        world.set(again);
        world.seconds(5);
        assert_eq!(world.starts(), starts, "{policy}");
        assert_eq!(world.status(&uid)["phase"], phase, "{policy}");
        let counts = ["i", "s", "app"].map(|name| world.container(&uid, name)["restartCount"].as_i64().unwrap());
        assert_eq!(counts, restarts, "{policy}");
        let told = world.says("SandboxChanged Pod sandbox changed, it will be killed and re-created.");
        assert_eq!(told, !starts.is_empty(), "{policy}");
        let app = world.container(&uid, "app");
        let lost = if starts.is_empty() { &app["state"] } else { &app["lastState"] };
        assert_eq!(lost["terminated"]["exitCode"], 255, "{policy}");
        assert_eq!(lost["terminated"]["reason"], "Unknown", "{policy}");
    };
    check("Always", "Running", &["i", "s", "app"], [1, 1, 1]);
    check("OnFailure", "Running", &["i", "s", "app"], [1, 1, 1]);
    check("Never", "Failed", &[], [0, 0, 0]);
}

#[test]
fn old_runs_are_forgotten_by_the_runtime() {
    let mut world = World::new(21);
    world.fake.set_behaviour("bad", ends(1));
    let uid = world.set(one(json!({"name": "app", "image": "bad"})));
    world.seconds(100);
    let removed =
        world.fake.history.iter().filter(|command| matches!(command, Command::RemoveContainer { .. })).count();
    assert_eq!(i64::try_from(removed).unwrap(), world.main(&uid)["restartCount"].as_i64().unwrap());
}

/// Parts of volumes are found before the start; what is undefined or leaves the volume is told.
#[test]
fn mounts_show_parts_of_volumes() {
    let check = |mount: Value, expect: Result<&str, &str>| {
        let mut world = World::new(22);
        let mut full = json!({"name": "v", "mountPath": "/data"});
        full.as_object_mut().unwrap().extend(mount.as_object().unwrap().clone());
        let uid = world.set(pod(json!({"volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{"name": "app", "image": "a", "env": [{"name": "POD", "value": "p"}],
                "volumeMounts": [{"name": "v", "mountPath": "/all"}, full]}]})));
        world.seconds(2);
        let started = world.fake.history.iter().find_map(|command| match command {
            Command::StartContainer(spec) => Some(spec.mounts.clone()),
            _ => None,
        });
        match expect {
            Ok(path) => {
                let mounts = started.unwrap();
                assert_eq!(mounts[0].host_path.to_str(), Some("/volumes/v"));
                assert_eq!(mounts[1].host_path.to_str(), Some(path));
            }
            Err(message) => {
                assert_eq!(started, None);
                let waiting = world.main(&uid)["state"]["waiting"].clone();
                assert_eq!(waiting["reason"], "CreateContainerConfigError");
                assert_eq!(waiting["message"], message);
                assert!(world.says(&format!("Failed Error: {message}")));
            }
        }
    };
    check(json!({}), Ok("/volumes/v"));
    check(json!({"subPath": "a/b"}), Ok("/volumes/v/a/b"));
    check(json!({"subPathExpr": "$(POD)/logs"}), Ok("/volumes/v/p/logs"));
    check(json!({"subPathExpr": "$(NO)/logs"}), Err("missing value for \"NO\""));
    check(json!({"subPath": "/etc"}), Err("error SubPath `/etc` must not be an absolute path"));
    check(json!({"subPath": "a/../b"}), Err("unable to provision SubPath `a/../b`: must not contain '..'"));
    let outside = "failed to prepare subPath for volumeMount \"v\" of container \"app\"";
    check(json!({"subPath": "escape"}), Err(outside));
}
