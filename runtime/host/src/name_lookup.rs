//! `wasi:sockets/ip-name-lookup`, 0.2 and 0.3, over a resolver that the pod brings along. It opens no socket itself.

use std::{
    future::Future,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::{
    WasiView,
    p2::{
        DynPollable, Network, Pollable,
        bindings::sockets::network::{ErrorCode, IpAddress},
        subscribe,
    },
    p3::bindings::sockets::{ip_name_lookup::ErrorCode as P3ErrorCode, types::IpAddress as P3IpAddress},
};

use crate::guest::Guest;

/// The interfaces that are replaced, in the versions that wasmtime's bindings define.
const INTERFACE_P2: &str = "wasi:sockets/ip-name-lookup@0.2.12";
const INTERFACE_P3: &str = "wasi:sockets/ip-name-lookup@0.3.0";

/// Longest name: that of DNS (RFC 1035, section 2.3.4).
const MAX_NAME_BYTES: usize = 253;

/// Why a name has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupError {
    /// Not a name.
    Invalid,
    /// The name does not exist, or has no address.
    NotFound,
    /// No answer now; trying again may help.
    Temporary,
    /// The resolver refuses for good.
    Permanent,
}

/// A lookup under way.
pub type Lookup = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, LookupError>> + Send>>;

/// Resolves names for a pod.
pub trait Resolver: Send + Sync {
    /// The addresses of a name, in the order to try them. Never empty when it succeeds.
    fn resolve(&self, name: &str) -> Lookup;
}

/// The node's own resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, name: &str) -> Lookup {
        let name = name.to_owned();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|error| {
                tracing::debug!("{name} cannot be resolved: {error}");
                LookupError::NotFound
            })?;
            let mut addresses: Vec<IpAddr> = Vec::new();
            for address in found {
                let ip = address.ip().to_canonical();
                if !addresses.contains(&ip) {
                    addresses.push(ip);
                }
            }
            if addresses.is_empty() { Err(LookupError::NotFound) } else { Ok(addresses) }
        })
    }
}

/// Resolves a name or reads an address.
pub(crate) fn lookup(resolver: &dyn Resolver, name: &str) -> Lookup {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Box::pin(std::future::ready(Ok(vec![ip])));
    }
    let valid = !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if !valid {
        return Box::pin(std::future::ready(Err(LookupError::Invalid)));
    }
    resolver.resolve(&name.to_ascii_lowercase())
}

/// The resource `resolve-address-stream`.
pub(crate) struct AddressStream {
    state: StreamState,
}

enum StreamState {
    Waiting(Lookup),
    Found(std::vec::IntoIter<IpAddr>),
    Failed(LookupError),
}

impl AddressStream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let StreamState::Waiting(lookup) = &mut self.state {
            match std::task::ready!(lookup.as_mut().poll(cx)) {
                Ok(addresses) => self.state = StreamState::Found(addresses.into_iter()),
                Err(error) => self.state = StreamState::Failed(error),
            }
        }
        Poll::Ready(())
    }

    fn next(&mut self) -> Result<Option<IpAddress>, ErrorCode> {
        // Nobody is to be woken: a guest that waits has subscribed.
        let _ = self.poll(&mut Context::from_waker(Waker::noop()));
        match &mut self.state {
            StreamState::Waiting(_) => Err(ErrorCode::WouldBlock),
            StreamState::Found(addresses) => Ok(addresses.next().map(IpAddress::from)),
            StreamState::Failed(error) => Err((*error).into()),
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for AddressStream {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }
}

/// Replaces the interface of WASI 0.2; the linker must allow shadowing.
pub(crate) fn add_p2_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    type Stream = Resource<AddressStream>;
    let mut p2 = linker.instance(INTERFACE_P2)?;
    p2.resource("resolve-address-stream", ResourceType::host::<AddressStream>(), |mut store, rep| {
        store.data_mut().ctx().table.delete(Stream::new_own(rep))?;
        Ok(())
    })?;
    p2.func_wrap("resolve-addresses", |mut store, (network, name): (Resource<Network>, String)| {
        let guest = store.data_mut();
        guest.ctx().table.get(&network)?;
        let lookup = lookup(&**guest.network().resolver(), &name);
        let stream = guest.ctx().table.push(AddressStream { state: StreamState::Waiting(lookup) })?;
        Ok((Ok::<_, ErrorCode>(stream),))
    })?;
    p2.func_wrap("[method]resolve-address-stream.resolve-next-address", |mut store, (stream,): (Stream,)| {
        Ok((store.data_mut().ctx().table.get_mut(&stream)?.next(),))
    })?;
    p2.func_wrap("[method]resolve-address-stream.subscribe", |mut store, (stream,): (Stream,)| {
        let pollable: Resource<DynPollable> = subscribe(store.data_mut().ctx().table, stream)?;
        Ok((pollable,))
    })
}

/// Replaces the interface of WASI 0.3; the linker must allow shadowing, and its engine must know concurrency.
pub(crate) fn add_p3_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut p3 = linker.instance(INTERFACE_P3)?;
    p3.func_wrap_concurrent("resolve-addresses", |accessor, (name,): (String,)| {
        Box::pin(async move {
            let lookup = accessor.with(|mut store| lookup(&**store.data_mut().network().resolver(), &name));
            let found = lookup.await.map_err(P3ErrorCode::from);
            Ok((found.map(|addresses| addresses.into_iter().map(P3IpAddress::from).collect::<Vec<_>>()),))
        })
    })
}

impl From<LookupError> for ErrorCode {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Invalid => Self::InvalidArgument,
            LookupError::NotFound => Self::NameUnresolvable,
            LookupError::Temporary => Self::TemporaryResolverFailure,
            LookupError::Permanent => Self::PermanentResolverFailure,
        }
    }
}

impl From<LookupError> for P3ErrorCode {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Invalid => Self::InvalidArgument,
            LookupError::NotFound => Self::NameUnresolvable,
            LookupError::Temporary => Self::TemporaryResolverFailure,
            LookupError::Permanent => Self::PermanentResolverFailure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Resolver for Fixed {
        fn resolve(&self, name: &str) -> Lookup {
            let found = (name == "db.default.svc").then(|| vec!["10.43.0.9".parse().unwrap()]);
            Box::pin(std::future::ready(found.ok_or(LookupError::NotFound)))
        }
    }

    #[tokio::test]
    async fn addresses_need_no_resolver_and_names_are_checked() {
        let ip = |text: &str| Ok(vec![text.parse::<IpAddr>().unwrap()]);
        for (name, expected) in [
            ("10.0.0.1", ip("10.0.0.1")),
            ("fd00::1", ip("fd00::1")),
            ("[fd00::1]", ip("fd00::1")),
            ("DB.default.svc", ip("10.43.0.9")),
            ("other", Err(LookupError::NotFound)),
            ("", Err(LookupError::Invalid)),
            ("a b", Err(LookupError::Invalid)),
        ] {
            assert_eq!(lookup(&Fixed, name).await, expected, "{name}");
        }
        assert_eq!(lookup(&Fixed, &"a".repeat(254)).await, Err(LookupError::Invalid));
    }

    #[tokio::test]
    async fn the_system_knows_localhost() {
        let found = lookup(&SystemResolver, "localhost").await.unwrap();
        assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
    }
}
