//! Another manifest takes over: from a client or a file to PID 1, and from PID 1 to our own tables.

use super::{ClientId, Logd, Passed, Source, find};
use crate::control::{Failure, Reply, Unfit};
use crate::logd::connection::State;
use crate::logd::split::Splitter;
use crate::logd::upload::{self, Goods};
use crate::manifest::{Manifest, UnitId};
use rustix::fd::OwnedFd;
use std::time::Instant;

/// The number of no client: they are counted from 1.
const NOBODY: ClientId = 0;

impl Logd {
    /// All of a client's manifest is there: it is tried, and goes to PID 1.
    pub(super) fn take_upload(&mut self, id: ClientId, now: Instant) {
        let Some(client) = find(&mut self.connections, id) else { return };
        let State::Receiving(receiving) = std::mem::replace(&mut client.state, State::Request)
        else {
            return;
        };
        let checked = receiving.finish().and_then(|goods| {
            goods.check(&self.manifest)?;
            Ok(goods)
        });
        match checked {
            Ok(goods) => match self.pid1.replace(goods, id) {
                true => client.state = State::Ordered(None),
                false => client.reply(&Reply::Failed(Failure::Replace(Unfit::Busy)), now),
            },
            Err(why) => client.reply(&Reply::Failed(Failure::Replace(why)), now),
        }
    }

    /// Somebody sent PID 1 a SIGHUP: the manifest's file is tried, and goes to PID 1.
    pub(super) fn reread(&mut self) {
        let Some(source) = &self.source else { return };
        let checked = Goods::of_file(source).and_then(|goods| {
            goods.check(&self.manifest)?;
            Ok(goods)
        });
        match checked {
            // Whoever sent the signal waits for no answer.
            Ok(goods) => _ = self.pid1.replace(goods, NOBODY),
            Err(why) => {
                let text = format!("cannot take the manifest {}: {why}", source.display());
                self.journal.log(None, &text);
            }
        }
    }

    /// PID 1 has another manifest: rings, clients and orders that wait go by its ids from now on.
    fn use_manifest(&mut self, fd: OwnedFd, now: Instant) {
        let manifest = upload::read(&fd).ok().and_then(|bytes| Manifest::decode(&bytes).ok());
        // One that we cannot read is for our successor, who is on its way.
        let Some(manifest) = manifest else { return };
        let old = std::mem::replace(&mut self.manifest, manifest);
        let (old, new) = (&old, &self.manifest);
        let renumber = |id: UnitId| {
            let unit = old.unit(id)?;
            let user = old.user_of(unit).map(|user| user.name.as_str());
            new.units.iter().position(|other| {
                other.name == unit.name && new.user_of(other).map(|user| user.name.as_str()) == user
            })
        };
        let renumber = |id| renumber(id).and_then(|index| u16::try_from(index).ok()).map(UnitId);
        self.journal.renumber(new);
        self.sources.retain_mut(|source| {
            let known = renumber(source.unit);
            if let Some(unit) = known {
                source.unit = unit;
            }
            known.is_some()
        });
        let mut lost = self.pid1.renumber(renumber);
        for client in &mut self.connections {
            let unit = match &mut client.state {
                State::Ordered(Some((unit, _))) => unit,
                State::Settling(settling) => &mut settling.unit,
                _ => continue,
            };
            match renumber(*unit) {
                Some(id) => *unit = id,
                None => lost.push(client.id),
            }
        }
        for id in lost {
            if let Some(client) = find(&mut self.connections, id) {
                let gone = Failure::NoSuchUnit("of that name any more".to_owned());
                client.reply(&Reply::Failed(gone), now);
            }
        }
    }

    /// PID 1 has taken what that client, or somebody else, wanted it to, or has not.
    pub(super) fn replaced(
        &mut self,
        client: Option<ClientId>,
        manifest: Option<Passed>,
        now: Instant,
    ) {
        let reply = match manifest {
            Some(Passed(fd)) => {
                self.use_manifest(fd, now);
                self.journal.log(None, "took another manifest");
                Reply::Done
            }
            None => {
                self.journal.log(None, "kept its manifest, the other could not be taken");
                Reply::Failed(Failure::Replace(Unfit::NotTaken))
            }
        };
        if let Some(client) = client.and_then(|id| find(&mut self.connections, id)) {
            client.reply(&reply, now);
        }
    }

    /// The log of a unit that is new.
    pub(super) fn add_source(&mut self, unit: UnitId, pipe: OwnedFd) {
        // Non-blocking, as the others.
        let _ = rustix::io::ioctl_fionbio(&pipe, true);
        self.sources.push(Source { unit, pipe, splitter: Splitter::default() });
    }
}
