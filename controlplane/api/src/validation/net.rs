//! The rules for addresses, ports by name and HTTP headers.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Errors, Path, port_name, port_number};

/// Reports a text that is no IP address.
pub fn validate_ip(ip: &str, at: &Path<'_>, errors: &mut Errors) -> Option<IpAddr> {
    let parsed = ip.parse().ok();
    if parsed.is_none() {
        errors.invalid(at, ip, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    }
    parsed
}

/// Reports a text that is not an address in the one form in which programs write it (`IsValidIP`).
pub fn validate_canonical_ip(text: &str, at: &Path<'_>, errors: &mut Errors) {
    let Some(ip) = validate_ip(text, at, errors) else { return };
    if matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        errors.invalid(at, text, "must not be an IPv4-mapped IPv6 address");
    } else if ip.to_string() != text {
        errors.invalid(at, text, format!("must be in canonical form ({:?})", ip.to_string()));
    }
}

/// Reports a text that is not a subnet in the one form in which programs write it (`IsValidCIDR`): no bit of the address
/// is set beyond its prefix.
pub fn validate_canonical_cidr(text: &str, at: &Path<'_>, errors: &mut Errors) -> Option<IpAddr> {
    let ip = validate_cidr(text, at, errors)?;
    let bits: u32 = text.rsplit_once('/').and_then(|(_, bits)| bits.parse().ok()).unwrap_or_default();
    let network = match ip {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(32 - bits).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(128 - bits).unwrap_or(0)).into()),
    };
    if matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        errors.invalid(at, text, "must not have an IPv4-mapped IPv6 address");
    } else if network != ip {
        errors.invalid(at, text, "must not have bits set beyond the prefix length");
    } else if format!("{network}/{bits}") != text {
        errors.invalid(at, text, format!("must be in canonical form ({:?})", format!("{network}/{bits}")));
    }
    Some(ip)
}

/// Reports a text that is no address with a prefix length.
pub fn validate_cidr(cidr: &str, at: &Path<'_>, errors: &mut Errors) -> Option<IpAddr> {
    let parsed = cidr.split_once('/').and_then(|(ip, bits)| {
        let ip: IpAddr = ip.parse().ok()?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        bits.parse::<u8>().is_ok_and(|bits| bits <= most).then_some(ip)
    });
    if parsed.is_none() {
        errors.invalid(at, cidr, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
    }
    parsed
}

/// Reports a text that is not an interface's address with the length of its subnet, in the form programs write
/// (`IsValidInterfaceAddress`): `192.168.1.5/24`.
pub fn validate_interface_address(text: &str, at: &Path<'_>, errors: &mut Errors) {
    const FORM: &str = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
    let mut bad = Errors::new();
    let Some(ip) = validate_cidr(text, at, &mut bad) else {
        return errors.invalid(at, text, FORM);
    };
    let bits: u8 = text.rsplit_once('/').and_then(|(_, bits)| bits.parse().ok()).unwrap_or_default();
    let (ip, bits) = match ip {
        // An IPv4 address in an IPv6 one has the 96 bits before it in its prefix.
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or((ip, bits), |v4| (IpAddr::V4(v4), bits.saturating_sub(96))),
        IpAddr::V4(_) => (ip, bits),
    };
    let canonical = format!("{ip}/{bits}");
    if text != canonical {
        errors.invalid(at, text, format!("must be in canonical form ({canonical:?})"));
    }
}

/// A node without the right to set routes gives its pods addresses of 127.64.0.0/10, where nothing else listens; they are
/// endpoints like any other. Kubernetes has no such nodes and refuses the whole of 127.0.0.0/8.
fn is_unprivileged_pod(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 127 && (64..128).contains(&ip.octets()[1]))
}

/// Reports addresses that no endpoint can have: none at all, loopback and link-local ones (`ValidateNonSpecialIP`).
pub fn validate_non_special_ip(text: &str, at: &Path<'_>, errors: &mut Errors) {
    let Ok(ip) = text.parse::<IpAddr>() else {
        errors.invalid(at, text, "must be a valid IP address");
        return;
    };
    if ip.is_unspecified() {
        errors.invalid(at, text, format!("may not be unspecified ({text})"));
    }
    if ip.is_loopback() && !is_unprivileged_pod(ip) {
        errors.invalid(at, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link_local, multicast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        errors.invalid(at, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        errors.invalid(at, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// Whether the addresses are at most one of each family.
#[must_use]
pub fn one_per_family(addresses: &[IpAddr]) -> bool {
    let v4 = addresses.iter().filter(|a| a.is_ipv4()).count();
    v4 <= 1 && addresses.len() - v4 <= 1
}

/// Reports a port that is neither a good number nor a good name.
pub fn validate_port(port: &IntOrString, at: &Path<'_>, errors: &mut Errors) {
    match port {
        IntOrString::Int(number) => {
            for detail in port_number(*number) {
                errors.invalid(at, *number, detail);
            }
        }
        IntOrString::String(name) => errors.invalid_each(at, name, port_name(name)),
    }
}

/// The name of an HTTP header.
#[must_use]
pub fn http_header_name(name: &str) -> Vec<String> {
    const RULE: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
    let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if good { Vec::new() } else { vec![RULE.to_owned()] }
}

/// The id of a user or a group.
pub fn validate_id(id: i64, at: &Path<'_>, errors: &mut Errors) {
    if !(0..=i64::from(i32::MAX)).contains(&id) {
        errors.invalid(at, id, "must be between 0 and 2147483647, inclusive");
    }
}

/// A number that must not be negative.
pub fn validate_non_negative(value: impl Into<i64>, at: &Path<'_>, errors: &mut Errors) {
    let value = value.into();
    if value < 0 {
        errors.invalid(at, value, "must be greater than or equal to 0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_their_rules() {
        let at = Path::new("ip");
        let errors_of = |f: fn(&str, &Path<'_>, &mut Errors), text: &str| {
            let mut errors = Errors::new();
            f(text, &at, &mut errors);
            errors.len()
        };
        for (ip, count) in [
            ("10.0.0.1", 0),
            ("fd00::1", 0),
            ("0.0.0.0", 1),
            ("127.0.0.1", 1),
            ("::1", 1),
            ("169.254.1.1", 1),
            ("fe80::1", 1),
            ("224.0.0.5", 1),
            ("ff02::1", 1),
            ("x", 1),
        ] {
            assert_eq!(errors_of(validate_non_special_ip, ip), count, "{ip}");
        }
        for (text, count) in [
            ("10.9.8.7/24", 0),
            ("2001:db8::1/64", 0),
            ("2001:DB8::1/64", 1),
            ("::ffff:10.0.0.1/120", 1),
            ("10.9.8.7", 1),
            ("x/24", 1),
        ] {
            assert_eq!(errors_of(validate_interface_address, text), count, "{text}");
        }
        let canonical = |text: &str, at: &Path<'_>, errors: &mut Errors| {
            validate_canonical_cidr(text, at, errors);
        };
        for (text, count) in [
            ("10.0.0.0/8", 0),
            ("0.0.0.0/0", 0),
            ("::/0", 0),
            ("fd00::/8", 0),
            ("10.0.0.1/32", 0),
            ("10.0.0.1/8", 1),
            ("FD00::/8", 1),
            ("::ffff:10.0.0.0/104", 1),
            ("x", 1),
        ] {
            assert_eq!(errors_of(canonical, text), count, "{text}");
        }
        let cidr = |text: &str, at: &Path<'_>, errors: &mut Errors| {
            validate_cidr(text, at, errors);
        };
        for (text, count) in [("10.0.0.0/8", 0), ("::/0", 0), ("10.0.0.0/33", 1), ("10.0.0.0", 1), ("a/8", 1)] {
            assert_eq!(errors_of(cidr, text), count, "{text}");
        }
    }
}
