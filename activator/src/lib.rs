//! Socket activation without systemd.
//!
//! This crate is the guest's side of an appliance: the types that host and guest share
//! ([`manifest`], [`control`]), and what its two static programs have in common: `init`, which is PID
//! 1 or runs beside another init, and `activator`, which people, services and PID 1 execute.
//!
//! Principles:
//! * PID 1 parses no text. The host compiled it all into one checked manifest.
//! * After start-up PID 1 allocates nothing, blocks on nothing, and panics on no input.
//! * Limits slow down and recover; a socket is never closed because a service misbehaved.
//! * The state machine is pure: events and time in, actions out.
//!
//! It will not: read unit files, pull images, do DHCP itself.

pub mod address;
pub mod bpf;
pub mod child;
pub mod client;
pub mod control;
pub mod ctl;
pub mod exit;
pub mod foreign;
pub mod inherit;
pub mod interface;
mod json;
pub mod listen;
pub mod logd;
pub mod manifest;
pub mod needs;
pub mod notification;
pub mod peer;
pub mod remote;
pub mod signals;
pub mod stage2;
pub mod sys;
pub mod variables;
pub mod vsock;
pub mod wire;

/// Where an image has the program of people, services and PID 1's children.
pub const ACTIVATOR: &str = "/usr/lib/rouse/activator";
/// Where it has PID 1, beside that.
pub const INIT: &str = "/usr/lib/rouse/init";
