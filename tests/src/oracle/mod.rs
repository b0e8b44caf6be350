//! The comparison with real systemd: the same unit files under `systemd --user` and under the
//! activator, and what a probe saw under each.
//!
//! The way of the data: [`case`] reads the groups in `tests/systemd/*.units`; [`ours`] compiles
//! them as an appliance's units; [`stage`] makes namespaces with the same file tree, accounts and
//! network for either side; [`driver`] starts the [`manager`] there, does what a case says, and
//! collects what the probes report; [`compare`] sets the two side by side, and [`divergence`]
//! reads the table of the differences that are meant, `activator/DIVERGENCES.md`.
//!
//! All cases of a side run in one instance, each with names, ports and files of its own.

pub mod case;
pub mod collector;
pub mod compare;
pub mod divergence;
pub mod driver;
pub mod manager;
pub mod ours;
pub mod stage;
