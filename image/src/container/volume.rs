//! `Volume=` and `AddDevice=`.

use crate::finding::Span;

/// `Volume=[SOURCE:]DESTINATION[:OPTIONS]`
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    /// What is mounted.
    pub source: VolumeSource,
    /// Absolute path in the container.
    pub destination: String,
    /// Behind the second colon.
    pub options: Vec<String>,
    /// Where it is, for findings.
    pub span: Span,
}

/// What a [`Volume`] mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeSource {
    /// A path of the guest: absolute, or beginning with `.`, which is meant from the unit's folder.
    Path(String),
    /// A volume of that name.
    Name(String),
    /// The volume of a `.volume` unit, by the unit's name.
    Unit(String),
    /// No source: a volume without a name, that goes with the container.
    Anonymous,
}

/// `AddDevice=[-]HOST[:CONTAINER[:PERMISSIONS]]`
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Absolute path in the guest; a folder means all devices in it.
    pub source: String,
    /// Absolute path in the container.
    pub destination: String,
    /// Of `r`, `w`, `m`; by default all three.
    pub permissions: String,
    /// Prefix `-`: one that is missing is left out.
    pub optional: bool,
    /// Where it is, for findings.
    pub span: Span,
}
