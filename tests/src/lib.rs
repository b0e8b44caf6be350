//! What the end-to-end tests share: the command under test, VMs that end with their test, tools.
//!
//! Everything is fetched and built by `rouse` itself into a cache below `target/`, so that a
//! clean clone starts with an empty one. Counts come from the environment and are printed.

mod architecture;
pub mod bundles;
mod command;
pub mod container_registry;
mod count;
pub mod daemons;
pub mod fuzz;
mod golden;
pub mod images;
mod mirror;
pub mod oracle;
pub mod podman;
mod programs;
mod skipped;
mod tools;
mod units;
mod vm;

pub use architecture::{ARCHITECTURES, INIT_LIMIT, foreign};
pub use command::{Output, Rouse, cache};
pub use count::count;
pub use golden::{golden, mask, mask_hashes};
pub use mirror::{Fault, Mirror, packages};
pub use programs::{build_activator, programs};
pub use skipped::skipped;
pub use tools::{debian, debian_command, debian_path, socat};
pub use units::Units;
pub use vm::{Appliance, Vm, feed};
