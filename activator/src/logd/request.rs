//! What a client's two frames ask for, and whether it may.

use super::connection::{State, Trust};
use super::journal::{ACTIVATOR, Journal};
use super::orders::{ClientId, Pid1};
use super::status::Wish;
use super::token::Token;
use crate::control::{Failure, Hello, Order, Request, VERSION};
use crate::manifest::Manifest;

/// Whether a Hello lets its client in.
pub fn greet(token: Option<&Token>, trust: Trust, hello: &[u8]) -> Result<(), Failure> {
    // The version first: what follows it may look different in another one.
    match postcard::take_from_bytes::<u32>(hello) {
        Ok((VERSION, _)) => {}
        Ok(_) => return Err(Failure::Version(VERSION)),
        Err(_) => return Err(Failure::BadRequest),
    }
    let hello: Hello = postcard::from_bytes(hello).map_err(|_| Failure::BadRequest)?;
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
    let unit = |name: &String| {
        let full = manifest.find(name).or_else(|| manifest.find(&format!("{name}.service")));
        full.ok_or_else(|| Failure::NoSuchUnit(name.clone()))
    };
    let (order, wish) = match request {
        Request::Status => return Ok(State::Status(pid1.want_snapshot())),
        Request::Logs { unit: name, follow } => {
            let cursor = match name.as_deref() {
                None => journal.cursor(None, *follow),
                Some(ACTIVATOR) => journal.own_cursor(*follow),
                Some(name) => journal.cursor(Some(unit(&name.to_owned())?), *follow),
            };
            return Ok(State::Logs(cursor, *follow));
        }
        Request::Start(name) => unit(name).map(|id| (Order::Start(id), Some((id, Wish::Up))))?,
        Request::Stop(name) => unit(name).map(|id| (Order::Stop(id), Some((id, Wish::Down))))?,
        Request::Restart(name) => {
            unit(name).map(|id| (Order::Restart(id), Some((id, Wish::Up))))?
        }
        Request::Poweroff => (Order::Poweroff, None),
    };
    pid1.order(order, client);
    Ok(State::Ordered(wish))
}
