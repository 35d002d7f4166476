//! Reads tar archives (POSIX ustar, with GNU's binary sizes): enough for OCI archives. It never writes files.

use std::io::{self, Read};

const BLOCK: usize = 512;

/// Most entries of an archive.
const MAX_ENTRIES: usize = 10_000;

/// Longest extended header that is read over.
const MAX_EXTENDED_BYTES: u64 = 1 << 20;

/// Calls `visit` with the name and content of each regular file, in order. Whatever `visit` leaves unread is skipped.
pub(crate) fn read_entries<R: Read, E: From<io::Error>>(
    mut archive: R,
    mut visit: impl FnMut(&str, u64, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let mut long_name: Option<String> = None;
    for _ in 0..MAX_ENTRIES {
        let mut header = [0; BLOCK];
        if !read_block(&mut archive, &mut header)? || header.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        check(&header)?;
        let size = size(&header)?;
        let padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        let mut content = (&mut archive).take(size);
        match header[156] {
            b'0' | 0 => {
                let name = long_name.take().unwrap_or_else(|| name(&header));
                visit(name.trim_start_matches("./"), size, &mut content)?;
            }
            b'L' if size <= MAX_EXTENDED_BYTES => {
                let mut text = String::new();
                content.read_to_string(&mut text)?;
                long_name = Some(text.trim_end_matches('\0').to_owned());
            }
            b'x' if size <= MAX_EXTENDED_BYTES => {
                let mut text = String::new();
                content.read_to_string(&mut text)?;
                long_name = pax_path(&text);
            }
            _ => {}
        }
        io::copy(&mut content, &mut io::sink())?;
        io::copy(&mut (&mut archive).take(padding), &mut io::sink())?;
    }
    Err(malformed("the archive has too many entries").into())
}

fn malformed(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// False at the archive's end.
fn read_block(archive: &mut impl Read, block: &mut [u8; BLOCK]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < BLOCK {
        match archive.read(&mut block[filled..])? {
            0 if filled == 0 => return Ok(false),
            0 => return Err(malformed("the archive is cut off")),
            read => filled += read,
        }
    }
    Ok(true)
}

/// The checksum is the sum of the header's bytes, its own field taken as spaces.
fn check(header: &[u8; BLOCK]) -> io::Result<()> {
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte }))
        .sum();
    if octal(&header[148..156]) == Some(sum) { Ok(()) } else { Err(malformed("the archive is not a tar archive")) }
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches(|character| character == '\0' || character == ' ');
    u64::from_str_radix(text, 8).ok()
}

fn size(header: &[u8; BLOCK]) -> io::Result<u64> {
    let field = &header[124..136];
    // GNU writes what does not fit in octal as a big-endian number behind a set bit.
    let size = if field[0] & 0x80 != 0 {
        field[4..].iter().try_fold(0u64, |sum, byte| sum.checked_mul(256)?.checked_add(u64::from(*byte)))
    } else {
        octal(field)
    };
    size.ok_or_else(|| malformed("an entry of the archive has no valid size"))
}

fn name(header: &[u8; BLOCK]) -> String {
    let text = |field: &[u8]| {
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        String::from_utf8_lossy(&field[..end]).into_owned()
    };
    let (name, prefix) = (text(&header[..100]), text(&header[345..500]));
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() { format!("{prefix}/{name}") } else { name }
}

/// The path in a pax header: lines of `LENGTH KEY=VALUE`.
fn pax_path(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.split_once(' ')?.1.strip_prefix("path=")).map(str::to_owned)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An archive of these files.
    pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = Vec::new();
        for (name, content) in files {
            let mut header = [0u8; BLOCK];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
            header[156] = b'0';
            header[257..263].copy_from_slice(b"ustar\0");
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            archive.extend_from_slice(&header);
            archive.extend_from_slice(content);
            archive.resize(archive.len().next_multiple_of(BLOCK), 0);
        }
        archive.resize(archive.len() + 2 * BLOCK, 0);
        archive
    }

    fn list(archive: &[u8]) -> io::Result<Vec<(String, Vec<u8>)>> {
        let mut found = Vec::new();
        read_entries(archive, |name, _, content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            found.push((name.to_owned(), bytes));
            io::Result::Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn files_are_read_in_order() {
        let big = vec![7; 1000];
        let found = list(&archive(&[("a", b"1"), ("./b/c", &big), ("empty", b"")])).unwrap();
        assert_eq!(found, [("a".into(), b"1".to_vec()), ("b/c".into(), big), ("empty".into(), vec![])]);
    }

    #[test]
    fn what_is_no_archive_or_is_cut_off_is_an_error() {
        assert!(list(&[1; 600]).is_err());
        let whole = archive(&[("a", b"1"), ("b", b"2")]);
        assert!(
            list(&whole[..BLOCK + 100]).is_ok_and(|found| found.len() == 1) || list(&whole[..BLOCK + 100]).is_err()
        );
        assert!(list(&whole[..2 * BLOCK + 100]).is_err());
    }
}
