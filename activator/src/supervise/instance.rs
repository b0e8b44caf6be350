//! Instances of `Accept=yes`: each connection of a socket unit starts its template once more.
//!
//! A connection is accepted first and judged then, so that the client of one too many learns it
//! at once: `MaxConnections=` and `MaxConnectionsPerSource=` close it. The trigger limit is asked
//! before, and leaves the connection in the backlog until the pause is over.
//!
//! | slot | event | next |
//! |---|---|---|
//! | free | a connection is admitted | taken; its service has a start job |
//! | taken | the service is dead or failed | free, whatever the exit was (`CollectMode=`) |
//!
//! A slot's service goes through the same phases as any other. It is no node of the graph: what
//! the template requires, wants and conflicts with holds for each instance, and who stops the
//! template stops all of them. `Restart=` does nothing, since the connection is gone with the
//! process. The stop of the socket unit leaves instances alone; going down does not.

use super::check::Hold;
use super::{Cause, Job, JobKind, State, Supervisor, Turn, id};
use activator::control::{Event, Refusal, Report};
use activator::manifest::{Socket, UnitId, UnitKind};
use activator::peer::Peer;
use activator::wire;

/// Connections that one listener gets in one round; then it is the others' turn. What waits
/// still is found by the new watch.
const AT_ONCE: usize = 8;

/// What came of an accept(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// A connection, which the hands hold until it is kept or refused.
    Connection(Peer),
    /// One whose client has gone already.
    Aborted,
    /// Nobody waits.
    Nothing,
    /// No fd or no memory for it: errno. It waits on.
    Failed(i32),
}

/// The connection that a slot is taken by. Handed over by a reload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visitor {
    /// Its number among those of the socket unit, from 0.
    number: u64,
    peer: Peer,
}

wire! {
    struct Visitor { number, peer }
}

impl Supervisor<'_> {
    /// A listener of a socket unit with `Accept=yes` is readable; its watch has ended.
    pub(super) fn take_connections(&mut self, turn: &mut Turn, unit: UnitId, listener: u16) {
        for _ in 0..AT_ONCE {
            let Some(socket) = self.socket(unit) else { return };
            if let Err(until) = socket.take_trigger(turn.now) {
                return socket.pause(turn, unit, until);
            }
            match turn.hands.accept(unit, listener) {
                Accepted::Connection(peer) => self.admit(turn, unit, listener, peer),
                Accepted::Aborted => {}
                Accepted::Nothing => return socket.give_back_trigger(),
                Accepted::Failed(errno) => {
                    socket.give_back_trigger();
                    socket.retry_accept(turn, unit, listener, errno);
                    return;
                }
            }
        }
    }

    /// Gives a connection a slot, or closes it.
    fn admit(&mut self, turn: &mut Turn, unit: UnitId, listener: u16, peer: Peer) {
        let UnitKind::Socket(spec) = &self.spec(unit).kind else { return };
        let slot = match self.slot_for(unit, spec, &peer) {
            Ok(slot) => slot,
            Err(refusal) => {
                turn.hands.refuse();
                if let Some(socket) = self.socket(unit) {
                    socket.refused += 1;
                }
                return turn.hands.tell(Some(unit), Event::Refused(refusal));
            }
        };
        let Some(socket) = self.socket(unit) else { return };
        let number = socket.accepted;
        socket.accepted += 1;
        socket.triggered += 1;
        turn.hands.keep(slot, number);
        turn.hands.tell(Some(unit), Event::Triggered(listener));
        self.units[slot.index()].visitor = Some(Visitor { number, peer });
        self.start_instance(slot);
    }

    /// A free slot, if no limit is hit.
    fn slot_for(&self, unit: UnitId, spec: &Socket, peer: &Peer) -> Result<UnitId, Refusal> {
        let cid = |cid| spec.allow_cids.is_empty() || spec.allow_cids.contains(&cid);
        if let Peer::Vsock([_, (remote, _)]) = peer
            && !cid(*remote)
        {
            return Err(Refusal::Cid);
        }
        let slots = &self.units[self.slots.of(unit)];
        let free = slots.iter().position(|slot| slot.visitor.is_none());
        let free = free.ok_or(Refusal::Connections)?;
        let most = spec.accept.map_or(0, |accept| accept.max_per_source) as usize;
        if let Some(source) = peer.source()
            && most > 0
        {
            let same = |it: &&Visitor| it.peer.source() == Some(source);
            let visitors = slots.iter().filter_map(|slot| slot.visitor.as_ref());
            if visitors.filter(same).count() >= most {
                return Err(Refusal::Source);
            }
        }
        Ok(id(self.slots.of(unit).start + free))
    }

    /// Wants an instance up, with what its template requires and wants; what conflicts with it is
    /// wanted down.
    fn start_instance(&mut self, slot: UnitId) {
        let spec = self.spec(slot);
        for needed in spec.requires.iter().chain(&spec.wants) {
            self.start(*needed, Cause::Machine);
        }
        self.each_present(|it, other| {
            if other != slot.index() && it.conflict(slot.index(), other) && !it.is_down(id(other)) {
                it.want_down(other, JobKind::Stop);
            }
        });
        if let State::Service(service) = &mut self.units[slot.index()].state {
            // The start limit counts the starts of one instance, and each starts once.
            service.forgive();
        }
        let slot = &mut self.units[slot.index()];
        // What held the one before in this slot says nothing about this client.
        slot.hold = Hold::default();
        slot.job = Some(Job { kind: JobKind::Start, begun: false });
    }

    /// Frees the slots of instances that have ended.
    pub(super) fn free_slots(&mut self, turn: &mut Turn) {
        let mut next = self.manifest.units.len();
        while let Some(index) = self.awake_from(next) {
            next = index + 1;
            let over = self.units[index].job.is_none() && self.is_down(id(index));
            if over && self.units[index].visitor.take().is_some() {
                turn.hands.release(id(index));
            }
        }
    }

    /// Connections of a socket unit that have an instance now.
    pub(super) fn connections(&self, unit: UnitId) -> u32 {
        let slots = self.units[self.slots.of(unit)].iter();
        slots.filter(|slot| slot.visitor.is_some()).count() as u32
    }

    /// The first report about this unit or slot, or one behind it that has something to say, and
    /// where to go on. None past the last.
    pub(crate) fn report_from(&self, from: u16) -> Option<(Report, u16)> {
        let end = u16::try_from(self.units.len()).unwrap_or(u16::MAX);
        (from..end).find_map(|index| {
            let unit = UnitId(index);
            let report = match self.slots.owner(unit) {
                None => self.report(unit)?,
                Some(_) => self.instance_report(unit)?,
            };
            Some((report, index.saturating_add(1)))
        })
    }

    fn instance_report(&self, unit: UnitId) -> Option<Report> {
        let slot = self.slots.owner(unit)?;
        let Visitor { number, peer } = self.units[unit.index()].visitor?;
        let Some(Report::Service { state, main_pid, .. }) = self.report(unit) else { return None };
        let (template, socket) = (slot.template, slot.socket);
        Some(Report::Instance { template, socket, number, peer, state, main_pid })
    }
}
