//! The program's own commands say what kubectl says: each line of a table is given to both, on the same cluster.

use std::time::Duration;

use anyhow::{Result, ensure};
use coracle_e2e::{Cluster, Output, Running, eventually, run};

const SOON: Duration = Duration::from_secs(30);
/// Ages go on counting between two commands: they have this long to be asked in the same second.
const SAME_MOMENT: Duration = Duration::from_secs(20);

fn both(cluster: &Cluster, line: &str) -> Result<(Output, Output)> {
    let line = line.replace("EXAMPLES", &Cluster::file("examples"));
    // A blank within a word is written as an underscore pair.
    let words: Vec<String> = line.split_whitespace().map(|word| word.replace("__", " ")).collect();
    let (mut theirs, mut ours) = (cluster.kubectl_command(), cluster.coracle());
    theirs.args(&words);
    ours.args(&words);
    Ok((run(theirs, None)?, run(ours, None)?))
}

/// kubectl names itself where it tells what to type; nothing else may differ.
fn is_same(theirs: &Output, ours: &Output) -> bool {
    let said = |text: &str| {
        let lines = text.split_inclusive('\n').filter(|line| !is_of_some_versions(line.trim_end_matches('\n')));
        // Up to version 1.32 a projected volume told of this under another name, and wrongly.
        let named = |line: &str| line.replace("ConfigMapOptional:       <nil>", "Optional:                false");
        lines.map(|line| named(line).replace("kubectl", "coracle")).collect::<String>()
    };
    theirs.code == ours.code && said(&theirs.stdout) == said(&ours.stdout) && said(&theirs.stderr) == said(&ours.stderr)
}

/// Lines of `describe` that kubectl had before version 1.34 or has since, whatever the server: which kubectl is on the machine
/// is not for this program to match.
fn is_of_some_versions(line: &str) -> bool {
    [
        "  Kube-Proxy Version:         ",
        "Mountable secrets:   <none>",
        "Tokens:              <none>",
        "Time Zone:                     <unset>",
        // Of a DaemonSet.
        "Namespace:      default",
    ]
    .contains(&line)
}

fn difference(line: &str, theirs: &Output, ours: &Output) -> String {
    format!(
        "{line}\n--- kubectl, exit {:?}\n{}{}--- coracle, exit {:?}\n{}{}",
        theirs.code, theirs.stdout, theirs.stderr, ours.code, ours.stdout, ours.stderr
    )
}

fn compare(cluster: &Cluster, line: &str) -> Result<()> {
    eventually(SAME_MOMENT, || {
        let (theirs, ours) = both(cluster, line)?;
        ensure!(is_same(&theirs, &ours), "{}", difference(line, &theirs, &ours));
        Ok(())
    })
}

/// Compares every line, and tells all that differ.
fn compare_all(cluster: &Cluster, lines: &[&str]) -> Result<()> {
    let wrong: Vec<String> =
        lines.iter().filter_map(|line| compare(cluster, line).err()).map(|error| format!("{error:#}")).collect();
    ensure!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), lines.len(), wrong.join("\n\n"));
    Ok(())
}

/// A cluster with something of everything, at rest.
fn furnished() -> Result<Cluster> {
    let cluster = Cluster::start()?;
    cluster.kubectl(&["apply", "-f", &Cluster::file("examples/hello/"), "-f", &Cluster::file("examples/worker/")])?;
    cluster.k("create configmap plain --from-literal=b=2 --from-literal=a=1")?;
    cluster.k("create namespace other")?;
    cluster.k("create quota limits --hard=pods=5,requests.cpu=1 -n other")?;
    cluster.k("create cronjob daily --image=misbehave:v1 --schedule=@daily")?;
    cluster.k("create pdb guard --selector=app=hello --min-available=1")?;
    cluster.k("create priorityclass high --value=1000 --description=first")?;
    cluster.k("create rolebinding reads --clusterrole=view --serviceaccount=default:default --user=me")?;
    cluster.k("create clusterrolebinding sees --clusterrole=view --group=all")?;
    cluster.k("create job once --image=misbehave:v1 -- print 1")?;
    cluster.k("run talks --image=misbehave:v1 --restart=Never --labels=app=talks,tier=back -- print 3")?;
    cluster.k("run fails --image=misbehave:v1 --restart=Never -- exit 3")?;
    cluster.k("run homeless --image=hello:v1 --overrides={\"spec\":{\"nodeSelector\":{\"no\":\"where\"}}}")?;
    cluster.apply(MANY)?;
    for done in ["talks=Succeeded", "fails=Failed", "many=Succeeded"] {
        let (pod, phase) = done.split_once('=').unwrap_or_default();
        cluster.k(&format!("wait --for=jsonpath={{.status.phase}}={phase} pod/{pod} --timeout=30s"))?;
    }
    cluster.k("wait --for=condition=Available deploy/hello deploy/worker --timeout=30s")?;
    cluster.k("set image deploy/hello hello=hello:v2")?;
    cluster.k("rollout status deploy/hello --timeout=60s")?;
    // The pods of the first version are gone.
    eventually(SOON, || {
        let pods = cluster.k("get pods -l app=hello --no-headers")?;
        ensure!(pods.lines().count() == 2, "{pods}");
        Ok(())
    })?;
    Ok(cluster)
}

/// A pod with something in most of its fields, and an object of several kinds.
const MANY: &str = r#"
apiVersion: v1
kind: LimitRange
metadata: {name: sizes, namespace: other}
spec: {limits: [{type: Container, default: {memory: 64Mi}, max: {cpu: "2"}}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: kept}
spec:
  replicas: 0
  serviceName: kept
  selector: {matchLabels: {app: kept}}
  template: {metadata: {labels: {app: kept}}, spec: {containers: [{name: c, image: "hello:v1"}]}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere}
spec:
  selector: {matchLabels: {app: everywhere}}
  template: {metadata: {labels: {app: everywhere}}, spec: {nodeSelector: {no: where}, containers: [{name: c, image: "hello:v1"}]}}
---
apiVersion: v1
kind: Pod
metadata:
  name: many
  labels: {app: many, z: a}
  annotations: {note: "a note", long: "two\nlines"}
spec:
  runtimeClassName: wasm
  restartPolicy: Never
  terminationGracePeriodSeconds: 3
  nodeSelector: {kubernetes.io/os: linux}
  tolerations: [{key: k, operator: Equal, value: v, effect: NoSchedule}]
  initContainers:
  - {name: before, image: "misbehave:v1", args: [print, "1"], resources: {limits: {memory: 64Mi, cpu: 100m}}}
  containers:
  - name: one
    image: misbehave:v1
    args: [print, "2"]
    ports: [{containerPort: 80}, {containerPort: 81, protocol: UDP, name: u}]
    env:
    - {name: PLAIN, value: text}
    - {name: FROM, valueFrom: {configMapKeyRef: {name: worker, key: greeting}}}
    - {name: KEY, valueFrom: {secretKeyRef: {name: worker, key: token, optional: true}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: MEM, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
    envFrom: [{configMapRef: {name: plain}, prefix: P_}]
    volumeMounts:
    - {name: config, mountPath: /config, readOnly: true}
    - {name: scratch, mountPath: /scratch, subPath: x}
    - {name: info, mountPath: /info}
    resources: {limits: {memory: 64Mi}, requests: {cpu: 10m, memory: 8Mi}}
  - {name: two, image: "misbehave:v1", args: [print, "2"], command: [misbehave]}
  volumes:
  - {name: config, configMap: {name: worker, optional: true}}
  - {name: scratch, emptyDir: {sizeLimit: 1Mi}}
  - {name: info, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
"#;

#[test]
fn tables_and_forms_are_kubectls() -> Result<()> {
    let cluster = furnished()?;
    compare_all(
        &cluster,
        &[
            "get pods",
            "get pods -A",
            "get po -o wide",
            "get pods -A -o wide",
            "get pods,deploy,rs,svc,endpoints,endpointslices -A -o wide",
            "get all",
            "get all -n other",
            "get nodes",
            "get nodes -o wide",
            "get no box --show-labels",
            "get deploy hello",
            "get deploy/hello svc/hello",
            "get deployments.apps",
            "get deployments.v1.apps -o name",
            "get pods -l app=hello",
            "get pods -l app__in__(hello,talks),tier!=front",
            "get pods --selector app=nothing",
            "get pods --field-selector status.phase=Succeeded",
            "get pods --field-selector nonsense=x",
            "get pods -L app -L tier",
            "get pods --show-labels --no-headers",
            "get pods --show-kind",
            "get pods --sort-by=.metadata.name",
            "get pods --sort-by .status.startTime -o name",
            "get ns,sc,pc,runtimeclass",
            "get cm,secret,sa,quota,lease,jobs -A",
            "get events --sort-by=.metadata.name -n other",
            "get quota -n other -o yaml",
            "get csr",
            "get csr -A",
            "get nonsense",
            "get pod nothing",
            "get pod nothing fails -o name",
            "get pod nothing --ignore-not-found",
            "get pods fails -A",
            "get pods -n nowhere",
            "get pod/talks deploy",
            "get po,svc talks",
            "get -f EXAMPLES/hello",
            "get -f EXAMPLES/worker/deployment.yaml -o name",
            "get -f /no/such/file",
            "get --raw /version",
            "get --raw /nonsense",
            "get --raw /api/v1/namespaces/default/configmaps/plain",
        ],
    )
}

#[test]
fn objects_are_written_as_kubectl_writes_them() -> Result<()> {
    let cluster = furnished()?;
    compare_all(
        &cluster,
        &[
            "get deploy hello -o yaml",
            "get deploy hello -o json",
            "get deploy hello -o yaml --show-managed-fields",
            "get deploy -o yaml",
            "get deploy,svc -o json",
            "get cm,secret -o yaml",
            "get pod many -o yaml",
            "get pods -o json",
            "get node box -o yaml",
            "get pods -o name",
            "get deploy,svc -o name",
            "get pods -o jsonpath={.items[*].metadata.name}",
            "get pods -o jsonpath={range__.items[*]}{.metadata.name}={.status.phase}{\"\\n\"}{end}",
            "get pods -o jsonpath={.items[?(@.status.phase==\"Failed\")].metadata.name}",
            "get pods -o jsonpath='{.items[0].kind}'",
            "get pod many -o jsonpath={.spec.containers[*].name}:{.spec.containers[-1].image}:{.metadata.labels}",
            "get pod many -o jsonpath={.nonsense}",
            "get pod many -o jsonpath={..image}",
            "get pod many -o jsonpath={.metadata.annotations.note}",
            "get pod many -o jsonpath={",
            "get pods -o custom-columns=NAME:.metadata.name,PHASE:.status.phase,NONE:.nonsense,IMAGES:.spec.containers[*].image",
            "get pods -o custom-columns=NAME:.metadata.name --no-headers",
            "get pods -o jsonpath-as-json={.items[*].metadata.name}",
            "get pods -l app=none -o yaml",
            "get pods -l app=none -o json",
            "get pods -l app=none -o name",
        ],
    )
}

#[test]
fn pages_of_describe_are_kubectls() -> Result<()> {
    let cluster = furnished()?;
    let set = cluster.field("rs -l app=hello", "{.items[0].metadata.name}")?;
    compare_all(
        &cluster,
        &[
            "describe pod many",
            "describe pod talks",
            "describe pod fails",
            "describe pod homeless",
            "describe pods -l app=hello",
            "describe pod hello",
            "describe pod/many deploy/hello",
            "describe pod many --show-events=false",
            "describe node box",
            "describe nodes",
            "describe deploy hello",
            "describe deploy worker",
            "describe deploy",
            &format!("describe rs {set}"),
            "describe svc hello",
            "describe svc kubernetes",
            "describe cm plain",
            "describe cm worker",
            "describe secret worker",
            "describe ns other",
            "describe ns default",
            "describe sa default",
            "describe quota limits -n other",
            "describe lease box -n kube-node-lease",
            "describe runtimeclass wasm",
            "describe job once",
            "describe cronjob daily",
            "describe statefulset kept",
            "describe daemonset everywhere",
            "describe pdb guard",
            "describe pc high",
            "describe rolebinding reads",
            "describe clusterrolebinding sees",
            "describe endpointslices -l kubernetes.io/service-name=hello",
            "describe limitrange sizes -n other",
            "describe endpoints hello",
            "describe pod nothing",
            "describe nonsense",
            "describe pods -n other",
            "describe -f EXAMPLES/hello",
        ],
    )
}

/// Kinds that nothing here acts on, and whose pages have forms of their own.
const KINDS: &str = include_str!("coracle/kinds.yaml");

/// What controllers would have written of some of them.
const STATUSES: [(&str, &str); 4] = [
    (
        "hpa/h3",
        r#"{"currentReplicas":3,"desiredReplicas":4,"currentMetrics":[
            {"type":"Resource","resource":{"name":"cpu","current":{"averageUtilization":33,"averageValue":"10m"}}},
            {"type":"Resource","resource":{"name":"memory","current":{"averageValue":"5Mi"}}},
            {"type":"Object","object":{"metric":{"name":"o"},"describedObject":{"kind":"Service","name":"s"},"current":{"averageValue":"7"}}},
            {"type":"External","external":{"metric":{"name":"e"},"current":{"value":"9"}}}],
            "conditions":[{"type":"AbleToScale","status":"True","reason":"R","message":"all good"}]}"#,
    ),
    (
        "pvc/pvc2",
        r#"{"phase":"Bound","capacity":{"storage":"1Gi"},"accessModes":["ReadWriteOnce"],"conditions":[
            {"type":"Resizing","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"R","message":"m"}]}"#,
    ),
    ("pv/pv", r#"{"phase":"Bound","message":"hm"}"#),
    ("ingress/ing", r#"{"loadBalancer":{"ingress":[{"ip":"1.2.3.4"},{"hostname":"x.y"}]}}"#),
];

#[test]
fn pages_of_what_is_only_declared_are_kubectls() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.kubectl(&["apply", "-f", &Cluster::file("examples/hello/")])?;
    cluster.kubectl_run(&["create", "-f", "-"], Some(KINDS))?.ok()?;
    for (object, status) in STATUSES {
        let patch = format!("{{\"status\":{status}}}");
        cluster.kubectl(&["patch", object, "--subresource=status", "--type=merge", "-p", &patch])?;
    }
    cluster.k("certificate approve approved")?;
    cluster.k("certificate deny denied")?;
    cluster.k("wait --for=condition=Available deploy/hello --timeout=30s")?;
    compare_all(
        &cluster,
        &[
            "describe netpol",
            "describe pv",
            "describe pv/pv",
            "describe pv/p",
            "describe pv p",
            "describe pvc",
            "describe ingress",
            "describe ingressclass",
            "describe hpa",
            "describe role",
            "describe clusterrole cr2",
            "describe rolebinding",
            "describe sc",
            "describe csr",
        ],
    )
}

#[test]
fn logs_and_rollouts_are_told_as_kubectl_tells_them() -> Result<()> {
    let cluster = furnished()?;
    compare_all(
        &cluster,
        &[
            "logs talks",
            "logs pod/talks --tail=2",
            "logs talks --tail=0",
            "logs talks --timestamps",
            "logs talks --since=1h",
            "logs talks --since-time=2100-01-01T00:00:00Z",
            "logs talks --limit-bytes=9",
            "logs talks --prefix",
            "logs talks --previous",
            "logs talks -c nonsense",
            "logs talks -c talks -f",
            "logs many",
            "logs many one",
            "logs many -c before",
            "logs many --all-containers --prefix",
            "logs -l app=talks",
            "logs -l app=talks --tail=1 --prefix",
            "logs -l app=none",
            "logs job/once",
            "logs deploy/nothing",
            "logs nothing",
            "logs homeless",
            "rollout status deploy/hello",
            "rollout status deploy/nothing",
            "rollout status pod/talks",
            "rollout history deploy/hello",
            "rollout history deploy/hello --revision=1",
            "rollout history deploy/hello --revision=9",
            "rollout history deploy",
            "scale deploy/hello --replicas=2",
            "scale deploy hello worker --replicas=1",
            "scale deploy/hello --replicas=2 --current-replicas=7",
            "scale deploy/nothing --replicas=2",
            "scale pod/talks --replicas=2",
            "scale -f EXAMPLES/hello/deployment.yaml --replicas=2",
            "scale deploy/hello --replicas=-2",
            "rollout pause deploy/nothing",
            "rollout undo deploy/hello --to-revision=9",
            "rollout resume deploy/hello",
            "apply -f EXAMPLES/worker/config.yaml",
            "apply -f EXAMPLES/worker/config.yaml -o name",
            "apply -f EXAMPLES/hello --dry-run=server",
            "apply -f EXAMPLES/hello --dry-run=client",
            "apply -f /no/such/file",
            "create -f EXAMPLES/hello",
            "delete pod nothing",
            "delete pod nothing --ignore-not-found",
            "delete nonsense x",
            "delete pods -l app=none",
            "delete -f EXAMPLES/hello --dry-run=client",
            "api-resources",
            "api-resources -o name",
            "api-resources --namespaced=false --no-headers",
        ],
    )
}

/// Lines that change something: kubectl changes `left`, this program `right`, and both say the same of it.
#[test]
fn changes_are_told_as_kubectl_tells_them() -> Result<()> {
    let cluster = Cluster::start()?;
    let dir = tempfile::tempdir()?;
    for side in ["left", "right"] {
        let manifest = |value: &str| {
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {side}}}\ndata: {{a: {value}}}\n---\n\
                 apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {side}, labels: {{app: {side}}}}}\nspec:\n  replicas: 1\n  \
                 selector: {{matchLabels: {{app: {side}}}}}\n  template:\n    metadata: {{labels: {{app: {side}}}}}\n    \
                 spec: {{containers: [{{name: c, image: \"hello:{value}\"}}]}}\n"
            )
        };
        std::fs::write(dir.path().join(format!("{side}.yaml")), manifest("v1"))?;
        std::fs::write(dir.path().join(format!("{side}-2.yaml")), manifest("v2"))?;
        std::fs::write(
            dir.path().join(format!("{side}-bad.yaml")),
            manifest("v2").replace("replicas: 1", "replicas: -1"),
        )?;
        std::fs::write(dir.path().join(format!("{side}-odd.yaml")), manifest("v2").replace("data:", "datta:"))?;
    }
    let folder = dir.path().display().to_string();
    for line in [
        "create -f DIR/SIDE.yaml",
        "create -f DIR/SIDE.yaml",
        "apply -f DIR/SIDE.yaml",
        "apply -f DIR/SIDE.yaml",
        "apply -f DIR/SIDE-2.yaml --dry-run=server",
        "apply -f DIR/SIDE-2.yaml",
        "apply -f DIR/SIDE-bad.yaml",
        "apply -f DIR/SIDE-odd.yaml",
        "rollout status deploy/SIDE --timeout=60s",
        "rollout history deploy/SIDE",
        "rollout pause deploy/SIDE",
        "rollout pause deploy/SIDE",
        "rollout resume deploy/SIDE",
        "rollout resume deploy/SIDE",
        "rollout restart deploy/SIDE",
        "rollout status deploy/SIDE --timeout=60s",
        "rollout undo deploy/SIDE",
        "rollout undo deploy/SIDE --to-revision=7",
        "rollout undo deploy/SIDE --to-revision=1",
        "scale deploy/SIDE --replicas=0",
        "scale deploy/SIDE --replicas=2 --current-replicas=0",
        "delete cm SIDE --dry-run=server",
        "delete cm/SIDE deploy/SIDE",
        "delete -f DIR/SIDE.yaml",
        "delete -f DIR/SIDE.yaml --ignore-not-found",
        "create -f DIR/SIDE.yaml -o name",
        "delete deploy -l app=SIDE",
        "delete cm SIDE --wait=false",
    ] {
        let fill = |side: &str| line.replace("SIDE", side).replace("DIR", &folder);
        let (mut theirs, mut ours) = (cluster.kubectl_command(), cluster.coracle());
        theirs.args(fill("left").split_whitespace());
        ours.args(fill("right").split_whitespace());
        let (theirs, ours) = std::thread::scope(|scope| {
            let theirs = scope.spawn(|| run(theirs, None));
            (theirs.join().map_err(|_| anyhow::anyhow!("kubectl")), run(ours, None))
        });
        let (mut theirs, ours) = (theirs??, ours?);
        theirs.stdout = steps(&theirs.stdout.replace("left", "right"));
        theirs.stderr = theirs.stderr.replace("left", "right");
        let ours = Output { stdout: steps(&ours.stdout), ..ours };
        ensure!(is_same(&theirs, &ours), "{}", difference(line, &theirs, &ours));
    }
    Ok(())
}

/// Of a rollout that is waited for only the end: what is seen on the way is a matter of moments.
fn steps(text: &str) -> String {
    text.lines()
        .filter(|line| !line.to_lowercase().starts_with("waiting for "))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn a_watch_is_shown_as_kubectl_shows_it() -> Result<()> {
    let cluster = Cluster::start()?;
    let start = |line: &str| -> Result<(Running, Running)> {
        let mut ours = cluster.coracle();
        ours.args(line.split_whitespace());
        Ok((cluster.k_runs(line)?, Running::start(ours)?))
    };
    cluster.k("create configmap first --from-literal=a=b")?;
    let lines = [
        "get cm -w",
        "get cm first -w --no-headers",
        "get cm --watch-only -o name",
        "get cm -w -A --show-labels",
        "get cm first -w -o yaml",
    ];
    let watches = lines.iter().map(|line| Ok((*line, start(line)?))).collect::<Result<Vec<_>>>()?;
    for (_, (theirs, ours)) in watches.iter().filter(|(line, _)| !line.contains("only")) {
        theirs.line(SOON, |line| line.contains("first"))?;
        ours.line(SOON, |line| line.contains("first"))?;
    }
    // Those that show nothing at first have begun when they show the first change: it is made until they do.
    let (theirs, ours) = &watches[2].1;
    eventually(SOON, || {
        cluster.k("label cm first --overwrite begun=yes")?;
        cluster.k("label cm first begun-")?;
        ensure!(!theirs.lines().is_empty() && !ours.lines().is_empty(), "one has not begun");
        Ok(())
    })?;
    cluster.k("label cm first x=y")?;
    cluster.k("create configmap last --from-literal=a=b")?;
    cluster.k("delete cm first")?;
    cluster.k("create configmap first --from-literal=end=yes")?;
    for (line, (theirs, ours)) in &watches {
        eventually(SOON, || {
            // Ages, uids and how much was seen before the start are matters of the moment: compared is what comes last.
            let tail = |lines: Vec<String>| -> Vec<String> {
                let plain =
                    |line: &String| line.split_whitespace().filter(|word| !is_age(word)).collect::<Vec<_>>().join(" ");
                lines.iter().rev().take(4).map(plain).collect()
            };
            let (theirs, ours) = (tail(theirs.lines()), tail(ours.lines()));
            ensure!(theirs.len() == 4 && theirs == ours, "{line}:\n{theirs:#?}\n{ours:#?}");
            Ok(())
        })?;
    }
    Ok(())
}

fn is_age(word: &str) -> bool {
    word.ends_with(['s', 'm', 'h', 'd']) && word.starts_with(|c: char| c.is_ascii_digit())
}

#[test]
fn machines_images_and_shells() -> Result<()> {
    let cluster = Cluster::start()?;
    let ours = |line: &str| cluster.coracle_run(&line.split_whitespace().collect::<Vec<_>>());
    // The port is taken by the cluster that runs: that is told, and is an error for any other data directory.
    let check = ours("check")?.ok()?;
    ensure!(check.contains("6443 is in use"), "{check}");
    let dir = tempfile::tempdir()?;
    let mut elsewhere = cluster.namespace().command(&Cluster::program()?.display().to_string());
    elsewhere.arg("--data-dir").arg(dir.path().join("data")).arg("check");
    let check = run(elsewhere, None)?;
    ensure!(check.code == Some(1) && check.stdout.contains("6443"), "{check:?}");
    let free = ours("check --port 7443")?.ok()?;
    for word in ["user", "nftables", "ok"] {
        ensure!(free.contains(word), "no {word} in\n{free}");
    }
    let json: serde_json::Value = serde_json::from_str(&ours("check --port 7443 -o json")?.ok()?)?;
    ensure!(
        json.as_array().is_some_and(|list| list.len() > 3 && list.iter().all(|f| f["result"].is_string())),
        "{json}"
    );

    let list = ours("image list")?.ok()?;
    ensure!(list.starts_with("REFERENCE ") && list.contains("docker.io/library/hello:v1"), "{list}");
    let json: serde_json::Value = serde_json::from_str(&ours("image ls -o json")?.ok()?)?;
    ensure!(json.as_array().is_some_and(|list| list.len() == 5), "{json}");
    let file = Cluster::file("examples/hello/hello.wasm");
    // All names of what was imported are told.
    let imported = ours(&format!("image import {file} --name again:v1"))?.ok()?;
    ensure!(imported.starts_with("imported ") && imported.contains("docker.io/library/again:v1"), "{imported}");
    let same = ours("image list")?.ok()?;
    let digest = |name: &str| {
        same.lines().find(|l| l.contains(name)).and_then(|l| l.split_whitespace().nth(2)).map(str::to_owned)
    };
    ensure!(digest("again:v1").is_some() && digest("again:v1") == digest("hello:v1"), "{same}");
    ensure!(ours("image rm again:v1")?.ok()? == "image \"again:v1\" removed\n");
    ensure!(!ours("image list")?.ok()?.contains("again:v1"));
    ensure!(ours("image list")?.ok()?.contains("hello:v1"), "the other name went too");
    let pull = ours("image pull 127.0.0.1:1/none:v1")?.fails()?;
    ensure!(pull.contains("cannot pull 127.0.0.1:1/none:v1"), "{pull}");

    let complete = ours("completion bash")?.ok()?;
    let mut bash = std::process::Command::new("bash");
    bash.arg("-n");
    run(bash, Some(&complete))?.ok()?;
    let script = format!(
        "{complete}\nCOMP_WORDS=(coracle roll)\nCOMP_CWORD=1\n_coracle coracle roll coracle\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    );
    let mut bash = std::process::Command::new("bash");
    bash.args(["--norc", "-s"]);
    let offered = run(bash, Some(&script))?.ok()?;
    ensure!(offered.lines().any(|line| line == "rollout"), "{offered}");
    for shell in ["zsh", "fish"] {
        ensure!(ours(&format!("completion {shell}"))?.ok()?.contains("rollout"), "{shell}");
    }
    ensure!(ours("version --client")?.ok()?.contains("Client Version"));
    ensure!(ours("--help")?.ok()?.contains("rollout"));
    Ok(())
}
