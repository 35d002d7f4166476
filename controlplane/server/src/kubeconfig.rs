//! The administrator's kubeconfig, as `kubectl` reads it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle_apiserver::pki::Identity;

/// A kubeconfig for the API on this machine. Everything in it is plain ASCII, so the YAML needs no quoting.
pub(crate) fn render(ca: &str, admin: &Identity, port: u16) -> String {
    let encode = |text: &str| STANDARD.encode(text);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: coracle
  cluster:
    server: https://127.0.0.1:{port}
    certificate-authority-data: {}
users:
- name: admin
  user:
    client-certificate-data: {}
    client-key-data: {}
contexts:
- name: coracle
  context:
    cluster: coracle
    user: admin
current-context: coracle
",
        encode(ca),
        encode(&admin.certificate),
        encode(&admin.key)
    )
}
