//! A vhost-user vsock device: the way between the host and a guest, without `/dev/vhost-vsock`.
//!
//! QEMU (`-device vhost-user-vsock-pci`) hands the guest's memory and queues over a Unix socket;
//! from then on the guest's AF_VSOCK sockets talk to this process. What the device promises:
//!
//! * **Nothing is lost.** Each direction of a connection ends by itself, in order, behind its
//!   last byte (virtio's SHUTDOWN has a flag for each); a client that ends its side at once still
//!   gets the whole answer; payload may follow the handshake in the same write.
//! * **Nothing is held without bound.** Each connection has credit, both ways; a host that does
//!   not read stops its own guest peer and nobody else. There are limits for connections, for
//!   resets that are due, and for every wait ([`Limits`]).
//! * **No guest can break it.** What a guest writes into its queues is checked where it is read;
//!   nonsense ends the connection that it belongs to, and is logged once a second at most.
//!
//! The ways in and out:
//!
//! | from | to | how |
//! |------|----|-----|
//! | host | any port of the guest | [`Config::connect_socket`]: `CONNECT <port>\n`, then `OK <host port>\n` or `ERR <reason>\n` |
//! | host | one port of the guest | [`Config::publish`]: a Unix or TCP socket of its own, no handshake |
//! | guest | host (CID 2), port P | the Unix socket `<connect_socket>_<P>`; reset if nobody listens |
//! | guest | sibling (its CID) | [`Config::siblings`]: through the sibling's device, which checks who calls |
//!
//! A connection that the host makes before the guest's driver is ready waits for it, and for the
//! guest to listen. After that, a port on which the guest does not listen refuses at once (`ERR refused`, a closed published socket).
//! A reset reaches a TCP client as a reset; a Unix client sees the end of the stream.
//!
//! Not offered: SEQPACKET sockets (VIRTIO_VSOCK_F_SEQPACKET), datagrams (virtio has none).
//!
//! # How it works
//!
//! `connection` is the state machine of one connection, without I/O; start there. `link` carries
//! it out on a socket, `hub` holds all links and makes rounds over the queues (`ring`), `device`
//! has the threads. Sockets are edge-triggered and remembered as readable or writable, so that
//! a connection that waits for credit costs nothing; gates (listening sockets) are
//! level-triggered, since they are left alone when there is no room.
//!
//! The crate virtio-vsock is not used: its packets take one descriptor of payload at most, and
//! Linux sends more.

mod backend;
mod backlog;
mod callers;
mod complaints;
mod config;
mod connection;
mod credit;
mod deadlines;
mod delivery;
mod device;
mod error;
mod hub;
mod line;
mod link;
mod listener;
mod packet;
mod requests;
mod ring;
mod scatter;
mod siblings;
mod slots;
mod stream;

pub use config::{Config, FIRST_GUEST_CID, Limits, Publish, PublishAddress};
pub use device::{Device, State};
pub use error::Error;
