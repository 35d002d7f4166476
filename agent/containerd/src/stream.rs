//! Exec, attach and port-forward: the runtime is asked for the address of its own streaming server, which speaks what Kubernetes'
//! clients speak.

use coracle_agent_core::workload::{Opened, StreamRequest, WorkloadError};

use crate::{
    connection::{Connection, call},
    cri::v1::{AttachRequest, ExecRequest, PortForwardRequest},
    workload::runtime_error,
};

/// Asks for the address; `id` is that of the container, or of the sandbox whose ports are wanted.
pub(crate) async fn open(connection: &Connection, id: String, request: StreamRequest) -> Result<Opened, WorkloadError> {
    let mut runtime = connection.runtime();
    let url = match request {
        StreamRequest::Exec { command, streams, .. } => {
            let request = ExecRequest {
                container_id: id,
                cmd: command,
                tty: streams.tty,
                stdin: streams.stdin,
                stdout: streams.stdout,
                stderr: streams.stderr,
            };
            runtime.exec(call(request)).await.map_err(runtime_error)?.into_inner().url
        }
        StreamRequest::Attach { streams, .. } => {
            let request = AttachRequest {
                container_id: id,
                tty: streams.tty,
                stdin: streams.stdin,
                stdout: streams.stdout,
                stderr: streams.stderr,
            };
            runtime.attach(call(request)).await.map_err(runtime_error)?.into_inner().url
        }
        StreamRequest::PortForward { ports, .. } => {
            let request = PortForwardRequest { pod_sandbox_id: id, port: ports.into_iter().map(i32::from).collect() };
            runtime.port_forward(call(request)).await.map_err(runtime_error)?.into_inner().url
        }
    };
    Ok(Opened::Endpoint(url))
}
