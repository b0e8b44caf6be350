//! Where lines go: each is kept in its unit's ring, and shown on the console.

use super::console::Console;
use super::store::{Cursor, Item, Store};
use crate::client;
use crate::control::Line;
use crate::manifest::{Manifest, UnitId};
use std::time::{SystemTime, UNIX_EPOCH};

/// The name that stands before what the activator itself says.
pub const ACTIVATOR: &str = "activator";

/// All that was said lately.
#[derive(Debug)]
pub struct Journal {
    /// By ring: [`ACTIVATOR`], then units in the order in which they came; each with its user. A
    /// ring stays what it is when the manifest changes, since clients may be reading it.
    names: Vec<(Option<String>, String)>,
    /// The same, as [`client::full_name`] writes it.
    shown: Vec<String>,
    /// The ring of each unit of the manifest.
    rings: Vec<usize>,
    store: Store,
    console: Option<Console>,
}

/// The ring of what the activator itself says.
const OWN: usize = 0;

impl Journal {
    /// Empty.
    pub fn new(manifest: &Manifest, console: Option<Console>) -> Self {
        let mut journal = Self {
            names: vec![(None, ACTIVATOR.to_owned())],
            shown: vec![ACTIVATOR.to_owned()],
            rings: vec![],
            store: Store::new(1),
            console,
        };
        journal.renumber(manifest);
        journal
    }

    /// From now on units are those of another manifest. One that is in both keeps its lines; of
    /// one that has been gone since the last time, they are dropped.
    pub fn renumber(&mut self, manifest: &Manifest) {
        let before = std::mem::take(&mut self.rings);
        for unit in &manifest.units {
            let user = manifest.user_of(unit).map(|user| user.name.as_str());
            let is_it =
                |(of, name): &(Option<String>, String)| of.as_deref() == user && *name == unit.name;
            // Not the first, which a unit of that name is not.
            let known = self.names.iter().skip(1).position(is_it).map(|index| index + 1);
            self.rings.push(known.unwrap_or_else(|| {
                self.names.push((user.map(str::to_owned), unit.name.clone()));
                self.shown.push(client::full_name(user, &unit.name));
                self.store.add()
            }));
        }
        for ring in 1..self.names.len() {
            if !self.rings.contains(&ring) && !before.contains(&ring) {
                self.store.clear(ring);
            }
        }
    }

    /// Keeps and shows one line; without a unit, or with one that is not in the manifest, it is
    /// the activator's own.
    pub fn log(&mut self, unit: Option<UnitId>, text: &str) {
        let ring = unit.and_then(|unit| self.rings.get(unit.index())).copied().unwrap_or(OWN);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.store.push(ring, u64::try_from(since.as_micros()).unwrap_or(u64::MAX), text);
        if let (Some(console), Some(name)) = (&mut self.console, self.shown.get(ring)) {
            console.push(name, text);
        }
    }

    /// Of one ring, or of all; see [`Store::cursor`].
    pub fn cursor(&self, unit: Option<UnitId>, follow: bool) -> Cursor {
        // A unit without a ring has no lines, as has a ring that does not exist.
        let ring = unit.map(|unit| self.rings.get(unit.index()).copied().unwrap_or(usize::MAX));
        self.store.cursor(ring, follow)
    }

    /// Of what the activator itself said.
    pub fn own_cursor(&self, follow: bool) -> Cursor {
        self.store.cursor(Some(OWN), follow)
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
