//! The pod state machine against the fake runtime, on virtual time: tables over whole lives of pods, and a property over
//! many seeds.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod world;

use std::time::Duration;

use coracle_agent_core::{
    Agent, PodUid,
    effect::Outcome,
    workload::{
        ExitReason,
        fake::{Behaviour, Faults, Life, OnStop},
    },
};
use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use world::{World, deleted, ends, facts, one, pod};

#[test]
fn a_simple_pod_becomes_ready_and_says_what_the_kubelet_says() {
    let mut world = World::new(1);
    let uid = world.set(one(json!({"name": "app", "image": "hello:v1"})));
    assert_eq!(world.status(&uid)["phase"], "Pending");
    assert_eq!(world.main(&uid)["state"]["waiting"]["reason"], "ContainerCreating");
    world.seconds(2);
    let status = world.status(&uid);
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], "10.42.0.5");
    assert_eq!(status["hostIP"], "192.0.2.1");
    assert_eq!(status["qosClass"], "BestEffort");
    for name in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(world.condition(&uid, name)["status"], "True", "{name}");
    }
    let main = world.main(&uid);
    assert_eq!((&main["ready"], &main["started"], &main["restartCount"]), (&json!(true), &json!(true), &json!(0)));
    assert!(main["containerID"].as_str().unwrap().starts_with("fake://"));
    assert_eq!(world.events[0], "Pulling Pulling image \"hello:v1\"");
    assert!(world.events[1].starts_with("Pulled Successfully pulled image \"hello:v1\" in "), "{}", world.events[1]);
    assert!(world.events[1].ends_with(" including waiting). Image size: 44032 bytes."), "{}", world.events[1]);
    assert_eq!(world.events[2..], ["Created Container created", "Started Container started"]);
}

#[test]
fn crashes_back_off_as_the_kubelet_does() {
    let mut world = World::new(2);
    world.fake.set_behaviour("bad", ends(3));
    let uid = world.set(one(json!({"name": "app", "image": "bad"})));
    // Runs end after a second each: the first restart is immediate, the next ones wait 10 and 20 seconds.
    world.seconds(6);
    let main = world.main(&uid);
    assert_eq!(main["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(main["state"]["waiting"]["message"], "back-off 10s restarting failed container=app pod=p_ns(u1)");
    assert_eq!(main["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(main["lastState"]["terminated"]["reason"], "Error");
    assert_eq!(main["restartCount"], 1);
    assert_eq!(world.status(&uid)["phase"], "Running");
    assert!(world.events.iter().any(|e| e == "BackOff Back-off restarting failed container app in pod p_ns(u1)"));
    world.seconds(11);
    assert_eq!(world.main(&uid)["restartCount"], 2);
    assert!(world.main(&uid)["state"]["waiting"]["message"].as_str().unwrap().starts_with("back-off 20s"));
}

#[test]
fn restart_policies_decide_the_phase() {
    let check = |policy: &str, code: i32, phase: &str, reason: &str| {
        let mut world = World::new(3);
        world.fake.set_behaviour("job", ends(code));
        let spec = json!({"restartPolicy": policy, "containers": [{"name": "app", "image": "job"}]});
        let uid = world.set(pod(spec));
        world.seconds(5);
        assert_eq!(world.status(&uid)["phase"], phase, "{policy} {code}");
        assert_eq!(world.condition(&uid, "Ready")["reason"], reason, "{policy} {code}");
        if phase != "Running" {
            assert!(world.fake.is_gone(&uid), "the sandbox of a pod that ended is removed");
        }
    };
    check("Never", 0, "Succeeded", "PodCompleted");
    check("Never", 1, "Failed", "PodFailed");
    check("OnFailure", 0, "Succeeded", "PodCompleted");
    check("OnFailure", 1, "Running", "ContainersNotReady");
    check("Always", 0, "Running", "ContainersNotReady");
}

#[test]
fn init_containers_run_in_order_and_sidecars_outlive_the_rest() {
    let mut world = World::new(4);
    world.fake.set_behaviour("init", ends(0));
    let spec = json!({"restartPolicy": "Never",
        "initContainers": [
            {"name": "i1", "image": "init"},
            {"name": "s1", "image": "side", "restartPolicy": "Always"},
            {"name": "i2", "image": "init"},
            {"name": "s2", "image": "side", "restartPolicy": "Always"}],
        "containers": [{"name": "app", "image": "main"}]});
    world.fake.set_behaviour(
        "main",
        Behaviour {
            life: Life::Ends { after: Duration::from_secs(10), code: 0, reason: ExitReason::Completed },
            ..Behaviour::default()
        },
    );
    let uid = world.set(pod(spec));
    assert_eq!(world.main(&uid)["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(world.condition(&uid, "Initialized")["message"], "containers with incomplete status: [i1 s1 i2 s2]");
    world.seconds(6);
    assert_eq!(world.starts(), ["i1", "s1", "i2", "s2", "app"]);
    assert_eq!(world.status(&uid)["phase"], "Running");
    world.seconds(20);
    assert_eq!(world.status(&uid)["phase"], "Succeeded");
    let order: Vec<String> = world.stops().into_iter().map(|(name, _)| name).collect();
    assert_eq!(order, ["s2", "s1"]);
}

#[test]
fn a_failed_init_container_fails_a_pod_that_is_never_restarted() {
    let mut world = World::new(5);
    world.fake.set_behaviour("init", ends(7));
    let spec = json!({"restartPolicy": "Never", "initContainers": [{"name": "i", "image": "init"}],
        "containers": [{"name": "app", "image": "a"}]});
    let uid = world.set(pod(spec));
    world.seconds(5);
    assert_eq!(world.status(&uid)["phase"], "Failed");
    assert_eq!(world.starts(), ["i"]);
}

#[test]
fn deletion_gives_grace_then_finishes_and_forgets() {
    let check = |on_stop: OnStop, code: i32| {
        let mut world = World::new(6);
        world.fake.set_behaviour("a", Behaviour { on_stop, ..Behaviour::default() });
        let object = one(json!({"name": "app", "image": "a"}));
        let uid = world.set(object.clone());
        world.seconds(2);
        world.set(deleted(object, 30));
        world.seconds(29);
        let early = world.finished.clone();
        world.seconds(5);
        assert_eq!(early.is_empty(), code == 137);
        assert_eq!(world.finished, std::slice::from_ref(&uid));
        assert_eq!(world.forgotten, [uid]);
        let last = serde_json::to_value(world.statuses.last().unwrap()).unwrap();
        assert_eq!(last["containerStatuses"][0]["state"]["terminated"]["exitCode"], code);
        assert_eq!(last["phase"], "Failed");
        assert!(world.events.contains(&"Killing Stopping container app".to_owned()));
    };
    check(OnStop::ExitAfter(Duration::from_millis(50)), 143);
    check(OnStop::Ignore, 137);
}

#[test]
fn pre_stop_takes_its_time_out_of_the_grace_period() {
    let check = |sleep: i64, grace: i64, expect: u64| {
        let mut world = World::new(7);
        let object = one(json!({"name": "app", "image": "a", "lifecycle": {"preStop": {"sleep": {"seconds": sleep}}}}));
        world.set(object.clone());
        world.seconds(2);
        world.set(deleted(object, grace));
        world.seconds(60);
        assert_eq!(world.stops(), [("app".to_owned(), expect)]);
    };
    check(10, 30, 20);
    check(40, 30, 2);
}

#[test]
fn a_missing_image_is_retried_with_back_off() {
    let mut world = World::new(8);
    world.fake.set_in_registry("gone:1", false);
    let uid = world.set(one(json!({"name": "app", "image": "gone:1"})));
    world.seconds(1);
    assert_eq!(world.main(&uid)["state"]["waiting"]["reason"], "ErrImagePull");
    world.seconds(3);
    let waiting = world.main(&uid)["state"]["waiting"].clone();
    assert_eq!(waiting["reason"], "ImagePullBackOff");
    assert_eq!(
        waiting["message"],
        "Back-off pulling image \"gone:1\": ErrImagePull: failed to pull \"gone:1\": not found"
    );
    assert!(world.events.contains(&"Failed Error: ErrImagePull".to_owned()));
    world.fake.set_in_registry("gone:1", true);
    world.seconds(30);
    assert_eq!(world.status(&uid)["phase"], "Running");
    let mut reasons: Vec<String> = Vec::new();
    for status in &world.statuses {
        let state = status.container_statuses.iter().flatten().find_map(|one| one.state.as_ref());
        let reason = state.and_then(|state| state.waiting.as_ref()).and_then(|waiting| waiting.reason.clone());
        reasons.push(reason.unwrap_or_else(|| "runs".to_owned()));
    }
    reasons.dedup();
    // Each try is under way for a moment; what is known of the last one is shown meanwhile.
    assert_eq!(reasons, ["ContainerCreating", "ErrImagePull", "ImagePullBackOff", "runs"]);
}

#[test]
fn probes_gate_restart_and_show() {
    let mut world = World::new(9);
    let probe = json!({"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 3});
    world.probe = Outcome::Failure { output: "refused".into() };
    let uid = world.set(one(json!({"name": "app", "image": "a", "readinessProbe": probe})));
    world.seconds(5);
    assert_eq!(world.condition(&uid, "Ready")["message"], "containers with unready status: [app]");
    assert!(world.events.contains(&"Unhealthy Readiness probe failed: refused".to_owned()));
    world.probe = Outcome::Success;
    world.seconds(2);
    assert_eq!(world.condition(&uid, "Ready")["status"], "True");
    world.probe = Outcome::Failure { output: "refused".into() };
    world.seconds(2);
    assert_eq!(world.condition(&uid, "Ready")["status"], "True", "two failures are not three");
    world.seconds(1);
    assert_eq!(world.condition(&uid, "Ready")["status"], "False");
    assert_eq!(world.main(&uid)["restartCount"], 0);

    let mut world = World::new(9);
    world.probe = Outcome::Failure { output: "refused".into() };
    let uid = world.set(one(json!({"name": "app", "image": "a", "livenessProbe": probe})));
    world.seconds(6);
    assert_eq!(world.main(&uid)["restartCount"], 1);
    let message = "Killing Container app failed liveness probe, will be restarted";
    assert!(world.events.contains(&message.to_owned()));

    let mut world = World::new(9);
    world.probe = Outcome::Failure { output: "refused".into() };
    let uid = world.set(one(json!({"name": "app", "image": "a", "startupProbe": probe, "livenessProbe": probe})));
    world.run_for(Duration::from_millis(1500));
    assert_eq!(world.main(&uid)["started"], false);
    assert!(!world.events.iter().any(|event| event.contains("Liveness")));
    world.probe = Outcome::Success;
    world.seconds(2);
    assert_eq!(world.main(&uid)["started"], true);
}

#[test]
fn a_missing_config_map_is_said_and_healed() {
    let mut world = World::new(10);
    let env = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]);
    let uid = world.set(one(json!({"name": "app", "image": "a", "env": env})));
    world.seconds(1);
    let waiting = world.main(&uid)["state"]["waiting"].clone();
    assert_eq!(waiting["reason"], "CreateContainerConfigError");
    assert_eq!(waiting["message"], "configmap \"cm\" not found");
}

#[test]
fn the_active_deadline_ends_a_pod() {
    let mut world = World::new(11);
    let uid = world.set(pod(json!({"activeDeadlineSeconds": 20, "containers": [{"name": "app", "image": "a"}]})));
    world.seconds(19);
    assert_eq!(world.status(&uid)["phase"], "Running");
    world.seconds(3);
    assert_eq!(world.status(&uid)["phase"], "Failed");
    assert_eq!(world.status(&uid)["reason"], "DeadlineExceeded");
}

#[test]
fn a_new_agent_adopts_what_runs_and_restarts_what_was_lost() {
    let check = |lost: bool, restarts: i64| {
        let mut world = World::new(12);
        let object = one(json!({"name": "app", "image": "a"}));
        let uid = world.set(object.clone());
        world.seconds(2);
        let mut again = object;
        again["status"] = world.status(&uid);
        if lost {
            world.fake.lose_everything();
        }
        let adopted = world.fake.adopt();
        world.agent = Agent::new(facts(), Node::default(), adopted);
        world.set(again);
        world.agent.handle_complete();
        world.seconds(5);
        assert_eq!(world.main(&uid)["restartCount"], restarts);
        assert_eq!(world.condition(&uid, "Ready")["status"], "True");
        assert_eq!(world.fake.running().count(), 1);
        if lost {
            assert_eq!(world.main(&uid)["lastState"]["terminated"]["reason"], "Unknown");
        }
    };
    check(false, 0);
    check(true, 1);
}

#[test]
fn orphans_of_a_runtime_are_removed() {
    let mut world = World::new(13);
    let uid = world.set(one(json!({"name": "app", "image": "a"})));
    world.seconds(2);
    world.agent = Agent::new(facts(), Node::default(), world.fake.adopt());
    world.agent.handle_complete();
    world.seconds(1);
    assert!(world.fake.is_gone(&uid));
}

/// Whatever faults come: once they stop, every pod that is wanted runs, every deleted one is gone, and no final phase is
/// ever left (checked at each status).
#[test]
fn faults_heal_on_every_seed() {
    for seed in 0..300 {
        let mut world = World::new(seed);
        world.fake.set_faults(Faults { pull: 0.3, sandbox: 0.3, start: 0.3, crash: 0.5 });
        world.fake.set_behaviour("init", ends(0));
        let mut objects = Vec::new();
        for n in 0..4 {
            let mut object = pod(json!({
                "initContainers": [{"name": "i", "image": "init"}, {"name": "s", "image": "s", "restartPolicy": "Always"}],
                "containers": [{"name": "a", "image": "a"}, {"name": "b", "image": "b",
                    "lifecycle": {"preStop": {"sleep": {"seconds": 3}}}}]}));
            object["metadata"]["uid"] = json!(format!("u{n}"));
            objects.push(object.clone());
            world.set(object);
            world.seconds(seed % 7);
        }
        let gone = world.set(deleted(objects[0].clone(), 5));
        world.seconds(60 + seed);
        world.fake.set_faults(Faults::default());
        world.seconds(1200);
        for object in &objects[1..] {
            let uid = PodUid::new(object["metadata"]["uid"].as_str().unwrap());
            assert_eq!(world.condition(&uid, "Ready")["status"], "True", "seed {seed}: {}", world.status(&uid));
        }
        assert!(world.forgotten.contains(&gone) && world.fake.is_gone(&gone), "seed {seed}");
        assert_eq!(world.fake.running().count(), 9, "seed {seed}");
    }
}
