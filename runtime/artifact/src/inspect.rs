//! Tells what a file is from its first bytes: a component, a core module, or something else. It validates nothing further.

use crate::ArtifactError;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A WebAssembly component.
    Component,
    /// A core WebAssembly module.
    CoreModule,
    /// A tar archive.
    Tar,
    /// A gzip stream.
    Gzip,
    /// Something else.
    Unknown,
}

/// Bytes at the start of a file that are enough to tell.
pub(crate) const ENOUGH_BYTES: usize = 512;

/// What a file that starts so is.
pub fn inspect(start: &[u8]) -> FileKind {
    // The component model's binary format: after the magic a 16-bit version, then a 16-bit layer, 1 for components.
    if let [0, b'a', b's', b'm', _, _, layer_low, layer_high, ..] = start {
        return match u16::from_le_bytes([*layer_low, *layer_high]) {
            0 => FileKind::CoreModule,
            1 => FileKind::Component,
            _ => FileKind::Unknown,
        };
    }
    if start.starts_with(&[0x1f, 0x8b]) {
        return FileKind::Gzip;
    }
    if start.get(257..262) == Some(b"ustar") {
        return FileKind::Tar;
    }
    FileKind::Unknown
}

/// Fails when a file that starts so is no component, and says what to do.
pub(crate) fn require_component(what: &str, start: &[u8]) -> Result<(), ArtifactError> {
    match inspect(start) {
        FileKind::Component => Ok(()),
        FileKind::CoreModule => Err(ArtifactError::NotAComponent(format!(
            "{what} is a core WebAssembly module, not a component: build it for the target wasm32-wasip2, \
             or wrap it with `wasm-tools component new`"
        ))),
        _ => Err(ArtifactError::NotAComponent(format!("{what} is not a WebAssembly component"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        for (start, kind) in [
            (&b"\0asm\x0d\0\x01\0"[..], FileKind::Component),
            (&b"\0asm\x01\0\0\0"[..], FileKind::CoreModule),
            (&b"\0asm"[..], FileKind::Unknown),
            (&b"\x1f\x8b\x08"[..], FileKind::Gzip),
            (&tar[..], FileKind::Tar),
            (&b"(component)"[..], FileKind::Unknown),
        ] {
            assert_eq!(inspect(start), kind, "{start:?}");
        }
        let error = require_component("x.wasm", b"\0asm\x01\0\0\0").unwrap_err().to_string();
        assert!(error.starts_with("x.wasm is a core WebAssembly module, not a component"), "{error}");
    }
}
