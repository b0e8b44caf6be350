//! Engine podman: a `.container` becomes the service that runs `podman run`, as Podman's own
//! generator would write it (podman-systemd.unit(5)), but with findings that name the line, and
//! the same text every time. The rest of the way is that of any other service.
//!
//! Files of the other types go through Podman's generator itself: see [`Generator`].
//!
//! | | Podman's generator (5.4.2) | here |
//! |---|---|---|
//! | order of the options | another at every run | fixed |
//! | an empty argument | is lost | `""` |
//! | `Environment=NAME` without a value | is lost | `--env NAME` |
//! | an escape that does not exist | drops the line with a warning | an error |
//! | paths beside the file | those of the machine that it runs on | those in the guest, [`FOLDER`] |
//! | `AddDevice=-/dev/x` | depends on the machine that it runs on | refused, but for devices of every guest |
//! | keys of newer versions | refused | honoured where `podman run` has them |

mod command;
mod container;
mod devices;
mod generator;
mod health;
mod lines;
mod mappings;
mod order;
pub(crate) mod resources;
mod storage;

pub(crate) use container::make;
pub(in crate::units) use generator::run as generate;
pub use generator::{Complaint, Generated, Generator};
pub(crate) use health::Checks;
pub use health::ImageHealth;

use super::manager::Manager;

/// Where the guest has the Quadlet files of the appliance, and what they refer to beside them.
pub const FOLDER: &str = "/etc/containers/systemd";

/// Whether a file goes through Podman's generator.
pub fn is_of_the_generator(file: &str) -> bool {
    resources::section(file).is_some_and(|section| section != "Container")
}

/// The same of one manager.
pub(crate) fn folder(manager: &Manager) -> String {
    match manager.user() {
        None => FOLDER.to_owned(),
        Some(user) => format!("{FOLDER}/users/{}", user.uid),
    }
}
