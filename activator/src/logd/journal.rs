//! Where lines go: each is kept in its unit's ring, and shown on the console.

use super::console::Console;
use super::store::{Cursor, Item, Store};
use crate::client;
use crate::control::Line;
use crate::manifest::{Manifest, Unit, UnitId};
use std::time::{SystemTime, UNIX_EPOCH};

/// The name that stands before what the activator itself says.
pub const ACTIVATOR: &str = "activator";

/// All that was said lately.
#[derive(Debug)]
pub struct Journal {
    /// By ring: the units in the manifest's order, then [`ACTIVATOR`]; each with its user.
    names: Vec<(Option<String>, String)>,
    /// The same, as [`client::full_name`] writes it.
    shown: Vec<String>,
    store: Store,
    console: Option<Console>,
}

impl Journal {
    /// Empty.
    pub fn new(manifest: &Manifest, console: Option<Console>) -> Self {
        let user = |unit: &Unit| manifest.user_of(unit).map(|user| user.name.clone());
        let units = manifest.units.iter();
        let mut names: Vec<_> = units.map(|unit| (user(unit), unit.name.clone())).collect();
        names.push((None, ACTIVATOR.to_owned()));
        let shown = names.iter().map(|(user, name)| client::full_name(user.as_deref(), name));
        Self { store: Store::new(names.len()), shown: shown.collect(), names, console }
    }

    /// Keeps and shows one line; without a unit, or with one that is not in the manifest, it is
    /// the activator's own.
    pub fn log(&mut self, unit: Option<UnitId>, text: &str) {
        let own = self.names.len() - 1;
        let ring = unit.map(UnitId::index).filter(|index| *index < own).unwrap_or(own);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.store.push(ring, u64::try_from(since.as_micros()).unwrap_or(u64::MAX), text);
        if let (Some(console), Some(name)) = (&mut self.console, self.shown.get(ring)) {
            console.push(name, text);
        }
    }

    /// Of one ring, or of all; see [`Store::cursor`].
    pub fn cursor(&self, unit: Option<UnitId>, follow: bool) -> Cursor {
        self.store.cursor(unit.map(UnitId::index), follow)
    }

    /// Of what the activator itself said.
    pub fn own_cursor(&self, follow: bool) -> Cursor {
        self.store.cursor(Some(self.names.len() - 1), follow)
    }

    /// The next line as clients get it.
    pub fn next(&self, cursor: &mut Cursor) -> Option<Line> {
        let (ring, realtime_us, text) = match self.store.next(cursor)? {
            Item::Line(ring, entry) => (ring, entry.realtime_us, entry.text.to_string()),
            Item::Lost(ring, next, count) => (ring, next, format!("{count} lines lost")),
        };
        let (user, unit) = self.names.get(ring).cloned().unwrap_or_default();
        Some(Line { realtime_us, unit, user, text })
    }

    /// The console, if there is one.
    pub fn console(&mut self) -> Option<&mut Console> {
        self.console.as_mut()
    }

    /// The console, if lines wait for it.
    pub fn waiting_console(&self) -> Option<&Console> {
        self.console.as_ref().filter(|console| console.waits())
    }
}
