//! shell: streaming connections over tokio: the driver of SPDY sessions, WebSocket connections, and the ways from one to the other.
//! It knows no pod and no node: what a stream is for is its users' business.

mod byte_stream;
mod port_forward;
mod remote_command;
mod spdy;
mod tls;
mod upgrade;
mod websocket;

pub use byte_stream::{BoxedStream, ByteStream, IDLE_TIMEOUT, splice};
pub use port_forward::port_forward;
pub use remote_command::{Streams, remote_command};
pub use spdy::{Connection, Gone, Stream, StreamReader, StreamWriter, connect};
pub use tls::Unverified;
pub use upgrade::{
    PORT_FORWARD_PROTOCOL, REMOTE_COMMAND_PROTOCOLS, STREAM_PROTOCOL_HEADER, TUNNEL_PROTOCOL, Wanted, choose_protocol,
    spdy_accepted, stream_protocols, wanted, websocket_accepted, websocket_protocols,
};
pub use websocket::{WebSocket, tunnel, websocket};

pub use coracle_streaming_protocol::{channel, outcome, spdy::Headers, spdy::Role};
