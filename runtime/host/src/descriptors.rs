//! The descriptors of the process, which guests share with everything else that runs in it. A guest may open as many files
//! and sockets as its container may have; when the process has few left, guests get no more, so that the node can go on
//! taking connections, rotating logs and writing its records. Shown for `wasi:filesystem` and `wasi:sockets`, 0.2 and 0.3.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::OnceLock,
};

use rustix::process::{Resource as Limit, getrlimit};
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::{
    filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView},
    p2::{
        TcpSocket as TcpSocketP2, UdpSocket as UdpSocketP2,
        bindings::{
            filesystem::types as files_p2,
            sockets::{network as network_p2, tcp_create_socket, udp_create_socket},
        },
    },
    p3::bindings::{filesystem::types as files_p3, sockets::types as sockets_p3},
    sockets::{TcpSocket, UdpSocket, WasiSocketsView},
};

use crate::guest::Guest;

/// Most resources of one instance: files, sockets, streams, requests. A resource may hold a descriptor.
pub(crate) const MAX_RESOURCES: usize = 16_384;

/// Most descriptors that are kept from guests; of a small limit it is a quarter.
const MAX_RESERVE: u64 = 4096;

/// Whether guests are to get no more descriptors. The kernel gives the lowest number that is free, so the number it gives
/// tells how many are taken.
pub(crate) fn are_scarce() -> bool {
    static PROBE: OnceLock<Option<OwnedFd>> = OnceLock::new();
    let open = || rustix::fs::open("/dev/null", rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, 0.into()).ok();
    let Some(probe) = PROBE.get_or_init(open) else { return false };
    let limit = getrlimit(Limit::Nofile).current;
    match (rustix::io::fcntl_dupfd_cloexec(probe, 0), limit) {
        (Err(_), _) => true,
        (Ok(_), None) => false,
        (Ok(free), Some(limit)) => is_reserved(u64::try_from(free.as_raw_fd()).unwrap_or_default(), limit),
    }
}

/// Whether a number is among those kept from guests.
fn is_reserved(number: u64, limit: u64) -> bool {
    number >= limit - (limit / 4).min(MAX_RESERVE)
}

/// The system's own words for it.
pub(crate) fn scarcity() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error())
}

/// Replaces what opens files and sockets in WASI 0.2; the linker must hold wasmtime's and allow shadowing.
pub(crate) fn add_p2_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    type OpenAt = (Resource<Descriptor>, files_p2::PathFlags, String, files_p2::OpenFlags, files_p2::DescriptorFlags);
    linker.instance("wasi:filesystem/types@0.2.12")?.func_wrap_async(
        "[method]descriptor.open-at",
        |mut store, (directory, path_flags, path, open_flags, flags): OpenAt| {
            Box::new(async move {
                if are_scarce() {
                    return Ok((Err(files_p2::ErrorCode::InsufficientMemory),));
                }
                let mut files = store.data_mut().filesystem();
                let opened =
                    files_p2::HostDescriptor::open_at(&mut files, directory, path_flags, path, open_flags, flags).await;
                Ok((match opened {
                    Ok(descriptor) => Ok(descriptor),
                    Err(error) => Err(error.downcast()?),
                },))
            })
        },
    )?;
    linker.instance("wasi:sockets/tcp-create-socket@0.2.12")?.func_wrap(
        "create-tcp-socket",
        |mut store, (family,): (network_p2::IpAddressFamily,)| {
            if are_scarce() {
                return Ok((Err::<Resource<TcpSocketP2>, _>(network_p2::ErrorCode::NewSocketLimit),));
            }
            crate::tcp::answer(tcp_create_socket::Host::create_tcp_socket(&mut store.data_mut().sockets(), family))
        },
    )?;
    linker.instance("wasi:sockets/udp-create-socket@0.2.12")?.func_wrap_async(
        "create-udp-socket",
        |mut store, (family,): (network_p2::IpAddressFamily,)| {
            Box::new(async move {
                if are_scarce() {
                    return Ok((Err::<Resource<UdpSocketP2>, _>(network_p2::ErrorCode::NewSocketLimit),));
                }
                let mut sockets = store.data_mut().sockets();
                crate::tcp::answer(udp_create_socket::Host::create_udp_socket(&mut sockets, family).await)
            })
        },
    )
}

/// The same for WASI 0.3; the linker's engine must know concurrency.
pub(crate) fn add_p3_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    type OpenAt = (Resource<Descriptor>, files_p3::PathFlags, String, files_p3::OpenFlags, files_p3::DescriptorFlags);
    linker.instance("wasi:filesystem/types@0.3.0")?.func_wrap_concurrent(
        "[method]descriptor.open-at",
        |accessor, (directory, path_flags, path, open_flags, flags): OpenAt| {
            Box::pin(async move {
                if are_scarce() {
                    return Ok((Err(files_p3::ErrorCode::InsufficientMemory),));
                }
                let files = accessor.with_getter::<WasiFilesystem>(Guest::filesystem);
                let opened = <WasiFilesystem as files_p3::HostDescriptorWithStore<Guest>>::open_at(
                    &files, directory, path_flags, path, open_flags, flags,
                );
                Ok((match opened.await {
                    Ok(descriptor) => Ok(descriptor),
                    Err(error) => Err(error.downcast()?),
                },))
            })
        },
    )?;
    let mut sockets = linker.instance("wasi:sockets/types@0.3.0")?;
    sockets.func_wrap("[static]tcp-socket.create", |mut store, (family,): (sockets_p3::IpAddressFamily,)| {
        if are_scarce() {
            return Ok((Err::<Resource<TcpSocket>, _>(sockets_p3::ErrorCode::OutOfMemory),));
        }
        crate::sockets_p3::answer(sockets_p3::HostTcpSocket::create(&mut store.data_mut().sockets(), family))
    })?;
    sockets.func_wrap_async("[static]udp-socket.create", |mut store, (family,): (sockets_p3::IpAddressFamily,)| {
        Box::new(async move {
            if are_scarce() {
                return Ok((Err::<Resource<UdpSocket>, _>(sockets_p3::ErrorCode::OutOfMemory),));
            }
            let mut sockets = store.data_mut().sockets();
            crate::sockets_p3::answer(sockets_p3::HostUdpSocket::create(&mut sockets, family).await)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_descriptors_are_kept_from_guests() {
        for (number, limit, expect) in [
            (0, 1024, false),
            (767, 1024, false),
            (768, 1024, true),
            (1_044_479, 1 << 20, false),
            (1_044_480, 1 << 20, true),
        ] {
            assert_eq!(is_reserved(number, limit), expect, "{number} of {limit}");
        }
    }

    /// Set for the test below when it runs as a process of its own, with a limit of its own.
    const INSIDE: &str = "CORACLE_TEST_DESCRIPTORS";

    #[test]
    fn whoever_opens_without_end_leaves_some_to_the_others() {
        if std::env::var_os(INSIDE).is_none() {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            let name = "descriptors::tests::whoever_opens_without_end_leaves_some_to_the_others";
            let output = command.args(["--exact", name]).env(INSIDE, "1").output().unwrap();
            let said = [output.stdout, output.stderr].concat();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
            return;
        }
        let mut limit = getrlimit(Limit::Nofile);
        limit.current = Some(256);
        rustix::process::setrlimit(Limit::Nofile, limit).unwrap();
        let open = || std::fs::File::open("/dev/null");
        let mut taken = Vec::new();
        while !are_scarce() {
            taken.push(open().unwrap());
        }
        let others = (0..).map_while(|_| open().ok()).collect::<Vec<_>>().len();
        assert!(taken.len() > 128 && (60..=64).contains(&others), "{} and {others}", taken.len());
        taken.clear();
        assert!(!are_scarce(), "what is closed can be had again");
    }
}
