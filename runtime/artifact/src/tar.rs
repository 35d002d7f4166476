//! Reads tar archives (POSIX ustar, with GNU's binary sizes): where each file is, enough for archives of images. It never writes files.

use std::{
    collections::BTreeMap,
    io::{self, Read, Seek, SeekFrom},
};

const BLOCK: usize = 512;

/// Most entries of an archive.
const MAX_ENTRIES: usize = 10_000;

/// Longest extended header that is read over.
const MAX_EXTENDED_BYTES: u64 = 1 << 20;

/// Most links from one name to the next.
const MAX_LINKS: usize = 8;

/// Where a file of an archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// What the headers before a file say of it.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    link: Option<String>,
    bytes: Option<u64>,
}

/// The regular files of an archive by name, those included that are links to others: `docker save` has written a layer that two
/// images share so.
pub(crate) fn read_entries<R: Read + Seek>(mut archive: R) -> io::Result<BTreeMap<String, Entry>> {
    let end = archive.seek(SeekFrom::End(0))?;
    let mut at = archive.seek(SeekFrom::Start(0))?;
    let (mut files, mut links) = (BTreeMap::new(), BTreeMap::new());
    let mut extended = Extended::default();
    for _ in 0..MAX_ENTRIES {
        let mut header = [0; BLOCK];
        if !read_block(&mut archive, &mut header)? || header.iter().all(|byte| *byte == 0) {
            return Ok(resolved(files, &links));
        }
        check(&header)?;
        let bytes = extended.bytes.take().map_or_else(|| size(&header), Ok)?;
        let offset = at + BLOCK as u64;
        let next = offset.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(BLOCK as u64));
        // The last file may lack its padding.
        let next = next.filter(|_| offset + bytes <= end).ok_or_else(|| malformed("the archive is cut off"))?;
        let kind = header[156];
        if matches!(kind, b'L' | b'K' | b'x') {
            let text = text(&mut archive, bytes)?;
            match kind {
                b'L' => extended.name = Some(text.trim_end_matches('\0').to_owned()),
                b'K' => extended.link = Some(text.trim_end_matches('\0').to_owned()),
                _ => extended.read_pax(&text),
            }
        } else {
            let Extended { name, link, .. } = std::mem::take(&mut extended);
            let name = normal(&name.unwrap_or_else(|| self::name(&header)));
            let link = link.unwrap_or_else(|| field(&header[157..257]));
            match kind {
                b'0' | 0 => drop(files.insert(name, Entry { offset, bytes })),
                b'1' => drop(links.insert(name, normal(&link))),
                b'2' => {
                    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                    let target = normal(&format!("{folder}/{link}"));
                    links.insert(name, target);
                }
                _ => {}
            }
        }
        at = archive.seek(SeekFrom::Start(next))?;
    }
    Err(malformed("the archive has too many entries"))
}

/// The files, and the links that lead to one.
fn resolved(mut files: BTreeMap<String, Entry>, links: &BTreeMap<String, String>) -> BTreeMap<String, Entry> {
    for name in links.keys() {
        let mut target = name;
        for _ in 0..MAX_LINKS {
            match links.get(target) {
                Some(next) => target = next,
                None => break,
            }
        }
        if let Some(entry) = files.get(target).cloned() {
            files.insert(name.clone(), entry);
        }
    }
    files
}

/// A path without `.` and `..`, from the archive's root.
fn normal(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn text(archive: &mut impl Read, bytes: u64) -> io::Result<String> {
    if bytes > MAX_EXTENDED_BYTES {
        return Err(malformed("a header of the archive is too long"));
    }
    let mut content = Vec::new();
    archive.take(bytes).read_to_end(&mut content)?;
    Ok(String::from_utf8_lossy(&content).into_owned())
}

impl Extended {
    /// Lines of `LENGTH KEY=VALUE`.
    fn read_pax(&mut self, text: &str) {
        for line in text.lines().filter_map(|line| line.split_once(' ')) {
            match line.1.split_once('=') {
                Some(("path", path)) => self.name = Some(path.to_owned()),
                Some(("linkpath", path)) => self.link = Some(path.to_owned()),
                Some(("size", bytes)) => self.bytes = bytes.parse().ok(),
                _ => {}
            }
        }
    }
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

fn field(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn name(header: &[u8; BLOCK]) -> String {
    let (name, prefix) = (field(&header[..100]), field(&header[345..500]));
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() { format!("{prefix}/{name}") } else { name }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An archive of these files.
    pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        archive_with_links(files, &[])
    }

    /// An archive of these files, and of symbolic links to some.
    pub(crate) fn archive_with_links(files: &[(&str, &[u8])], links: &[(&str, &str)]) -> Vec<u8> {
        let mut archive = Vec::new();
        let mut add = |name: &str, kind: u8, link: &str, content: &[u8]| {
            let mut header = [0u8; BLOCK];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
            header[156] = kind;
            header[157..157 + link.len()].copy_from_slice(link.as_bytes());
            header[257..263].copy_from_slice(b"ustar\0");
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            archive.extend_from_slice(&header);
            archive.extend_from_slice(content);
            archive.resize(archive.len().next_multiple_of(BLOCK), 0);
        };
        links.iter().for_each(|(name, link)| add(name, b'2', link, b""));
        files.iter().for_each(|(name, content)| add(name, b'0', "", content));
        archive.resize(archive.len() + 2 * BLOCK, 0);
        archive
    }

    fn list(archive: &[u8]) -> io::Result<Vec<(String, Vec<u8>)>> {
        let found = read_entries(io::Cursor::new(archive))?;
        let content = |entry: Entry| archive[entry.offset as usize..][..entry.bytes as usize].to_vec();
        Ok(found.into_iter().map(|(name, entry)| (name, content(entry))).collect())
    }

    #[test]
    fn files_are_found_by_name_and_through_links() {
        let big = vec![7; 1000];
        let links = [("x/layer.tar", "../b/c"), ("round", "trip"), ("trip", "round"), ("out", "../../b/c")];
        let found = list(&archive_with_links(&[("a", b"1"), ("./b/c", &big), ("empty", b"")], &links)).unwrap();
        let expect =
            [("a", b"1".to_vec()), ("b/c", big.clone()), ("empty", vec![]), ("out", big.clone()), ("x/layer.tar", big)];
        assert_eq!(found, expect.map(|(name, content)| (name.to_owned(), content)));
    }

    #[test]
    fn what_is_no_archive_or_is_cut_off_is_an_error() {
        assert!(list(&[1; 600]).is_err());
        let whole = archive(&[("a", b"1"), ("b", b"2")]);
        assert!(list(&whole[..BLOCK]).is_err(), "a file without its content");
        assert!(list(&whole[..2 * BLOCK + 100]).is_err(), "half a header");
        assert_eq!(list(&whole[..BLOCK + 1]).unwrap().len(), 1, "the last file may lack its padding");
    }
}
