//! What a client's two frames ask for, and whether it may.

use super::connection::{State, Trust};
use super::journal::{ACTIVATOR, Journal};
use super::orders::{ClientId, Pid1};
use super::status::Wish;
use super::token::Token;
use super::upload::Receiving;
use crate::control::{Failure, Hello, Order, Request, UnitName, VERSION, Whose};
use crate::manifest::{Manifest, Owner, ServiceKind, UnitId, UnitKind};
use crate::wire;
use crate::wire::Reader;

/// Whether a Hello lets its client in.
pub fn greet(token: Option<&Token>, trust: Trust, hello: &[u8]) -> Result<(), Failure> {
    // The version first: what follows it may look different in another one.
    let mut reader = Reader::new(hello);
    reader.open();
    match reader.value::<u32>() {
        Some(VERSION) => {}
        Some(_) => return Err(Failure::Version(VERSION)),
        None => return Err(Failure::BadRequest),
    }
    let hello: Hello = wire::from_bytes(hello).map_err(|_| Failure::BadRequest)?;
    match trust {
        Trust::Given => Ok(()),
        Trust::ByToken if token.is_some_and(|token| token.matches(&hello.token)) => Ok(()),
        Trust::ByToken | Trust::Denied => Err(Failure::Denied),
    }
}

/// Takes up a request: what its client waits for from now on.
pub fn begin(
    manifest: &Manifest,
    journal: &Journal,
    pid1: &mut Pid1,
    client: ClientId,
    request: &Request,
) -> Result<State, Failure> {
    let unit = |name: &UnitName| find(manifest, name);
    let (order, wish) = match request {
        Request::Status => return Ok(State::Status(pid1.want_snapshot())),
        Request::Logs { unit: name, follow } => {
            let cursor = match name {
                None => journal.cursor(None, *follow),
                Some(own) if *own == ACTIVATOR.into() => journal.own_cursor(*follow),
                Some(name) => journal.cursor(Some(unit(name)?), *follow),
            };
            return Ok(State::Logs(cursor, *follow));
        }
        Request::Start(name) => unit(name).map(|id| (Order::Start(id), Some((id, Wish::Up))))?,
        Request::Stop(name) => unit(name).map(|id| (Order::Stop(id), Some((id, Wish::Down))))?,
        Request::Restart(name) => {
            unit(name).map(|id| (Order::Restart(id), Some((id, Wish::Up))))?
        }
        Request::ReloadUnit(name) => {
            let id = unit(name)?;
            if !can_reload(manifest, id) {
                return Err(Failure::CannotReload);
            }
            (Order::ReloadUnit(id), Some((id, Wish::Reloaded)))
        }
        Request::Poweroff => (Order::Poweroff, None),
        Request::Replace(upload) => {
            let receiving = Receiving::begin(upload).map_err(Failure::Replace)?;
            return Ok(State::Receiving(Box::new(receiving)));
        }
    };
    pid1.order(order, client);
    Ok(State::Ordered(wish))
}

/// The unit that a person means; without a type it is a service.
fn find(manifest: &Manifest, unit: &UnitName) -> Result<UnitId, Failure> {
    let owner = owner(manifest, &unit.whose)?;
    let name = &unit.name;
    let full = manifest
        .find_of(owner, name)
        .or_else(|| manifest.find_of(owner, &format!("{name}.service")));
    full.ok_or_else(|| Failure::NoSuchUnit(name.clone()))
}

/// Whether there is anything that a reload of the unit would do.
fn can_reload(manifest: &Manifest, id: UnitId) -> bool {
    let Some(unit) = manifest.unit(id) else { return false };
    let itself = match &unit.kind {
        UnitKind::Service(it) => !it.reload.is_empty() || it.kind == ServiceKind::NotifyReload,
        _ => false,
    };
    itself || !unit.reloads.is_empty()
}

fn owner(manifest: &Manifest, whose: &Whose) -> Result<Owner, Failure> {
    let index = match whose {
        Whose::System => return Ok(None),
        Whose::SoleUser if manifest.users.len() == 1 => Some(0),
        Whose::SoleUser => {
            let names = manifest.users.iter().map(|user| user.name.clone());
            return Err(Failure::WhichUser(names.collect()));
        }
        Whose::User(name) => manifest.users.iter().position(|user| user.name == *name),
    };
    let index = index.and_then(|index| u16::try_from(index).ok());
    match (index, whose) {
        (None, Whose::User(name)) => Err(Failure::NoSuchUser(name.clone())),
        (index, _) => Ok(index),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Lingering, Unit};

    #[test]
    fn units_are_found_by_owner_and_name() {
        let unit = |owner| Unit { name: "a.service".into(), owner, ..Unit::default() };
        let user = |name: &str| Lingering { name: name.into(), ..Lingering::default() };
        let mut manifest = Manifest {
            users: vec![user("ann")],
            units: vec![unit(None), unit(Some(0))],
            ..Manifest::default()
        };
        let of = |manifest: &Manifest, whose| find(manifest, &UnitName { name: "a".into(), whose });
        assert_eq!(of(&manifest, Whose::System), Ok(UnitId(0)));
        assert_eq!(of(&manifest, Whose::SoleUser), Ok(UnitId(1)));
        assert_eq!(of(&manifest, Whose::User("ann".into())), Ok(UnitId(1)));
        let nobody = Failure::NoSuchUser("bob".into());
        assert_eq!(of(&manifest, Whose::User("bob".into())), Err(nobody));
        manifest.users.push(user("bob"));
        let which = Failure::WhichUser(vec!["ann".into(), "bob".into()]);
        assert_eq!(of(&manifest, Whose::SoleUser), Err(which));
        let missing = Failure::NoSuchUnit("a".into());
        assert_eq!(of(&manifest, Whose::User("bob".into())), Err(missing));
    }
}
