//! What a pod declares, looked at from inside its containers: environment, files, users, limits, probes, ends.

use anyhow::{Result, ensure};
use coracle_e2e::{Cluster, PATIENCE, eventually, has_lines};

/// Waits until a pod has ended, and gives what its containers printed.
fn ended(cluster: &Cluster, pod: &str) -> Result<String> {
    phase(cluster, pod, &["Succeeded", "Failed"])?;
    cluster.k(&format!("logs {pod} --all-containers"))
}

fn phase(cluster: &Cluster, pod: &str, wanted: &[&str]) -> Result<()> {
    eventually(PATIENCE, || {
        let phase = cluster.field(&format!("pod {pod}"), "{.status.phase}")?;
        ensure!(wanted.contains(&phase.as_str()), "{}", cluster.k(&format!("describe pod {pod}"))?);
        Ok(())
    })
}

/// Waits until a JSONPath of a pod gives what is wanted.
fn says(cluster: &Cluster, pod: &str, path: &str, wanted: &str) -> Result<()> {
    eventually(PATIENCE, || {
        let found = cluster.field(&format!("pod {pod}"), path)?;
        ensure!(found == wanted, "{found:?}, not {wanted:?}:\n{}", cluster.k(&format!("describe pod {pod}"))?);
        Ok(())
    })
}

#[test]
fn environment_names_and_files_are_those_declared() -> Result<()> {
    let (_machine, cluster) = Cluster::with_runtime()?;
    cluster.k("create configmap settings --from-literal=COLOUR=blue --from-literal=file.txt=content")?;
    cluster.k("create secret generic hidden --from-literal=key=sesame")?;
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: looks, labels: {tier: back}}
spec:
  restartPolicy: Never
  hostname: named
  subdomain: sub
  hostAliases: [{ip: 192.0.2.7, hostnames: [alias, other]}]
  dnsPolicy: None
  dnsConfig: {nameservers: [192.0.2.53], searches: [example.org], options: [{name: ndots, value: "3"}]}
  volumes:
  - {name: empty, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 8Mi}}
  - {name: config, configMap: {name: settings, items: [{key: file.txt, path: a/b.txt}], defaultMode: 0440}}
  - {name: secret, secret: {secretName: hidden}}
  - {name: down, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  - {name: host, hostPath: {path: /run/containerd, type: Directory}}
  containers:
  - name: main
    image: 127.0.0.1:5000/busybox:v1
    workingDir: /tmp
    env:
    - {name: FIRST, value: one}
    - {name: SECOND, value: $(FIRST)-two}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: KEY, valueFrom: {secretKeyRef: {name: hidden, key: key}}}
    - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
    envFrom: [{configMapRef: {name: settings}}]
    resources: {limits: {memory: 64Mi, cpu: 500m}, requests: {cpu: 250m}}
    command: [sh, -c]
    args:
    - |
      echo pwd=$(pwd) first=$FIRST second=$SECOND expanded=$(SECOND) node=$NODE key=$KEY limit=$LIMIT colour=$COLOUR image=$FROM_IMAGE
      echo hostname=$(hostname); cat /etc/hosts /etc/resolv.conf
      cat /config/a/b.txt; echo; stat -L -c 'mode=%a' /config/a/b.txt; cat /secret/key; echo; cat /down/labels; echo
      grep -q ' /memory tmpfs ' /proc/mounts && echo memory is tmpfs
      df -k /memory | tail -n 1 | awk '{print "memory_kb=" $2}'
      echo x > /empty/file && cat /shared/file
      echo y > /config/new 2>/dev/null || echo config is read-only
      echo z > /readonly/new 2>/dev/null || echo readonly is read-only
      ls /host/containerd.sock
      echo memory=$(cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null)
      echo quota=$(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null | cut -d' ' -f1)
      echo shares=$(cat /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null)
    volumeMounts:
    - {name: empty, mountPath: /empty}
    - {name: empty, mountPath: /shared}
    - {name: empty, mountPath: /readonly, readOnly: true}
    - {name: memory, mountPath: /memory}
    - {name: config, mountPath: /config}
    - {name: secret, mountPath: /secret}
    - {name: down, mountPath: /down}
    - {name: host, mountPath: /host}
"#,
    )?;
    let text = ended(&cluster, "looks")?;
    let address = cluster.field("pod looks", "{.status.podIP}")?;
    let line =
        "pwd=/tmp first=one second=one-two expanded=one-two node=box key=sesame limit=67108864 colour=blue image=yes";
    let hosts = format!("{address}\tnamed.sub.default.svc.cluster.local\tnamed");
    has_lines(
        &text,
        &[
            line,
            "hostname=named",
            &hosts,
            "192.0.2.7\talias\tother",
            "nameserver 192.0.2.53",
            "search example.org",
            "options ndots:3",
            "content",
            "mode=440",
            "sesame",
            "tier=\"back\"",
            "memory is tmpfs",
            "memory_kb=8192",
            "x",
            "config is read-only",
            "readonly is read-only",
            "/host/containerd.sock",
            "memory=67108864",
            "quota=50000",
            "shares=256",
        ],
    )
}

#[test]
fn users_and_rights_are_those_declared() -> Result<()> {
    let (_machine, cluster) = Cluster::with_runtime()?;
    let pod = |name: &str, pod: &str, own: &str, command: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n{pod}  \
             volumes: [{{name: v, emptyDir: {{}}}}]\n  containers:\n  - name: main\n    image: 127.0.0.1:5000/busybox:v1\n    \
             volumeMounts: [{{name: v, mountPath: /v}}]\n    command: [sh, -c, '{command}']\n    securityContext: {own}\n---\n"
        )
    };
    let status = "id; grep -E ^(CapEff|NoNewPrivs|Seccomp): /proc/self/status; echo a > /v/a && stat -c group=%g /v; \
                  echo b > /b 2>/dev/null || echo root is read-only";
    let status = status.replace("^(CapEff|NoNewPrivs|Seccomp):", "\"^(CapEff|NoNewPrivs|Seccomp):\"");
    let strict = "{runAsUser: 1000, runAsGroup: 1001, allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, \
                  capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}";
    cluster.apply(
        &(pod("strict", "  securityContext: {fsGroup: 3000, supplementalGroups: [4000]}\n", strict, &status)
            + &pod("default", "", "{}", &status)
            + &pod("added", "", "{capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}}", &status)
            + &pod("mighty", "", "{privileged: true}", &format!("{status}; ls /dev/kmsg"))
            + &pod("rooted", "", "{runAsNonRoot: true}", &status)
            + &pod(
                "tuned",
                "  securityContext: {sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: \"99\"}]}\n",
                "{}",
                "cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
            )
            + &pod("shares", "  shareProcessNamespace: true\n", "{}", "cat /proc/1/cmdline | tr \"\\\\0\" \" \"")),
    )?;
    has_lines(
        &ended(&cluster, "strict")?,
        &[
            // Groups that the image gives its user are kept (`supplementalGroupsPolicy: Merge`).
            "uid=1000(user) gid=1001 groups=1001,2000(extra),3000,4000",
            "CapEff:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
            "group=3000",
            "root is read-only",
        ],
    )?;
    has_lines(&ended(&cluster, "default")?, &["CapEff:\t00000000a80425fb", "NoNewPrivs:\t0", "Seccomp:\t0"])?;
    has_lines(&ended(&cluster, "added")?, &["CapEff:\t0000000000000400"])?;
    has_lines(&ended(&cluster, "mighty")?, &["/dev/kmsg", "Seccomp:\t0"])?;
    has_lines(&ended(&cluster, "tuned")?, &["99"])?;
    has_lines(&ended(&cluster, "shares")?, &["/bin/busybox sleep 2147483647"])?;
    says(&cluster, "rooted", "{.status.containerStatuses[0].state.waiting.reason}", "CreateContainerConfigError")?;
    let message = cluster.field("pod rooted", "{.status.containerStatuses[0].state.waiting.message}")?;
    ensure!(message.starts_with("container has runAsNonRoot and image will run as root"), "{message}");
    Ok(())
}

#[test]
fn ends_have_their_codes_reasons_and_messages() -> Result<()> {
    let (_machine, cluster) = Cluster::with_runtime()?;
    let pod = |name: &str, rest: &str, command: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  \
             terminationGracePeriodSeconds: 5\n  containers:\n  - name: main\n    image: 127.0.0.1:5000/busybox:v1\n    \
             command: [sh, -c, {command:?}]\n{rest}---\n"
        )
    };
    cluster.apply(
        &(pod("seven", "", "echo why > /dev/termination-log; exit 7")
            + &pod("tail", "    terminationMessagePolicy: FallbackToLogsOnError\n", "echo last words; exit 1")
            + &pod("fills", "    resources: {limits: {memory: 24Mi}}\n", "tail /dev/zero")
            + &pod("fine", "", "exit 0")
            + &pod("asked", "", "trap 'echo asked to end; exit 3' TERM; touch /tmp/up; while :; do sleep 0.1; done")),
    )?;
    let end = |pod: &str, wanted: &str| {
        let path = "{.status.containerStatuses[0].state.terminated['exitCode','reason']}";
        says(&cluster, pod, path, wanted)
    };
    end("seven", "7 Error")?;
    end("tail", "1 Error")?;
    end("fills", "137 OOMKilled")?;
    end("fine", "0 Completed")?;
    let message = "{.status.containerStatuses[0].state.terminated.message}";
    says(&cluster, "seven", message, "why\n")?;
    says(&cluster, "tail", message, "last words\n")?;
    phase(&cluster, "asked", &["Running"])?;
    let mut follows = cluster.k_runs("logs -f asked")?;
    ensure!(follows.is_alive()?);
    cluster.k("delete pod asked --wait=false")?;
    follows.line(PATIENCE, |line| line == "asked to end")?;
    Ok(())
}

#[test]
fn init_containers_sidecars_hooks_and_probes_take_their_turns() -> Result<()> {
    let (_machine, cluster) = Cluster::with_runtime()?;
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: turns}
spec:
  terminationGracePeriodSeconds: 5
  volumes: [{name: v, emptyDir: {}}]
  initContainers:
  - {name: one, image: '127.0.0.1:5000/busybox:v1', command: [sh, -c, 'echo init >> /v/log'], volumeMounts: [{name: v, mountPath: /v}]}
  - name: side
    image: 127.0.0.1:5000/busybox:v1
    restartPolicy: Always
    command: [sh, -c, 'echo side >> /v/log; exec httpd -f -p 8080 -h /v']
    volumeMounts: [{name: v, mountPath: /v}]
    startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
  containers:
  - name: main
    image: 127.0.0.1:5000/busybox:v1
    command: [sh, -c, 'wget -q -O /v/seen http://localhost:8080/log; echo main >> /v/log; while :; do sleep 0.2; done']
    volumeMounts: [{name: v, mountPath: /v}]
    lifecycle:
      postStart: {exec: {command: [sh, -c, 'echo post >> /v/log']}}
      preStop: {exec: {command: [sh, -c, 'echo pre >> /v/log']}}
    readinessProbe: {exec: {command: [sh, -c, 'grep -q post /v/log && grep -q main /v/log']}, periodSeconds: 1}
    livenessProbe: {httpGet: {port: 8080, path: /seen}, periodSeconds: 1}
"#,
    )?;
    says(&cluster, "turns", "{.status.conditions[?(@.type==\"Ready\")].status}", "True")?;
    let address = cluster.field("pod turns", "{.status.podIP}")?;
    let seen = cluster.curl(&format!("http://{address}:8080/seen"))?;
    ensure!(seen == "init\nside\n", "what main found: {seen:?}");
    cluster.k("delete pod turns")?;
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: sick}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
         - {name: main, image: '127.0.0.1:5000/busybox:v1', command: [sleep, '1000'], \
         livenessProbe: {exec: {command: [cat, /gone]}, periodSeconds: 1, failureThreshold: 1}}\n",
    )?;
    eventually(PATIENCE, || {
        let count = cluster.field("pod sick", "{.status.containerStatuses[0].restartCount}")?;
        ensure!(count.parse::<u32>()? >= 1, "{}", cluster.k("describe pod sick")?);
        Ok(())
    })
}

#[test]
fn what_cannot_run_says_why_in_kubernetes_words() -> Result<()> {
    let (_machine, cluster) = Cluster::with_runtime()?;
    let pod = |name: &str, image: &str, rest: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
             - name: main\n    image: '{image}'\n{rest}---\n"
        )
    };
    let busybox = "127.0.0.1:5000/busybox:v1";
    cluster.apply(
        &(pod("absent", "127.0.0.1:5000/absent:v1", "")
            + &pod("never", "127.0.0.1:5000/never:v1", "    imagePullPolicy: Never\n")
            + &pod("nowhere", "127.0.0.1:9/nothing:v1", "")
            + &pod("nocommand", busybox, "    command: [/no/such/program]\n")
            + &pod("noconfig", busybox, "    envFrom: [{configMapRef: {name: missing}}]\n")),
    )?;
    let waits = |pod: &str, reasons: &[&str]| {
        eventually(PATIENCE, || {
            let path = "{.status.containerStatuses[0].state.waiting.reason}";
            let reason = cluster.field(&format!("pod {pod}"), path)?;
            ensure!(reasons.contains(&reason.as_str()), "{reason:?}: {}", cluster.k(&format!("describe pod {pod}"))?);
            Ok(())
        })
    };
    waits("absent", &["ErrImagePull"])?;
    waits("absent", &["ImagePullBackOff"])?;
    waits("never", &["ErrImageNeverPull"])?;
    waits("nowhere", &["RegistryUnavailable", "ErrImagePull", "ImagePullBackOff"])?;
    waits("nocommand", &["RunContainerError", "CrashLoopBackOff"])?;
    waits("noconfig", &["CreateContainerConfigError"])?;
    cluster.k("create configmap missing --from-literal=A=b")?;
    says(&cluster, "noconfig", "{.status.phase}", "Running")
}
