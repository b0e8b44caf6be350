//! A vhost-user vsock device: the way between the host and a guest, without `/dev/vhost-vsock`.

mod config;
mod device;
mod error;
mod listener;

pub use config::{Config, FIRST_GUEST_CID, Limits, Publish, PublishAddress};
pub use device::{Device, State};
pub use error::Error;
