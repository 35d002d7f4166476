//! The administrator's kubeconfig, as `kubectl` reads it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle_apiserver::pki::Identity;

/// A kubeconfig for the API on this machine. Everything in it is plain ASCII, so the YAML needs no quoting.
pub(crate) fn render(ca: &str, admin: &Identity, api: SocketAddr) -> String {
    let encode = |text: &str| STANDARD.encode(text);
    let server = reachable(api);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: coracle
  cluster:
    server: https://{server}
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

/// Where a listener is reached from its own machine.
fn reachable(api: SocketAddr) -> SocketAddr {
    let address = match api.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        bound => bound,
    };
    SocketAddr::new(address, api.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_named_by_an_address_it_listens_on() {
        let cases = [
            ("0.0.0.0:6443", "127.0.0.1:6443"),
            ("[::]:6443", "[::1]:6443"),
            ("192.0.2.5:6443", "192.0.2.5:6443"),
            ("[fd00::1]:443", "[fd00::1]:443"),
        ];
        for (bound, named) in cases {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), named);
            let text =
                render("ca", &Identity { certificate: String::new(), key: String::new() }, bound.parse().unwrap());
            assert!(text.contains(&format!("    server: https://{named}\n")), "{text}");
        }
    }
}
