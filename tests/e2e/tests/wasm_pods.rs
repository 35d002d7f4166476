//! What a pod of components declares, looked at from inside them: environment, files, the turns its containers take, and
//! who reaches whom.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use coracle_e2e::{Cluster, eventually, has_lines};

const SOON: Duration = Duration::from_secs(30);

/// A cluster that has more of the tests' components than the usual ones.
fn start() -> Result<Cluster> {
    let cluster = Cluster::start()?;
    for name in ["inspect", "server", "p3-command", "p3-server"] {
        let file = Cluster::file(&format!("tests/guests/{name}/{name}.wasm"));
        cluster.coracle_run(&["image", "import", &file, "--name", &format!("{name}:v1")])?.ok()?;
    }
    Ok(cluster)
}

/// Waits until a pod has ended well, and gives what its container `name` printed.
fn printed(cluster: &Cluster, pod: &str, name: &str) -> Result<String> {
    eventually(SOON, || {
        let phase = cluster.field(&format!("pod {pod}"), "{.status.phase}")?;
        ensure!(phase == "Succeeded", "{phase}: {}", cluster.k(&format!("describe pod {pod}"))?);
        Ok(())
    })?;
    cluster.k(&format!("logs {pod} -c {name}"))
}

#[test]
fn environment_and_files_are_those_declared() -> Result<()> {
    let cluster = start()?;
    cluster.k("create configmap settings --from-literal=COLOUR=blue --from-literal=file.txt=content")?;
    cluster.k("create secret generic hidden --from-literal=key=sesame")?;
    let host = cluster.data_dir().join("of-the-host");
    std::fs::create_dir_all(&host)?;
    std::fs::write(host.join("here"), "from the host")?;
    cluster.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: looks, labels: {{tier: back}}, annotations: {{note: "two words"}}}}
spec:
  runtimeClassName: wasm
  restartPolicy: Never
  volumes:
  - {{name: empty, emptyDir: {{}}}}
  - {{name: config, configMap: {{name: settings, items: [{{key: file.txt, path: a/b.txt}}]}}}}
  - {{name: secret, secret: {{secretName: hidden}}}}
  - {{name: down, downwardAPI: {{items: [{{path: labels, fieldRef: {{fieldPath: metadata.labels}}}}]}}}}
  - {{name: host, hostPath: {{path: {host}, type: Directory}}}}
  - name: all
    projected:
      sources:
      - {{configMap: {{name: settings, items: [{{key: COLOUR, path: colour}}]}}}}
      - {{secret: {{name: hidden}}}}
      - {{downwardAPI: {{items: [{{path: limit, resourceFieldRef: {{containerName: main, resource: limits.memory}}}}]}}}}
      - {{serviceAccountToken: {{path: token, audience: someone, expirationSeconds: 600}}}}
  containers:
  - name: main
    image: inspect:v1
    workingDir: /empty
    env:
    - {{name: FIRST, value: one}}
    - {{name: SECOND, value: $(FIRST)-two}}
    - {{name: LITERAL, value: $$(FIRST)}}
    - {{name: NODE, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}
    - {{name: NOTE, valueFrom: {{fieldRef: {{fieldPath: "metadata.annotations['note']"}}}}}}
    - {{name: KEY, valueFrom: {{secretKeyRef: {{name: hidden, key: key}}}}}}
    - {{name: NONE, valueFrom: {{configMapKeyRef: {{name: nobody, key: x, optional: true}}}}}}
    - {{name: LIMIT, valueFrom: {{resourceFieldRef: {{resource: limits.memory}}}}}}
    envFrom: [{{configMapRef: {{name: settings}}, prefix: OF_}}]
    resources: {{limits: {{memory: 64Mi}}}}
    args: [env, cwd, "cat=/config/a/b.txt", "cat=/secret/key", "cat=/down/labels", "cat=/host/here", "cat=/all/colour", "cat=/all/key",
      "cat=/all/limit", "write=/empty/x:kept", "cat=/shared/x", "ls=/var/run/secrets/kubernetes.io/serviceaccount",
      "cat=/var/run/secrets/kubernetes.io/serviceaccount/token", "cat=/sub"]
    volumeMounts:
    - {{name: empty, mountPath: /empty}}
    - {{name: empty, mountPath: /shared}}
    - {{name: config, mountPath: /config}}
    - {{name: secret, mountPath: /secret}}
    - {{name: down, mountPath: /down}}
    - {{name: host, mountPath: /host, readOnly: true}}
    - {{name: all, mountPath: /all}}
    - {{name: config, mountPath: /sub, subPath: a/b.txt}}
"#,
        host = host.display()
    ))?;
    let text = printed(&cluster, "looks", "main")?;
    has_lines(
        &text,
        &[
            "FIRST=one",
            "SECOND=one-two",
            "LITERAL=$(FIRST)",
            "NODE=box",
            "NOTE=two words",
            "KEY=sesame",
            "LIMIT=67108864",
            "OF_COLOUR=blue",
            "HOSTNAME=looks",
            "KUBERNETES_SERVICE_HOST=10.43.0.1",
            "KUBERNETES_SERVICE_PORT_HTTPS=443",
            "/empty",
            "content",
            "sesame",
            "tier=\"back\"",
            "from the host",
            "blue",
            "67108864",
            "kept",
            "ca.crt",
            "namespace",
            "token",
        ],
    )?;
    ensure!(!text.contains("NONE="), "what is optional and missing is left out:\n{text}");
    ensure!(
        text.lines().filter(|line| *line == "content").count() == 2,
        "the file, and the file by its subPath:\n{text}"
    );
    // The token is one that the API takes for the pod's account.
    let token = text.lines().find(|line| line.split('.').count() == 3 && line.len() > 200).context("no token")?;
    let review = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
    let (bearer, url) = (
        format!("Authorization: Bearer {token}"),
        "https://127.0.0.1:6443/apis/authentication.k8s.io/v1/selfsubjectreviews",
    );
    let json = "Content-Type: application/json";
    let who = cluster.namespace().exec("curl", &["-sSk", "--fail", "-H", &bearer, "-H", json, "-d", review, url])?;
    ensure!(who.contains("\"username\": \"system:serviceaccount:default:default\""), "{who}");
    Ok(())
}

#[test]
fn what_is_mounted_for_reading_is_not_written() -> Result<()> {
    let cluster = start()?;
    cluster.k("create configmap settings --from-literal=a=1")?;
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: writes}
spec:
  runtimeClassName: wasm
  restartPolicy: Never
  volumes: [{name: config, configMap: {name: settings}}, {name: empty, emptyDir: {}}]
  containers:
  - {name: config, image: "inspect:v1", args: ["write=/config/new:x"], volumeMounts: [{name: config, mountPath: /config}]}
  - {name: readonly, image: "inspect:v1", args: ["write=/empty/new:x"], volumeMounts: [{name: empty, mountPath: /empty, readOnly: true}]}
  - {name: outside, image: "inspect:v1", args: ["ls=/etc"]}
"#,
    )?;
    eventually(SOON, || {
        let phase = cluster.field("pod writes", "{.status.phase}")?;
        ensure!(phase == "Failed", "{phase}");
        Ok(())
    })?;
    for name in ["config", "readonly"] {
        let log = cluster.k(&format!("logs writes -c {name}"))?;
        ensure!(log.contains("not-permitted") || log.contains("read-only"), "{name}: {log}");
    }
    let log = cluster.k("logs writes -c outside")?;
    ensure!(log.contains("/etc is in no directory of this container"), "{log}");
    Ok(())
}

#[test]
fn init_containers_sidecars_hooks_and_probes_take_their_turns() -> Result<()> {
    let cluster = start()?;
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: turns}
spec:
  runtimeClassName: wasm
  terminationGracePeriodSeconds: 20
  volumes: [{name: shared, emptyDir: {}}]
  initContainers:
  - {name: first, image: "inspect:v1", args: ["sleep=300", "write=/shared/first:1"], volumeMounts: [{name: shared, mountPath: /shared}]}
  - name: beside
    image: server:v1
    restartPolicy: Always
    ports: [{containerPort: 8081}]
    startupProbe: {httpGet: {path: /health, port: 8081}, periodSeconds: 1}
  - {name: second, image: "inspect:v1", args: ["cat=/shared/first"], volumeMounts: [{name: shared, mountPath: /shared}]}
  containers:
  - name: main
    image: server:v1
    ports: [{name: web, containerPort: 8080}]
    startupProbe: {tcpSocket: {port: web}, periodSeconds: 1}
    readinessProbe: {httpGet: {path: /health, port: web, httpHeaders: [{name: X-A, value: b}]}, periodSeconds: 1}
    livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
    lifecycle:
      postStart: {httpGet: {path: "/bytes?1", port: 8081}}
      preStop: {sleep: {seconds: 3}}
"#,
    )?;
    let ip = cluster.ready("turns")?;
    ensure!(cluster.k("logs turns -c second")?.trim() == "1", "the second came after the first");
    let started = "{.status.initContainerStatuses[?(@.name==\"beside\")].started}";
    ensure!(cluster.field("pod turns", started)? == "true", "the sidecar runs");
    let row = cluster.k("get pod turns --no-headers")?;
    ensure!(row.split_whitespace().take(4).eq(["turns", "2/2", "Running", "0"]), "{row}");
    let order = cluster.field(
        "pod turns",
        "{.status.initContainerStatuses[0].state.terminated.finishedAt} {.status.initContainerStatuses[1].state.running.startedAt} \
         {.status.initContainerStatuses[2].state.terminated.startedAt} {.status.containerStatuses[0].state.running.startedAt}",
    )?;
    ensure!(order.split(' ').count() == 4 && order.split(' ').is_sorted(), "{order}");
    // Containers of a pod are neighbours on localhost; the pod's address is everybody's.
    let beside = cluster.curl(&format!("http://{ip}:8080/fetch?http://127.0.0.1:8081/bytes?3"))?;
    ensure!(beside.trim_end() == "xxx", "{beside}");

    // While it sleeps before its end it answers, as clients that have not heard of its end need it to.
    let going = cluster.k_runs("delete pod turns")?;
    eventually(SOON, || {
        ensure!(!cluster.field("pod turns", "{.metadata.deletionTimestamp}")?.is_empty(), "not yet deleted");
        Ok(())
    })?;
    cluster.curl(&format!("http://{ip}:8080/health"))?;
    going.ended(SOON)?;
    ensure!(cluster.curl(&format!("http://{ip}:8080/health")).is_err(), "it is gone");
    Ok(())
}

#[test]
fn a_command_as_a_probe_is_refused_with_its_reason() -> Result<()> {
    let cluster = start()?;
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: asks}
spec:
  runtimeClassName: wasm
  containers:
  - {name: c, image: "server:v1", ports: [{containerPort: 8080}], readinessProbe: {exec: {command: [cat, /x]}, periodSeconds: 1}}
"#,
    )?;
    eventually(SOON, || {
        let events = cluster.k("describe pod asks")?;
        ensure!(events.contains("exec") && events.to_lowercase().contains("webassembly"), "{events}");
        Ok(())
    })
}

#[test]
fn pods_reach_each_other_and_services_by_every_address() -> Result<()> {
    let cluster = start()?;
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: asks}
spec: {runtimeClassName: wasm, containers: [{name: c, image: "server:v1", ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: answers, labels: {app: answers}}
spec:
  runtimeClassName: wasm
  containers: [{name: c, image: "server:v1", ports: [{name: web, containerPort: 9090}], env: [{name: WHO, value: me}]}]
---
apiVersion: v1
kind: Service
metadata: {name: answers}
spec: {type: NodePort, selector: {app: answers}, ports: [{port: 80, targetPort: web, nodePort: 30990}]}
"#,
    )?;
    let asks = cluster.ready("asks")?;
    let answers = cluster.ready("answers")?;
    ensure!(asks != answers, "each pod has an address of its own");
    let service = cluster.field("service answers", "{.spec.clusterIP}")?;
    for address in [
        format!("{answers}:9090"),
        format!("{service}:80"),
        "answers:80".to_owned(),
        "answers.default.svc.cluster.local:80".to_owned(),
    ] {
        let url = format!("http://{asks}:8080/fetch?http://{address}/env?WHO");
        let said = eventually(SOON, || cluster.curl(&url).with_context(|| address.clone()))?;
        ensure!(said.trim_end() == "me", "{address}: {said}");
    }
    for address in [format!("{service}:80"), "127.0.0.1:30990".to_owned()] {
        let said = cluster.curl(&format!("http://{address}/env?WHO"))?;
        ensure!(said.trim_end() == "me", "{address}: {said}");
    }
    // Endpoints follow at once: the Service has nobody from the moment its only pod goes.
    cluster.k("label pod answers app-")?;
    eventually(Duration::from_secs(2), || {
        let left = cluster.field("endpoints answers", "{.subsets}")?;
        ensure!(left.is_empty(), "{left}");
        ensure!(cluster.curl(&format!("http://{service}:80/env?WHO")).is_err(), "somebody answers");
        Ok(())
    })
}

#[test]
fn components_of_wasi_0_3_run_and_serve() -> Result<()> {
    let cluster = start()?;
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: serves}
spec: {runtimeClassName: wasm, containers: [{name: c, image: "p3-server:v1", ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: runs}
spec:
  runtimeClassName: wasm
  restartPolicy: Never
  containers:
  - {name: c, image: "p3-command:v1", args: ["say=begins", env, "sleep=100", "say=ends"], env: [{name: A, value: b}]}
"#,
    )?;
    let ip = cluster.ready("serves")?;
    let pieces = cluster.curl(&format!("http://{ip}:8080/stream?3"))?;
    ensure!(pieces.trim_end() == "x".repeat(3 * 4096), "{} bytes", pieces.len());
    has_lines(&printed(&cluster, "runs", "c")?, &["begins", "A=b", "HOSTNAME=runs", "ends"])
}

#[test]
fn pods_and_services_are_reached_through_the_api_server() -> Result<()> {
    let cluster = start()?;
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {runtimeClassName: wasm, containers: [{name: c, image: "server:v1", ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: main, port: 80, targetPort: 8080}]}
"#,
    )?;
    cluster.ready("web")?;
    let here = "/api/v1/namespaces/default";
    for proxy in ["pods/web", "pods/web:8080", "services/web", "services/web:main", "services/http:web:80"] {
        let path = format!("{here}/{proxy}/proxy");
        let said = eventually(SOON, || cluster.k(&format!("get --raw {path}/headers?a=b")))?;
        has_lines(&said, &[&format!("x-forwarded-uri: {path}/headers")])?;
        ensure!(!said.to_lowercase().contains("authorization"), "{said}");
    }
    let failed = cluster.k_fails(&format!("get --raw {here}/services/web/proxy/fetch?nowhere"))?;
    ensure!(
        failed.contains("has prevented the request from succeeding"),
        "what the pod answers is passed on: {failed}"
    );
    let node = cluster.field("pod web", "{.spec.nodeName}")?;
    let summary = cluster.k(&format!("get --raw /api/v1/nodes/{node}/proxy/stats/summary"))?;
    ensure!(summary.contains("\"nodeName\""), "{summary}");
    Ok(())
}
