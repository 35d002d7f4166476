//! The program's own pages, and what C left free. Starting runs through most of the program once: it reads the command line, makes certificates,
//! compiles patterns, opens the engine. The kernel maps what was touched, sixteen pages at a time, and leaves it mapped, so
//! that a server at rest would count nearly its whole text as resident for as long as it runs.
//!
//! So a server unmaps its text now and then. Nothing is lost: the pages stay in the kernel's page cache, from where what is
//! still used comes back by one minor fault for each sixteen pages, and what is not used is free to be given up when the
//! machine needs the room.
//!
//! It gives back as well what the C library keeps of its heaps, in which nothing but SQLite's page caches are: after a burst of
//! writes they are empty, and the library would hold them for the next.
//!
//! And the whole program does without huge pages, which the allocator asks for: they multiply the memory of an idle server.

use std::fs;
use std::io;
use std::ops::Range;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How often. What comes back in between is what the server is at work with; all of it is a few hundred faults, less than
/// a millisecond in ten seconds.
const EVERY: Duration = Duration::from_secs(10);
/// Time after the start at which it is done first.
const FIRST: Duration = Duration::from_secs(5);

/// The loader calls this before `main`, and before the allocator takes its first page.
#[expect(unsafe_code, reason = "the loader finds what it calls by the section it is in")]
#[used]
// SAFETY: functions in this section are called once, by the thread that starts the program, with nothing set up yet but the
// C library; this one makes a single system call.
#[unsafe(link_section = ".init_array.00001")]
static BEFORE_MAIN: extern "C" fn() = refuse_huge_pages;

extern "C" fn refuse_huge_pages() {
    // Where the kernel refuses, the program runs all the same.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// The parts of the program that are mapped from its file and that nobody can have written to.
#[derive(Debug)]
pub(crate) struct ProgramPages(Vec<Range<usize>>);

impl ProgramPages {
    /// Finds them; none where the system does not tell. The list of mappings grows with every pod, so this is for the start
    /// of the program.
    pub(crate) fn find() -> Self {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        Self(parts(&smaps, Self::find as fn() -> _ as usize))
    }

    /// Unmaps them from time to time, until the program stops.
    pub(crate) async fn keep_small(self, stop: CancellationToken) {
        let mut wait = FIRST;
        while stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
            if let Err(error) = self.release() {
                tracing::debug!(%error, "the program's pages stay mapped");
                return;
            }
            wait = EVERY;
        }
    }

    fn release(&self) -> io::Result<()> {
        trim_heaps();
        self.0.iter().try_for_each(|part| advise(part, libc::MADV_DONTNEED))
    }
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "no safe call speaks to the C library's allocator")]
fn trim_heaps() {
    // SAFETY: it takes the allocator's own locks and touches nothing but what is free.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn trim_heaps() {}

#[expect(unsafe_code, reason = "no safe call unmaps pages")]
fn advise(part: &Range<usize>, advice: libc::c_int) -> io::Result<()> {
    // SAFETY: The range is a private mapping of the program's file, without leave to write and without a page of its own
    // (`parts`): whatever is unmapped is read from the file again when it is touched, and reads the same.
    let result = unsafe { libc::madvise(part.start as *mut libc::c_void, part.len(), advice) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The mappings of the file in which the address lies that cannot be written to and have no page that differs from the
/// file. One that was written to before it was made read-only, as the loader does with relocated data, has such pages.
fn parts(smaps: &str, address: usize) -> Vec<Range<usize>> {
    struct Mapping<'a> {
        range: Range<usize>,
        writable: bool,
        file: (&'a str, &'a str),
        own_pages: bool,
    }
    let mut mappings: Vec<Mapping<'_>> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(first), Some(second)) = (words.next(), words.next()) else { continue };
        if first == "Anonymous:" {
            if let Some(mapping) = mappings.last_mut() {
                mapping.own_pages = second != "0";
            }
        } else if let Some((start, end)) = first.split_once('-') {
            let number = |text| usize::from_str_radix(text, 16);
            let (Ok(start), Ok(end)) = (number(start), number(end)) else { continue };
            let (device, inode) = (words.nth(1).unwrap_or_default(), words.next().unwrap_or_default());
            // Until it is said otherwise, a mapping is left alone.
            let mapping =
                Mapping { range: start..end, writable: second.contains('w'), file: (device, inode), own_pages: true };
            mappings.push(mapping);
        }
    }
    let Some(file) = mappings.iter().find(|m| m.range.contains(&address)).map(|m| m.file) else { return Vec::new() };
    let ours = mappings.into_iter().filter(|m| m.file == file && file.1 != "0" && !m.writable && !m.own_pages);
    ours.map(|m| m.range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
5000-6000 r--p 00000000 fe:00 77    /bin/coracle
Rss:      4 kB
Anonymous:        0 kB
6000-9000 r-xp 00001000 fe:00 77    /bin/coracle
Anonymous:        0 kB
9000-a000 r--p 00004000 fe:00 77    /bin/coracle
Anonymous:        4 kB
a000-b000 rw-p 00005000 fe:00 77    /bin/coracle
Anonymous:        0 kB
b000-c000 rw-p 00000000 00:00 0     [heap]
Anonymous:        4 kB
c000-d000 r-xp 00000000 fe:00 78    /lib/libc.so
Anonymous:        0 kB
VmFlags: rd ex
d000-e000 r--p 00006000 fe:00 77    /bin/coracle
";

    #[test]
    fn only_unwritten_parts_of_the_program_count() {
        assert_eq!(parts(SMAPS, 0x6abc), [0x5000..0x6000, 0x6000..0x9000]);
        assert_eq!(parts(SMAPS, 0xc000), std::iter::once(0xc000..0xd000).collect::<Vec<_>>());
        assert!(parts(SMAPS, 0xb800).is_empty(), "memory without a file");
        assert!(parts(SMAPS, 0x1000).is_empty());
    }

    #[test]
    fn there_are_no_huge_pages() {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        assert!(status.lines().any(|line| line.split_whitespace().eq(["THP_enabled:", "0"])), "{status}");
    }

    /// Kilobytes of the program's parts that are mapped.
    fn resident(pages: &ProgramPages) -> usize {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let starts: Vec<String> = pages.0.iter().map(|part| format!("{:x}-", part.start)).collect();
        let (mut inside, mut sum) = (false, 0);
        for line in smaps.lines() {
            if line.split(' ').next().is_some_and(|word| word.contains('-')) {
                inside = starts.iter().any(|start| line.trim_start_matches('0').starts_with(start));
            } else if let Some(size) = line.strip_prefix("Rss:").filter(|_| inside) {
                sum += size.trim().trim_end_matches(" kB").parse::<usize>().unwrap();
            }
        }
        sum
    }

    #[test]
    fn pages_go_and_come_back() {
        let pages = ProgramPages::find();
        assert!(!pages.0.is_empty());
        for part in &pages.0 {
            advise(part, libc::MADV_POPULATE_READ).unwrap();
        }
        let before = resident(&pages);
        pages.release().unwrap();
        let after = resident(&pages);
        assert!(after < before / 4 * 3, "{before} kB, then {after} kB");
        // What is called now is read from the file again.
        assert_eq!(ProgramPages::find().0, pages.0);
    }
}
