//! One file a measure.

pub(crate) mod activation;
pub(crate) mod boot;
pub(crate) mod build;
pub(crate) mod container;
pub(crate) mod image;
pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod network;
pub(crate) mod relay;
pub(crate) mod relay_vsock;
pub(crate) mod vsock;
