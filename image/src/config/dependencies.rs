//! How much of the packages comes along that appliance.toml does not name.

use serde::Deserialize;

/// `dependencies`: what is taken of packages that others depend on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dependencies {
    /// All that runs.
    #[default]
    Whole,
    /// The shared libraries that programs of the named packages load, and their interpreters.
    Libraries,
}
