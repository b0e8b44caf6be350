//! How a guest is asked and told: the control protocol.
//!
//! Two hops. A client (the host over vsock, root in the guest over a Unix socket) speaks frames
//! with `activator logd`, the process that keeps the logs: see [`Hello`], [`Request`], [`Reply`].
//! That process speaks fixed-size packets with PID 1 over a SEQPACKET pair: see [`Order`] and
//! [`Report`]. So PID 1 never waits for a client, and never sees a string of one.
//!
//! | who | sends | then |
//! |---|---|---|
//! | client | [`Hello`] | logd closes the connection if token or version are wrong |
//! | client | one [`Request`] | |
//! | logd | any number of [`Reply`] | the last one is final ([`Reply::is_final`]), then EOF |
//!
//! A frame is a length (u32, little endian, at most [`MAX_FRAME`]) and that many bytes of one value ([`crate::wire`]).

mod report;
mod request;
mod state;
mod status;
mod text;

pub use report::{Event, Order, Refusal, Report};
pub(crate) use request::SUM;
pub use request::{Failure, Part, Programs, Reply, Request, Unfit, UnitName, Upload, Whose};
pub use state::{Exit, HealthState, JobResult, MachineState, ServiceState, SocketState};
pub use status::{InstanceStatus, Line, ServiceStatus, SocketStatus, Status};
pub use text::Text;

use crate::wire;
use crate::wire::{Put, Take};
use std::io::{self, Read, Write};

/// vsock port of the control protocol in every guest. Appliances cannot listen on it.
pub const PORT: u32 = 0x726f_7573;
/// The same for root in the guest, who needs no token.
pub const SOCKET: &str = "/run/rouse/control";
/// Name of the fw_cfg file in which the host hands over the token (64 hexadecimal digits).
pub const TOKEN_FW_CFG: &str = "opt/org.rouse/token";
/// Raised with every change of the types below.
pub const VERSION: u32 = 5;
/// Larger frames are refused.
pub const MAX_FRAME: usize = 64 * 1024;

/// The first frame of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// [`VERSION`] of the client.
    pub version: u32,
    /// The token that `rouse run` made; empty on the Unix socket.
    pub token: String,
}

wire! {
    struct Hello { version, token }
}

/// Writes one frame.
pub fn write_frame(mut to: impl Write, value: &dyn Put) -> io::Result<()> {
    let body = wire::to_vec(value);
    let length = u32::try_from(body.len()).ok().filter(|length| *length as usize <= MAX_FRAME);
    let length = length.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    to.write_all(&[&length.to_le_bytes()[..], &body].concat())
}

/// Reads one frame; `UnexpectedEof` if the peer left, `InvalidData` if it makes no sense.
pub fn read_frame<T: Take>(mut from: impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    wire::from_bytes(&body).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip_and_oversized_ones_are_refused() {
        let mut wire = Vec::new();
        write_frame(&mut wire, &Request::Start("echo.service".into())).unwrap();
        let request: Request = read_frame(&wire[..]).unwrap();
        assert_eq!(request, Request::Start("echo.service".into()));
        let huge = u32::MAX.to_le_bytes();
        let error = read_frame::<Request>(&huge[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
