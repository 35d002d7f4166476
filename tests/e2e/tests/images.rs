//! Images of both sorts, in containers and in guests that run: private registries, mirrors, archives, what goes when the disk fills,
//! and what Events say.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use coracle_e2e::{BUSYBOX, Cluster, Machine, OciImage, PATIENCE, eventually};

/// `user` with the password `sesame`, as a registry's file of passwords has it.
const PASSWORDS: &str = "user:$2b$05$abcdefghijklmnopqrstuuKcS.CYWVYVaLiiCKrrc0A5s3mGesJ9O\n";
/// A registry that wants that login.
const PRIVATE: &str = "127.0.0.1:5001";
/// A registry that wants it too, speaks TLS with a certificate of its own authority, and wants one of its clients.
const SECURE: &str = "127.0.0.2:5002";

/// A pod of one container that does nothing for long; `more` is part of its spec.
fn pod(name: &str, image: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n{more}  containers:\n  \
         - {{name: main, image: '{image}', imagePullPolicy: Always, command: [sleep, '1000']}}\n---\n"
    )
}

/// A pod of a component that serves.
fn guest(name: &str, image: &str, more: &str) -> String {
    pod(name, image, &format!("  runtimeClassName: wasm\n{more}")).replace(", command: [sleep, '1000']", "")
}

fn secrets(names: &str) -> String {
    format!("  imagePullSecrets: [{names}]\n")
}

/// Waits until a pod waits for a reason, and gives the message.
fn waits(cluster: &Cluster, pod: &str, reason: &str) -> Result<String> {
    eventually(PATIENCE, || {
        let found = cluster.field(&format!("pod {pod}"), "{.status.containerStatuses[0].state.waiting.reason}")?;
        ensure!(found == reason, "{found:?}, not {reason:?}:\n{}", cluster.k(&format!("describe pod {pod}"))?);
        cluster.field(&format!("pod {pod}"), "{.status.containerStatuses[0].state.waiting.message}")
    })
}

/// The messages of a pod's Events of a reason, at least one.
fn events(cluster: &Cluster, pod: &str, reason: &str) -> Result<String> {
    let selector = format!("involvedObject.name={pod},reason={reason}");
    eventually(PATIENCE, || {
        let found = cluster.field(
            &format!("events --field-selector {selector}"),
            "{range .items[*]}{.type} {.message}{\"\\n\"}{end}",
        )?;
        ensure!(!found.is_empty(), "no event {reason}:\n{}", cluster.k(&format!("describe pod {pod}"))?);
        Ok(found)
    })
}

/// Puts a component into the registry.
fn push_component(machine: &Machine) -> Result<()> {
    let file = PathBuf::from(Cluster::file("examples/hello/hello.wasm"));
    OciImage::component(machine.dir(), &file)?.push(machine.namespace(), "127.0.0.1:5000/hello", "v1")
}

fn private_registry(machine: &Machine) -> Result<()> {
    let passwords = machine.dir().join("htpasswd");
    fs::write(&passwords, PASSWORDS)?;
    machine.registry_at(PRIVATE, "", &format!("auth: {{htpasswd: {{realm: x, path: '{}'}}}}", passwords.display()))
}

#[test]
fn secrets_open_private_registries() -> Result<()> {
    let (machine, cluster) = Cluster::with_runtime()?;
    private_registry(&machine)?;
    push_component(&machine)?;
    let (busybox, hello) = (format!("{PRIVATE}/busybox:v1"), format!("{PRIVATE}/hello:v1"));
    let docker = "create secret docker-registry";
    cluster.k(&format!("{docker} right --docker-server={PRIVATE} --docker-username=user --docker-password=sesame"))?;
    cluster.k(&format!(
        "{docker} wrong --docker-server=http://{PRIVATE}/v2/ --docker-username=user --docker-password=x"
    ))?;
    cluster.k(&format!(
        "{docker} elsewhere --docker-server=127.0.0.1:5009 --docker-username=user --docker-password=sesame"
    ))?;
    let old = machine.dir().join("dockercfg");
    // `auth` is user:sesame.
    fs::write(&old, format!("{{\"{PRIVATE}/busy\": {{\"auth\": \"dXNlcjpzZXNhbWU=\"}}}}"))?;
    cluster.k(&format!(
        "create secret generic old --type=kubernetes.io/dockercfg --from-file=.dockercfg={}",
        old.display()
    ))?;
    cluster.k("create serviceaccount puller")?;
    cluster.k("patch serviceaccount puller -p {\"imagePullSecrets\":[{\"name\":\"right\"}]}")?;
    cluster.apply(
        &(pod("none", &busybox, "")
            + &pod("elsewhere", &busybox, &secrets("{name: elsewhere}"))
            + &pod("several", &busybox, &secrets("{name: wrong}, {name: right}"))
            + &pod("old", &busybox, &secrets("{name: old}"))
            + &pod("account", &busybox, "  serviceAccountName: puller\n")
            + &pod("missing", BUSYBOX, &secrets("{name: lost}, {name: gone}, {name: right}"))
            + &guest("guest-none", &hello, "")
            + &guest("guest-other", &hello, &secrets("{name: old}"))
            + &guest("guest", &hello, &secrets("{name: wrong}, {name: right}"))),
    )?;
    for running in ["several", "old", "account", "missing", "guest"] {
        cluster.ready(running).with_context(|| running.to_owned())?;
    }
    for refused in ["none", "elsewhere", "guest-none", "guest-other"] {
        waits(&cluster, refused, "ImagePullBackOff")?;
        let told = events(&cluster, refused, "Failed")?;
        ensure!(told.contains("Warning Failed to pull image \"127.0.0.1:5001/"), "{told}");
        ensure!(
            told.contains("Warning Error: ErrImagePull") && told.contains("Warning Error: ImagePullBackOff"),
            "{told}"
        );
        ensure!(!told.contains("sesame"), "{told}");
    }
    let told = events(&cluster, "missing", "FailedToRetrieveImagePullSecret")?;
    let words = "Warning Unable to retrieve some image pull secrets (lost, gone); attempting to pull the image may not succeed.\n";
    ensure!(told == words, "{told}");
    ensure!(!cluster.log().contains("sesame"), "{}", cluster.log());
    // What a secret has fetched is for those who have it, also where no registry need be asked.
    let present = |name: &str, image: &str, more: &str| pod(name, image, more).replace("Always", "IfNotPresent");
    let guest_present = guest("guest-present", &hello, "").replace("Always", "IfNotPresent");
    let never = pod("never", &busybox, "").replace("Always", "Never");
    cluster.apply(
        &(present("with", &busybox, &secrets("{name: old}"))
            + &present("without", &busybox, "")
            + &guest_present
            + &never),
    )?;
    cluster.ready("with")?;
    let told = events(&cluster, "with", "Pulled")?;
    ensure!(told.contains("already present on machine and can be accessed by the pod"), "{told}");
    for refused in ["without", "guest-present"] {
        waits(&cluster, refused, "ImagePullBackOff")?;
    }
    waits(&cluster, "never", "ErrImageNeverPull")?;
    // A secret that comes mends it.
    cluster.k("delete pod none")?;
    cluster.apply(&pod("none", &busybox, &secrets("{name: right}")))?;
    cluster.ready("none").map(drop)
}

/// Certificates of an authority: for the registry, and for its clients.
fn certificates(dir: &Path) -> Result<()> {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    let key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(Vec::<String>::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(dir.join("ca.crt"), authority.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(authority, key);
    let (host, _) = SECURE.split_once(':').context("an address has a port")?;
    for (name, purpose) in
        [("server", ExtendedKeyUsagePurpose::ServerAuth), ("client", ExtendedKeyUsagePurpose::ClientAuth)]
    {
        let key = KeyPair::generate()?;
        let mut own = CertificateParams::new(vec![host.to_owned()])?;
        own.extended_key_usages = vec![purpose];
        fs::write(dir.join(format!("{name}.crt")), own.signed_by(&key, &issuer)?.pem())?;
        fs::write(dir.join(format!("{name}.key")), key.serialize_pem())?;
    }
    Ok(())
}

#[test]
fn mirrors_and_certificates_apply_to_both_sorts() -> Result<()> {
    let machine = Arc::new(Machine::start()?);
    let dir = machine.dir();
    certificates(dir)?;
    fs::write(dir.join("htpasswd"), PASSWORDS)?;
    let shown = dir.display();
    let tls = format!(
        ", tls: {{certificate: '{shown}/server.crt', key: '{shown}/server.key', clientcas: ['{shown}/ca.crt']}}"
    );
    machine.registry_at(SECURE, &tls, &format!("auth: {{htpasswd: {{realm: x, path: '{shown}/htpasswd'}}}}"))?;
    push_component(&machine)?;
    let file = dir.join("registries.yaml");
    let text = format!(
        "mirrors:\n  far.example:\n    endpoint: ['http://127.0.0.1:9', 'https://{SECURE}']\n    rewrite: {{'^deep/(.*)$': '$1'}}\n\
         configs:\n  '{SECURE}':\n    auth: {{username: user, password: sesame}}\n    tls:\n      ca_file: {shown}/ca.crt\n"
    );
    let client = format!("      cert_file: {shown}/client.crt\n      key_file: {shown}/client.key\n");
    fs::write(&file, text.clone() + &client)?;
    let cluster = Cluster::start_on_with(&machine, &["--private-registry", &file.display().to_string()])?;
    cluster.apply(
        &(pod("mirrored", "far.example/deep/busybox:v1", "")
            + &guest("guest", "far.example/deep/hello:v1", "")
            + &pod("itself", &format!("{SECURE}/busybox:v1"), "")
            + &pod("absent", "far.example/deep/absent:v1", "")),
    )?;
    for name in ["mirrored", "guest", "itself"] {
        cluster.ready(name)?;
    }
    let id = cluster.field("pod mirrored", "{.status.containerStatuses[0].imageID}")?;
    let digest =
        id.strip_prefix("far.example/deep/busybox@sha256:").with_context(|| format!("it has its own name: {id}"))?;
    let inside = cluster.kubectl(&["exec", "mirrored", "--", "sh", "-c", "echo $FROM_IMAGE"])?;
    ensure!(inside.trim() == "yes", "{inside}");
    // The whole of it is held by its name: what containerd's collector takes away is not part of it.
    machine.ctr("content prune references")?;
    cluster.apply(
        &(pod("again", "far.example/deep/busybox:v1", "").replace("Always", "Never")
            + &pod("digest", &format!("far.example/deep/busybox@sha256:{digest}"), "")
                .replace("Always", "IfNotPresent")),
    )?;
    cluster.ready("again")?;
    cluster.ready("digest")?;
    let told = events(&cluster, "digest", "Pulled")?;
    ensure!(told.contains("already present on machine"), "{told}");
    waits(&cluster, "absent", "ImagePullBackOff")?;
    let told = events(&cluster, "absent", "Failed")?;
    ensure!(
        told.contains(&format!("https://{SECURE}/v2/: ")) && told.contains("not found"),
        "what the mirror said: {told}"
    );
    ensure!(!cluster.log().contains("sesame"), "{}", cluster.log());
    drop(cluster);
    // Without a certificate of its own the client is refused; without the authority's the registry is not trusted.
    fs::write(&file, &text)?;
    let cluster = Cluster::start_on_with(&machine, &["--private-registry", &file.display().to_string()])?;
    cluster.apply(&pod("refused", &format!("{SECURE}/busybox:v1"), ""))?;
    let told = events(&cluster, "refused", "Failed")?;
    ensure!(told.contains("CertificateRequired") || told.contains("BadCertificate"), "{told}");
    drop(cluster);
    let doubtful = text.replace("ca_file: ", "cert_file: ").replace("/ca.crt", "/client.crt");
    fs::write(
        &file,
        doubtful
            + &format!(
                "      key_file: {shown}/client.key
"
            ),
    )?;
    let cluster = Cluster::start_on_with(&machine, &["--private-registry", &file.display().to_string()])?;
    cluster.apply(&pod("doubted", &format!("{SECURE}/busybox:v1"), ""))?;
    let told = events(&cluster, "doubted", "Failed")?;
    ensure!(told.contains("UnknownIssuer"), "{told}");
    Ok(())
}

#[test]
fn a_broken_file_of_registries_is_refused_at_the_start() -> Result<()> {
    let cluster = Cluster::prepare()?;
    fs::create_dir_all(cluster.data_dir())?;
    fs::write(
        cluster.data_dir().join("registries.yaml"),
        "mirrors:\n  docker.io:\n    endpoints:\n    - https://a.example\n",
    )?;
    let told = cluster.coracle_run(&["server"])?.fails()?;
    ensure!(told.contains("registries.yaml:3: ") && told.contains("endpoints"), "{told}");
    let told = cluster.coracle_run(&["check"])?.fails()?;
    ensure!(told.contains("registries.yaml:3: "), "{told}");
    let told = cluster.coracle_run(&["server", "--private-registry", "/no/such/file"])?.fails()?;
    ensure!(told.contains("/no/such/file") && told.contains("No such file"), "{told}");
    Ok(())
}

#[test]
fn archives_are_imported_with_all_their_names() -> Result<()> {
    let (machine, cluster) = Cluster::with_runtime()?;
    let image = OciImage::busybox(machine.dir())?;
    let oci = image.archive_of(&["docker.io/library/packed:v1", "registry.example/packed:v2"])?;
    let marked = image.with(&serde_json::json!({"Env": ["PATH=/bin", "SAVED=by-docker"]}))?;
    let docker = marked.docker_archive(&["saved:v1", "registry.example/saved:v2"])?;
    let import = |file: &Path, more: &[&str]| {
        cluster.coracle_run(&[&["image", "import", &file.display().to_string()], more].concat())
    };
    let told = import(&oci, &[])?.ok()?;
    ensure!(told.contains("docker.io/library/packed:v1") && told.contains("registry.example/packed:v2"), "{told}");
    let told = import(&docker, &[])?.ok()?;
    ensure!(told.contains("docker.io/library/saved:v1") && told.contains("registry.example/saved:v2"), "{told}");
    let names = ["packed:v1", "registry.example/packed:v2", "saved:v1", "registry.example/saved:v2"];
    let pods: String = names
        .iter()
        .enumerate()
        .map(|(at, name)| pod(&format!("pod-{at}"), name, "").replace("Always", "Never"))
        .collect();
    cluster.apply(&pods)?;
    for at in 0..names.len() {
        cluster.ready(&format!("pod-{at}"))?;
    }
    let inside = cluster.kubectl(&["exec", "pod-2", "--", "sh", "-c", "echo $SAVED"])?;
    ensure!(inside.trim() == "by-docker", "{inside}");
    let list = cluster.coracle_run(&["image", "list"])?.ok()?;
    for name in ["docker.io/library/packed:v1", "registry.example/saved:v2"] {
        ensure!(list.lines().any(|line| line.starts_with(name) && line.contains(" oci ")), "{list}");
    }
    let told = import(&docker, &["--name", "mine:v1"])?.ok()?;
    ensure!(told.contains("docker.io/library/mine:v1"), "{told}");
    // A name goes while the image is in use; the image does not.
    cluster.coracle_run(&["image", "rm", "mine:v1"])?.ok()?;
    ensure!(!cluster.coracle_run(&["image", "list"])?.ok()?.contains("mine:v1"));
    cluster.coracle_run(&["image", "rm", "saved:v1"])?.ok()?;
    let told = cluster.coracle_run(&["image", "rm", "registry.example/saved:v2"])?.fails()?;
    ensure!(told.contains("in use"), "{told}");
    cluster.k("delete pod pod-2 pod-3")?;
    eventually(PATIENCE, || cluster.coracle_run(&["image", "rm", "registry.example/saved:v2"])?.ok())?;
    ensure!(!machine.ctr("images ls -q")?.contains("saved"), "{}", machine.ctr("images ls -q")?);
    // A layer that containerd does not have yet, and that is not what its digest says.
    let fresh = machine.dir().join("fresh");
    fs::create_dir_all(&fresh)?;
    fs::write(fresh.join("busybox.tar"), vec![7; 1 << 20])?;
    let damaged = OciImage::busybox(&fresh)?.archive("damaged:v1")?;
    let mut bytes = fs::read(&damaged)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, bytes)?;
    let told = import(&damaged, &[])?.fails()?;
    ensure!(told.contains("unexpected commit digest") && !told.contains("incoming/import-"), "{told}");
    ensure!(!machine.ctr("images ls -q")?.contains("damaged"));
    ensure!(machine.ctr("content active")?.lines().count() <= 1, "nothing is half written");
    ensure!(machine.ctr("leases ls -q")?.trim().is_empty(), "nothing is held");
    Ok(())
}

#[test]
fn an_archive_for_containers_needs_a_container_runtime() -> Result<()> {
    let machine = Arc::new(Machine::without_runtime()?);
    let cluster = Cluster::start_on(&machine)?;
    let archive = OciImage::busybox(machine.dir())?.archive("packed:v1")?;
    let told = cluster.coracle_run(&["image", "import", &archive.display().to_string()])?.fails()?;
    ensure!(told.contains("this node has no container runtime") && told.contains("coracle check"), "{told}");
    let component = OciImage::component(machine.dir(), &PathBuf::from(Cluster::file("examples/hello/hello.wasm")))?;
    let archive = component.archive_of(&["packed-hello:v1", "packed-hello:v2"])?;
    cluster.coracle_run(&["image", "import", &archive.display().to_string()])?.ok()?;
    cluster.apply(
        &(guest("one", "packed-hello:v1", "") + &guest("two", "packed-hello:v2", "")).replace("Always", "Never"),
    )?;
    cluster.ready("one")?;
    cluster.ready("two").map(drop)
}

#[test]
fn unused_images_go_when_the_disk_fills() -> Result<()> {
    let machine = Arc::new(Machine::start()?);
    let mut cluster = Cluster::start_on(&machine)?;
    push_component(&machine)?;
    let busybox = OciImage::busybox(machine.dir())?;
    for name in ["used", "unused"] {
        let own = busybox.with(&serde_json::json!({"Env": ["PATH=/bin", format!("IMAGE={name}")]}))?;
        own.push(machine.namespace(), &format!("127.0.0.1:5000/{name}"), "v1")?;
    }
    let packed = busybox.with(&serde_json::json!({"Env": ["PATH=/bin", "IMAGE=packed"]}))?.archive("packed:v1")?;
    cluster.coracle_run(&["image", "import", &packed.display().to_string()])?.ok()?;
    let (used, unused, hello) = ("127.0.0.1:5000/used:v1", "127.0.0.1:5000/unused:v1", "127.0.0.1:5000/hello:v1");
    cluster.apply(&(pod("used", used, "") + &pod("unused", unused, "") + &guest("guest", hello, "")))?;
    for name in ["used", "unused", "guest"] {
        cluster.ready(name)?;
    }
    cluster.k("delete pod unused guest")?;
    // Without a grace period the object goes before the container.
    eventually(PATIENCE, || {
        let left = machine.ctr("containers ls")?;
        ensure!(!left.contains("/unused"), "{left}");
        Ok(())
    })?;
    cluster.stop()?;
    cluster.launch(&[
        "--image-gc-high-threshold",
        // However empty the disk is.
        "0",
        "--image-gc-low-threshold",
        "0",
        "--minimum-image-ttl-duration",
        "2s",
    ])?;
    let has = |name: &str| anyhow::Ok(cluster.coracle_run(&["image", "list"])?.ok()?.contains(name));
    eventually(PATIENCE, || {
        let list = cluster.coracle_run(&["image", "list"])?.ok()?;
        ensure!(!list.contains("/unused:v1") && !list.contains(hello), "{list}\n{}", cluster.log());
        Ok(())
    })?;
    ensure!(!machine.ctr("images ls -q")?.contains("/unused"), "{}", machine.ctr("images ls -q")?);
    for kept in [used, "packed:v1", "localhost/pause:test", "hello:v2"] {
        ensure!(has(kept)?, "{kept} is in use, imported, or what sandboxes are made of");
    }
    let told = eventually(PATIENCE, || {
        let selector = "involvedObject.kind=Node,reason=FreeDiskSpaceFailed";
        let told = cluster.field(
            &format!("events --field-selector {selector}"),
            "{range .items[*]}{.type} {.message}{\"\\n\"}{end}",
        )?;
        ensure!(!told.is_empty(), "no event yet");
        Ok(told)
    })?;
    ensure!(
        told.starts_with("Warning Failed to garbage collect required amount of images. Attempted to free "),
        "{told}"
    );
    // Sandboxes can still be made, and what was removed comes again.
    cluster.apply(&pod("again", unused, ""))?;
    cluster.ready("again").map(drop)
}

#[test]
fn of_ended_containers_one_is_kept() -> Result<()> {
    let (machine, cluster) = Cluster::with_runtime()?;
    let crashes = pod("crashes", BUSYBOX, "").replace("[sleep, '1000']", "[sh, -c, 'echo run; exit 1']");
    cluster.apply(&crashes)?;
    let restarts = |wanted: u32| {
        eventually(PATIENCE, || {
            let count = cluster.field("pod crashes", "{.status.containerStatuses[0].restartCount}")?;
            ensure!(count.parse::<u32>()? >= wanted, "{count} restarts");
            Ok(())
        })
    };
    restarts(2)?;
    eventually(PATIENCE, || {
        let all = machine.ctr("containers ls")?;
        let own = all.lines().filter(|line| line.contains("/busybox:v1")).count();
        ensure!(own == 1, "the last one, and none before it:\n{all}");
        Ok(())
    })?;
    ensure!(cluster.k("logs crashes --previous")?.contains("run") || cluster.k("logs crashes")?.contains("run"));
    cluster.k("delete pod crashes")?;
    eventually(PATIENCE, || {
        let left = machine.ctr("containers ls -q")?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })
}

#[test]
fn events_of_pulls_are_the_kubelet_s() -> Result<()> {
    let (machine, cluster) = Cluster::with_runtime()?;
    OciImage::busybox(machine.dir())?.push(machine.namespace(), "127.0.0.1:5000/busybox", "latest")?;
    let container = |name: &str, image: &str, policy: &str| {
        pod(name, image, "").replace("imagePullPolicy: Always", policy).replace(", ,", ",")
    };
    cluster.apply(
        &(container("latest", "127.0.0.1:5000/busybox", "")
            + &container("never", "127.0.0.1:5000/never:v1", "imagePullPolicy: Never")
            + &container("upper", "127.0.0.1:5000/Upper:v1", "")
            + &container("absent", "127.0.0.1:5000/absent:v1", "")),
    )?;
    cluster.ready("latest")?;
    let policy = |pod: &str| cluster.field(&format!("pod {pod}"), "{.spec.containers[0].imagePullPolicy}");
    ensure!((policy("latest")?.as_str(), policy("absent")?.as_str()) == ("Always", "IfNotPresent"));
    let (pulling, pulled) = (events(&cluster, "latest", "Pulling")?, events(&cluster, "latest", "Pulled")?);
    ensure!(pulling == "Normal Pulling image \"127.0.0.1:5000/busybox\"\n", "{pulling}");
    let rest = pulled.strip_prefix("Normal Successfully pulled image \"127.0.0.1:5000/busybox\" in ");
    let (took, size) =
        rest.and_then(|rest| rest.split_once(" including waiting). Image size: ")).with_context(|| pulled.clone())?;
    let (took, waited) = took.split_once(" (").context("both times")?;
    ensure!(
        took.ends_with('s') && waited.ends_with('s') && took.starts_with(|first: char| first.is_ascii_digit()),
        "{pulled}"
    );
    ensure!(
        size.trim_end()
            .strip_suffix(" bytes.")
            .is_some_and(|size| size.parse::<u64>().is_ok_and(|size| size > 100_000)),
        "{pulled}"
    );
    cluster.apply(&container("present", "127.0.0.1:5000/busybox:latest", "imagePullPolicy: IfNotPresent"))?;
    cluster.ready("present")?;
    let told = events(&cluster, "present", "Pulled")?;
    let words = "Normal Container image \"127.0.0.1:5000/busybox:latest\" already present on machine and can be accessed by the pod\n";
    ensure!(told == words, "{told}");
    let message = waits(&cluster, "never", "ErrImageNeverPull")?;
    ensure!(
        message == "Container image \"127.0.0.1:5000/never:v1\" is not present with pull policy of Never",
        "{message}"
    );
    ensure!(events(&cluster, "never", "ErrImageNeverPull")? == format!("Warning {message}\n"));
    ensure!(events(&cluster, "never", "Failed")? == "Warning Error: ErrImageNeverPull\n");
    let message = waits(&cluster, "upper", "InvalidImageName")?;
    let words = "Failed to apply default image tag \"127.0.0.1:5000/Upper:v1\": couldn't parse image name \"127.0.0.1:5000/Upper:v1\": \
                 invalid reference format: repository name (Upper) must be lowercase";
    ensure!(message == words, "{message}");
    ensure!(events(&cluster, "upper", "InspectFailed")? == format!("Warning {words}\n"));
    let message = waits(&cluster, "absent", "ImagePullBackOff")?;
    ensure!(message.starts_with("Back-off pulling image \"127.0.0.1:5000/absent:v1\": ErrImagePull: "), "{message}");
    ensure!(events(&cluster, "absent", "BackOff")? == "Normal Back-off pulling image \"127.0.0.1:5000/absent:v1\"\n");
    Ok(())
}
