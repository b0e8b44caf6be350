//! Socket activation without systemd.
//!
//! This crate is the guest's side of an appliance: the types that host and guest share
//! ([`manifest`], [`control`]) and the one static binary `activator`, which is PID 1 or runs
//! beside another init.
//!
//! Principles:
//! * PID 1 parses no text. The host compiled it all into one checked manifest.
//! * After start-up PID 1 allocates nothing, blocks on nothing, and panics on no input.
//! * Limits slow down and recover; a socket is never closed because a service misbehaved.
//! * The state machine is pure: events and time in, actions out.
//!
//! It will not: read unit files, pull images, do DHCP itself.

pub mod address;
pub mod child;
pub mod client;
pub mod control;
pub mod ctl;
pub mod exit;
pub mod inherit;
pub mod interface;
mod json;
pub mod logd;
pub mod manifest;
pub mod needs;
pub mod notification;
pub mod peer;
pub mod stage2;
pub mod variables;
pub mod wire;
