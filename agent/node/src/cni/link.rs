//! The links of pods, as the node knows them: names are derived, so that one is found again with nothing written down.

/// What the names of pods' links begin with.
pub(crate) const PREFIX: &str = "cor";
/// Digits behind it: 44 bits of a hash, since the name of a link has at most 15 bytes.
const DIGITS: usize = 11;

/// The name of a link's end on the node, of what the runtime calls the plugin with.
pub(crate) fn name(container_id: &str, interface: &str) -> String {
    // FNV-1a.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in container_id.bytes().chain([b'/']).chain(interface.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{PREFIX}{:0DIGITS$x}", hash >> 20)
}

/// Whether a link of this name is a pod's.
pub(crate) fn is_one(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| rest.len() == DIGITS)
}
