//! Where lines go: each is kept in its unit's ring, and shown on the console.

use super::console::Console;
use super::store::{Cursor, Item, Store};
use crate::control::Line;
use crate::manifest::{Manifest, UnitId};
use std::time::{SystemTime, UNIX_EPOCH};

/// The name that stands before what the activator itself says.
pub const ACTIVATOR: &str = "activator";

/// All that was said lately.
#[derive(Debug)]
pub struct Journal {
    /// By ring: the units in the manifest's order, then [`ACTIVATOR`].
    names: Vec<String>,
    store: Store,
    console: Option<Console>,
}

impl Journal {
    /// Empty.
    pub fn new(manifest: &Manifest, console: Option<Console>) -> Self {
        let mut names: Vec<String> = manifest.units.iter().map(|unit| unit.name.clone()).collect();
        names.push(ACTIVATOR.to_owned());
        Self { store: Store::new(names.len()), names, console }
    }

    /// Keeps and shows one line; without a unit, or with one that is not in the manifest, it is
    /// the activator's own.
    pub fn log(&mut self, unit: Option<UnitId>, text: &str) {
        let own = self.names.len() - 1;
        let ring = unit.map(UnitId::index).filter(|index| *index < own).unwrap_or(own);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.store.push(ring, u64::try_from(since.as_micros()).unwrap_or(u64::MAX), text);
        if let (Some(console), Some(name)) = (&mut self.console, self.names.get(ring)) {
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
        let name = |ring: usize| self.names.get(ring).cloned().unwrap_or_default();
        Some(match self.store.next(cursor)? {
            Item::Line(ring, entry) => Line {
                realtime_us: entry.realtime_us,
                unit: name(ring),
                text: entry.text.to_string(),
            },
            Item::Lost(ring, next, count) => {
                Line { realtime_us: next, unit: name(ring), text: format!("{count} lines lost") }
            }
        })
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
