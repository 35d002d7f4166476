//! pure: the protocols in which a client talks to a process in a container: SPDY/3.1, and channels over WebSocket messages. State
//! machines over bytes: they read no socket and know no clock, no pod and no container.

pub mod channel;
pub mod outcome;
pub mod spdy;
