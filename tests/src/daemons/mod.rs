//! Real daemons from Debian packages, activated by their packaged unit files where they have
//! them, each asked by a client of its own.
//!
//! The way of the data: [`daemon`] reads `tests/daemons/*.daemons`, each file with the packages
//! that its daemons and their clients need; [`tree`] has these unpacked, and compiles a daemon's
//! units as an appliance's; [`room`] runs them in namespaces of their own, with the packages'
//! files as the root, and asks.
//!
//! The packages' maintainer scripts are not run: accounts, and what configuration they would
//! write, are the test's own.

pub mod daemon;
pub mod room;
pub mod tree;
