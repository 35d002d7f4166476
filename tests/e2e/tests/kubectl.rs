//! What people type at `kubectl` does what it does against Kubernetes.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use coracle_e2e::{Cluster, eventually, run};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn objects_can_be_made_read_changed_and_removed() -> Result<()> {
    let cluster = Cluster::start()?;
    let k = |line: &str| cluster.k(line);
    let resources = k("api-resources")?;
    for kind in [
        "pods",
        "deployments",
        "endpointslices",
        "leases",
        "customresourcedefinitions",
        "horizontalpodautoscalers",
        "ingresses",
    ] {
        ensure!(resources.contains(kind), "{kind} is not in:\n{resources}");
    }
    ensure!(k("api-versions")?.lines().any(|line| line == "apps/v1"));
    ensure!(k("get nodes -o wide")?.contains("Ready"));
    ensure!(k("cluster-info")?.contains("is running at"));
    ensure!(k("version")?.contains("Server Version: v1.36"));

    k("create namespace shop")?;
    // The account is made by a controller; a pod can be made once it is there.
    eventually(Duration::from_secs(10), || k("get sa default -n shop"))?;
    k("create configmap settings --from-literal=a=b -n shop")?;
    ensure!(k("get cm settings -n shop -o jsonpath={.data.a}")? == "b");
    let missing = cluster.k_fails("get cm nothing -n shop")?;
    ensure!(missing.contains("Error from server (NotFound): configmaps \"nothing\" not found"), "{missing}");
    let twice = cluster.k_fails("create cm settings -n shop")?;
    ensure!(twice.contains("configmaps \"settings\" already exists"), "{twice}");

    let manifest = k("get cm settings -n shop -o yaml")?.replace("a: b", "a: c");
    cluster.kubectl_run(&["replace", "-f", "-"], Some(&manifest))?.ok()?;
    ensure!(k("get cm settings -n shop -o jsonpath={.data.a}")? == "c");
    let stale = cluster.kubectl_run(&["replace", "-f", "-"], Some(&manifest))?.fails()?;
    ensure!(stale.contains("(Conflict)") && stale.contains("the object has been modified"), "{stale}");
    let forced = cluster.kubectl_run(&["replace", "--force", "-f", "-"], Some(&manifest))?.ok()?;
    ensure!(forced.contains("replaced"), "{forced}");

    k("delete namespace shop --timeout=60s")?;
    let gone = cluster.k_fails("get namespace shop")?;
    ensure!(gone.contains("NotFound"), "{gone}");
    let metrics = k("get --raw /metrics")?;
    for name in
        ["apiserver_request_total", "apiserver_request_duration_seconds_bucket", "process_resident_memory_bytes"]
    {
        ensure!(metrics.contains(name), "{name} is not in /metrics");
    }
    for path in ["/readyz", "/livez", "/healthz"] {
        ensure!(k(&format!("get --raw {path}"))? == "ok", "{path}");
    }
    ensure!(k("get --raw /readyz?verbose")?.contains("[+]ping ok"));
    Ok(())
}

/// Every `kubectl create KIND` of the manual whose kind there is, and what the object then says of itself.
const CREATED: &[(&str, &str, &str, &str)] = &[
    ("namespace second", "namespace second", "{.status.phase}", "Active"),
    ("configmap cm --from-literal=a=b", "cm cm", "{.data.a}", "b"),
    ("secret generic keys --from-literal=k=v", "secret keys", "{.type}:{.data.k}", "Opaque:dg=="),
    (
        "secret docker-registry pull --docker-server=r --docker-username=u --docker-password=p",
        "secret pull",
        "{.type}",
        "kubernetes.io/dockerconfigjson",
    ),
    ("quota limits --hard=pods=9,services=9", "quota limits", "{.spec.hard.pods}", "9"),
    ("serviceaccount robot", "sa robot", "{.metadata.name}", "robot"),
    ("role reads --verb=get,list --resource=pods", "role reads", "{.rules[0].verbs}", "[\"get\",\"list\"]"),
    (
        "rolebinding reads --role=reads --serviceaccount=default:robot",
        "rolebinding reads",
        "{.subjects[0].name}",
        "robot",
    ),
    ("clusterrole sees --verb=get --resource=nodes", "clusterrole sees", "{.rules[0].resources}", "[\"nodes\"]"),
    (
        "clusterrolebinding sees --clusterrole=sees --user=me",
        "clusterrolebinding sees",
        "{.roleRef.kind}",
        "ClusterRole",
    ),
    ("priorityclass high --value=1000", "priorityclass high", "{.value}", "1000"),
    ("pdb guard --selector=app=x --min-available=1", "pdb guard", "{.spec.minAvailable}", "1"),
    ("ingress web --rule=h/p=svc:80", "ingress web", "{.spec.rules[0].host}", "h"),
    ("service clusterip inner --tcp=80:8080", "svc inner", "{.spec.ports[0].targetPort}", "8080"),
    ("service nodeport outer --tcp=80 --node-port=30123", "svc outer", "{.spec.ports[0].nodePort}", "30123"),
    ("service externalname far --external-name=e.org", "svc far", "{.spec.externalName}", "e.org"),
    (
        "deployment idle --image=hello:v1 --replicas=0",
        "deploy idle",
        "{.spec.template.spec.containers[0].name}",
        "hello",
    ),
    ("cronjob daily --image=misbehave:v1 --schedule=@daily", "cronjob daily", "{.spec.schedule}", "@daily"),
];

#[test]
fn every_create_command_makes_its_object() -> Result<()> {
    let cluster = Cluster::start()?;
    for (line, object, path, expect) in CREATED {
        cluster.k(&format!("create {line}"))?;
        let actual = cluster.field(object, path)?;
        ensure!(actual == *expect, "create {line}: {path} is {actual}");
        // The second time it says so. A node port is taken before the name is looked at.
        let twice = cluster.k_fails(&format!("create {line}"))?;
        let why = if line.contains("--node-port") { "provided port is already allocated" } else { "already exists" };
        ensure!(twice.contains(why), "create {line}: {twice}");
    }
    let token = cluster.k("create token robot --duration=10m")?;
    ensure!(token.trim().split('.').count() == 3, "{token}");
    let namespace = cluster.k("delete namespace second")?;
    ensure!(namespace.contains("namespace \"second\" deleted"), "{namespace}");
    Ok(())
}

#[test]
fn run_expose_and_create_deployment_serve() -> Result<()> {
    let cluster = Cluster::start()?;
    // The image says that it is a component: nothing else does.
    cluster.k("create deployment web --image=hello:v1 --port=8080")?;
    cluster.k("expose deployment web --port=80 --target-port=8080")?;
    cluster.k("run one --image=hello:v1 --port=8080 --expose --labels=app=one")?;
    cluster.k("run job --image=misbehave:v1 --restart=Never -- print 2")?;
    cluster.k("wait --for=condition=Available deploy/web --timeout=30s")?;
    cluster.k("wait --for=condition=Ready pod/one --timeout=30s")?;
    for (service, port) in [("web", 80), ("one", 8080)] {
        let ip = cluster.field(&format!("svc {service}"), "{.spec.clusterIP}")?;
        eventually(SOON, || {
            let answer = cluster.curl(&format!("http://{ip}:{port}/version"))?;
            ensure!(answer == "v1\n", "{answer}");
            Ok(())
        })?;
    }
    cluster.k("wait --for=jsonpath={.status.phase}=Succeeded pod/job --timeout=30s")?;
    ensure!(cluster.k("logs job")? == "line 1\nline 2\n");
    let wide = cluster.k("get pods,deploy,rs,svc,endpoints,endpointslices -A -o wide")?;
    for part in [
        "pod/one",
        "deployment.apps/web",
        "replicaset.apps/web-",
        "service/one",
        "endpoints/web",
        "endpointslice.discovery.k8s.io/web-",
    ] {
        ensure!(wide.contains(part), "no {part} in\n{wide}");
    }
    Ok(())
}

#[test]
fn labels_and_annotations_change() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.k("create deployment web --image=hello:v1 --replicas=0")?;
    ensure!(cluster.k("label deploy web tier=front")?.contains("deployment.apps/web labeled"));
    ensure!(cluster.k("label deploy web tier=front")?.contains("not labeled"));
    let taken = cluster.k_fails("label deploy web tier=back")?;
    ensure!(taken.contains("'tier' already has a value (front), and --overwrite is false"), "{taken}");
    cluster.k("label deploy web tier=back --overwrite")?;
    ensure!(cluster.k("get deploy -l tier=back,app!=other -o name")? == "deployment.apps/web\n");
    ensure!(cluster.k("get deploy -l tier -L tier --no-headers")?.trim_end().ends_with("back"));
    cluster.k("label deploy --all tier-")?;
    ensure!(cluster.k("get deploy -l tier -o name")?.is_empty());
    let wrong = cluster.k_fails("label deploy web -- bad=-x")?;
    ensure!(wrong.contains("a valid label must be an empty string or consist of alphanumeric characters"), "{wrong}");
    cluster.k("annotate deploy web note=x")?;
    ensure!(cluster.field("deploy web", "{.metadata.annotations.note}")? == "x");
    ensure!(cluster.k("describe deploy web")?.contains("note: x"));
    cluster.k("annotate deploy web note-")?;
    ensure!(cluster.field("deploy web", "{.metadata.annotations.note}")?.is_empty());
    Ok(())
}

#[test]
fn an_object_is_edited_in_an_editor() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.k("create configmap settings --from-literal=colour=green")?;
    cluster.k("create deployment web --image=hello:v1 --replicas=0")?;
    let edit = |object: &str, script: &str| -> Result<coracle_e2e::Output> {
        let folder = tempfile::tempdir()?;
        let editor = folder.path().join("editor");
        std::fs::write(&editor, format!("#!/bin/sh\n{script}\n"))?;
        std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755))?;
        let mut command = cluster.kubectl_command();
        command.args(["edit", object]).env("KUBE_EDITOR", &editor).env_remove("EDITOR");
        run(command, None)
    };
    let done = edit("cm/settings", "sed -i 's/colour: green/colour: blue/' \"$1\"")?.ok()?;
    ensure!(done == "configmap/settings edited\n", "{done}");
    ensure!(cluster.field("cm settings", "{.data.colour}")? == "blue");
    let same = edit("cm/settings", "true")?;
    ensure!(same.code == Some(0) && same.stderr.contains("Edit cancelled, no changes made."), "{same:?}");
    edit("deploy/web", "sed -i 's/replicas: 0/replicas: 1/; s/image: hello:v1/image: hello:v2/' \"$1\"")?.ok()?;
    ensure!(cluster.field("deploy web", "{.spec.replicas} {.spec.template.spec.containers[0].image}")? == "1 hello:v2");
    // What is wrong comes back with the reason in the file; an editor that then changes nothing gives up.
    let seen = tempfile::NamedTempFile::new()?;
    let script = format!("cp \"$1\" {}\nsed -i 's/replicas: 1/replicas: -1/' \"$1\"", seen.path().display());
    let wrong = edit("deploy/web", &script)?.fails()?;
    ensure!(wrong.contains("deployments.apps \"web\" is invalid"), "{wrong}");
    let reason = std::fs::read_to_string(seen.path())?;
    ensure!(
        reason.contains("# * spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        "the editor last saw:\n{reason}"
    );
    ensure!(cluster.field("deploy web", "{.spec.replicas}")? == "1");
    Ok(())
}

#[test]
fn a_watch_shows_each_step() -> Result<()> {
    let cluster = Cluster::start()?;
    let watch = cluster.k_runs("get pods -w")?;
    let events = cluster.k_runs("get events -w -o custom-columns=R:.reason,O:.involvedObject.name --no-headers")?;
    let json = cluster.k_runs("get pods -w -o jsonpath={.metadata.name}={.status.phase}{\"\\n\"}")?;
    // An earlier pod shows that the watches stand, so that they miss no step of the next.
    cluster.k("run zero --image=hello:v1")?;
    watch.line(SOON, |line| line.starts_with("zero "))?;
    json.line(SOON, |line| line.starts_with("zero="))?;
    events.line(SOON, |line| line.split_whitespace().nth(1) == Some("zero"))?;
    // A container is being created for as long as its volumes are missing; else the step may be too short to be told.
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: one}\nspec:\n  runtimeClassName: wasm\n  \
         volumes: [{name: v, configMap: {name: late}}]\n  containers:\n  \
         - {name: c, image: 'hello:v1', volumeMounts: [{name: v, mountPath: /v}]}\n",
    )?;
    for step in ["Pending", "ContainerCreating"] {
        watch.line(SOON, |line| line.starts_with("one ") && line.contains(step))?;
    }
    cluster.k("create configmap late --from-literal=a=b")?;
    watch.line(SOON, |line| line.starts_with("one ") && line.contains("Running"))?;
    json.line(SOON, |line| line == "one=Running")?;
    for reason in ["Scheduled", "Created", "Started"] {
        events.line(SOON, |line| line.split_whitespace().eq([reason, "one"]))?;
    }
    cluster.k("delete pod one")?;
    watch.line(SOON, |line| line.starts_with("one ") && line.contains("Terminating"))?;
    events.line(SOON, |line| line.split_whitespace().eq(["Killing", "one"]))?;
    let lines = watch.lines();
    ensure!(lines[0].split_whitespace().eq(["NAME", "READY", "STATUS", "RESTARTS", "AGE"]), "{lines:?}");
    Ok(())
}

#[test]
fn waiting_ends_when_it_should() -> Result<()> {
    let cluster = Cluster::start()?;
    let created = cluster.k_runs("wait --for=create cm/later --timeout=30s")?;
    cluster.k("create configmap later --from-literal=a=b")?;
    created.ended(SOON)?;
    let changed = cluster.k_runs("wait --for=jsonpath={.data.a}=c cm/later --timeout=30s")?;
    cluster.kubectl(&["patch", "cm", "later", "-p", "{\"data\":{\"a\":\"c\"}}"])?;
    changed.ended(SOON)?;
    let deleted = cluster.k_runs("wait --for=delete cm/later --timeout=30s")?;
    cluster.k("delete cm later")?;
    deleted.ended(SOON)?;
    cluster.k("create deployment web --image=hello:v1")?;
    ensure!(
        cluster.k("wait --for=condition=Available deploy/web --timeout=30s")? == "deployment.apps/web condition met\n"
    );
    cluster.k("wait --for=condition=Ready pod -l app=web --timeout=30s")?;
    let late = cluster.k_fails("wait --for=condition=Nonsense deploy/web --timeout=1s")?;
    ensure!(late.contains("timed out waiting for the condition on deployments/web"), "{late}");
    Ok(())
}

#[test]
fn events_are_listed_as_kubernetes_words_them() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.k("create deployment web --image=hello:v1")?;
    cluster.k("wait --for=condition=Available deploy/web --timeout=30s")?;
    cluster.k("run homeless --image=hello:v1 --overrides={\"spec\":{\"nodeSelector\":{\"no\":\"where\"}}}")?;
    eventually(SOON, || {
        let events = cluster.k("get events")?;
        for words in [
            "Successfully assigned default/web-",
            "Container image \"hello:v1\" already present on machine",
            "Container created",
            "Container started",
            "Scaled up replica set web-",
            "Created pod: web-",
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        ] {
            ensure!(events.contains(words), "no {words:?} in\n{events}");
        }
        Ok(())
    })?;
    let of_one = cluster.k("events --for deploy/web")?;
    ensure!(of_one.contains("ScalingReplicaSet") && !of_one.contains("homeless"), "{of_one}");
    let warnings = cluster.k("get events --field-selector type=Warning -o name")?;
    ensure!(warnings.lines().count() == 1, "{warnings}");
    ensure!(cluster.k("describe pod homeless")?.contains("FailedScheduling"));
    Ok(())
}

#[test]
fn documentation_and_differences_are_shown() -> Result<()> {
    let cluster = Cluster::start()?;
    let all = cluster.k("explain deployment.spec.strategy --recursive")?;
    for word in [
        "GROUP:      apps",
        "KIND:       Deployment",
        "VERSION:    v1",
        "rollingUpdate",
        "maxSurge",
        "<IntOrString>",
        "enum: Recreate, RollingUpdate",
    ] {
        ensure!(all.contains(word), "no {word:?} in\n{all}");
    }
    let pod = cluster.k("explain pod.spec.containers.livenessProbe.httpGet")?;
    ensure!(pod.contains("FIELD: httpGet <HTTPGetAction>") && pod.contains("-required-"), "{pod}");
    for kind in [
        "pods",
        "cronjob.spec.schedule",
        "ingress",
        "hpa --api-version=autoscaling/v2",
        "pod --output=plaintext-openapiv2",
    ] {
        ensure!(cluster.k(&format!("explain {kind}"))?.contains("DESCRIPTION:"), "explain {kind}");
    }
    let wrong = cluster.k_fails("explain pod.spec.nonsense")?;
    ensure!(wrong.contains("field \"nonsense\" does not exist"), "{wrong}");

    let folder = Cluster::file("examples/hello/");
    cluster.kubectl(&["create", "-f", &Cluster::file("examples/hello/deployment.yaml")])?;
    // What was created is taken over by apply, with kubectl's warning.
    let taken = cluster.kubectl_run(&["apply", "-f", &folder], None)?;
    ensure!(
        taken.code == Some(0)
            && taken.stderr.contains("is missing the kubectl.kubernetes.io/last-applied-configuration"),
        "{taken:?}"
    );
    let same = cluster.kubectl_run(&["diff", "-f", &folder], None)?;
    ensure!(same.code == Some(0) && same.stdout.is_empty(), "{same:?}");
    cluster.k("scale deploy/hello --replicas=5")?;
    let differs = cluster.kubectl_run(&["diff", "-f", &folder], None)?;
    ensure!(differs.code == Some(1), "{differs:?}");
    ensure!(differs.stdout.contains("-  replicas: 5") && differs.stdout.contains("+  replicas: 2"), "{differs:?}");
    Ok(())
}

#[test]
fn mistakes_in_manifests_are_told_as_kubernetes_tells_them() -> Result<()> {
    let cluster = Cluster::start()?;
    let refuse = |manifest: &str| cluster.kubectl_run(&["apply", "-f", "-"], Some(manifest))?.fails();
    let unknown = refuse("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndatta: {a: b}\n")?;
    ensure!(unknown.contains("unknown field \"datta\""), "{unknown}");
    let empty = refuse("apiVersion: v1\nkind: Pod\nmetadata: {name: X_}\nspec: {containers: []}\n")?;
    ensure!(empty.contains("spec.containers: Required value"), "{empty}");
    ensure!(empty.contains("metadata.name: Invalid value: \"X_\""), "{empty}");
    let selector = refuse(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: c}}\n    spec: {containers: [{name: c, image: i}]}\n",
    )?;
    ensure!(selector.contains("`selector` does not match template `labels`"), "{selector}");
    let kind = refuse("apiVersion: v1\nkind: Nonsense\nmetadata: {name: x}\n")?;
    ensure!(kind.contains("no matches for kind \"Nonsense\" in version \"v1\""), "{kind}");
    let warned = cluster.kubectl_run(
        &["apply", "--validate=warn", "-f", "-"],
        Some("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndatta: {a: b}\n"),
    )?;
    ensure!(warned.code == Some(0) && warned.stderr.contains("Warning: unknown field \"datta\""), "{warned:?}");
    Ok(())
}
