//! `DevicePolicy=`, `DeviceAllow=`, `IPAddressAllow=`, `IPAddressDeny=` of
//! systemd.resource-control(5): eBPF programs at the unit's cgroup, which hold for all that runs in
//! it and below, whatever its rights are.
//!
//! Packets are filtered by the sockets that they belong to, and sockets belong to the cgroup of
//! who made them: a socket that PID 1 listens on, and its connections, are not the service's, and
//! pass whatever the service says. So `IPAddressDeny=any` is a service that can be called, and
//! calls nobody. Under systemd it is the same. Where the kernel takes no programs (a container
//! without CAP_BPF), systemd goes on without; here the service fails: nothing that was asked to be
//! confined runs less confined.
//!
//! Each command of the unit puts the programs there in the place of those that were there, which
//! may be of a manifest before. Where the new one has none, PID 1 takes them away.

mod program;

use super::call::Subject;
use super::error::{At, Failed, Stage};
use super::glob;
use crate::bpf::{self, Hook};
use crate::manifest::{Device, DeviceRule, Devices, Network, Sandbox, Service, UnitKind};
use program::{ADDRESS, Rule, Test, Verdict, Way, device};
use rustix::fs::{self, CWD, FileType, Mode, OFlags};
use std::os::fd::AsFd;

/// All of them. Where services have no cgroups (`activator run` in a container without them) there
/// is nothing to put them at: as under systemd, the service runs all the same, and its log says so.
pub(super) fn apply(subject: &Subject, sandbox: &Sandbox, streams: &[&str]) -> Result<(), Failed> {
    if !sandbox.has_filters() {
        return Ok(());
    }
    let devices = sandbox.devices.as_ref();
    let (allowed, denied) = (&sandbox.allowed_addresses, &sandbox.denied_addresses);
    let Some(path) = own_cgroup(subject) else {
        if devices.is_some_and(|it| it.explicit) || !denied.is_empty() {
            super::say("there are no cgroups here, and so no filters of devices and addresses");
        }
        return Ok(());
    };
    let failed = || format!("filter what {path} may use");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let cgroup = fs::openat(CWD, &path, flags, Mode::empty()).at(Stage::Cgroup, failed)?;
    let put = |hook, program: Option<Vec<_>>| {
        bpf::replace(cgroup.as_fd(), hook, program.as_deref()).at(Stage::Cgroup, failed)
    };
    let put_devices =
        put(Hook::Device, devices.map(|it| program::of_devices(&device_rules(it, streams))));
    // In a container's cgroup without bpf(2), what implies them still does all the rest.
    if devices.is_none_or(|it| it.explicit) {
        put_devices?;
    }
    let (ipv4, ipv6) = (address_rules(4, allowed, denied), address_rules(16, allowed, denied));
    let of_packets = |way| (!denied.is_empty()).then(|| program::of_packets(way, &ipv4, &ipv6));
    let put_packets = put(Hook::Ingress, of_packets(Way::In))
        .and_then(|()| put(Hook::Egress, of_packets(Way::Out)));
    if !denied.is_empty() {
        put_packets?;
    }
    Ok(())
}

/// The cgroup of the unit, or of the instance, that this process is in. Commands of containers and
/// of delegated cgroups are one level below.
fn own_cgroup(subject: &Subject) -> Option<String> {
    let memberships = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let below = match &subject.unit.kind {
        UnitKind::Service(Service { container: Some(_), .. }) => "/runtime",
        UnitKind::Service(Service { delegate: true, .. }) => "/.control",
        _ => "",
    };
    cgroup_of(&memberships, &subject.manifest.place(&subject.unit), below)
}

/// None if it is another's: of an activator, perhaps, in whose service this one runs.
fn cgroup_of(memberships: &str, place: &str, below: &str) -> Option<String> {
    const MOUNT: &str = "/sys/fs/cgroup";
    let path = memberships.lines().find_map(|line| line.strip_prefix("0::"))?;
    let own = path.strip_suffix(below).unwrap_or(path);
    let instance = own.strip_prefix("/rouse/")?.strip_prefix(place)?;
    (instance.is_empty() || instance.starts_with('/')).then(|| format!("{MOUNT}{own}"))
}

/// What every service may use that may use anything: `DevicePolicy=closed`. The numbers are those
/// of devices.txt of the kernel's documentation.
const STANDARD: [(u32, Option<u32>, u8); 8] = [
    (1, Some(3), EVERY_ACCESS), // null
    (1, Some(5), EVERY_ACCESS), // zero
    (1, Some(7), EVERY_ACCESS), // full
    (1, Some(8), EVERY_ACCESS), // random
    (1, Some(9), EVERY_ACCESS), // urandom
    (5, Some(0), EVERY_ACCESS), // tty
    (5, Some(2), EVERY_ACCESS), // ptmx
    (136, None, READ | WRITE),  // pts
];

const READ: u8 = DeviceRule::READ;
const WRITE: u8 = DeviceRule::WRITE;
const EVERY_ACCESS: u8 = DeviceRule::MAKE | READ | WRITE;
/// BPF_DEVCG_DEV_*.
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;

/// `streams` are devices that the unit has open already.
fn device_rules(devices: &Devices, streams: &[&str]) -> Vec<Rule> {
    let mut rules = vec![];
    let numbers = streams.iter().filter_map(|path| numbers_of(path));
    rules.extend(numbers.map(|(kind, major, minor)| device_rule(kind, major, minor, READ | WRITE)));
    if devices.standard {
        let all = STANDARD.iter();
        rules.extend(
            all.map(|(major, minor, access)| device_rule(CHARACTER, Some(*major), *minor, *access)),
        );
    }
    for DeviceRule { device, access } in &devices.rules {
        let add = |(kind, major, minor)| device_rule(kind, major, minor, *access);
        match device {
            Device::Path(path) => rules.extend(numbers_of(path).map(add)),
            Device::Character(names) => rules.extend(majors(CHARACTER, names).into_iter().map(add)),
            Device::Block(names) => rules.extend(majors(BLOCK, names).into_iter().map(add)),
        }
    }
    rules
}

/// Kind, major and minor number; None is any.
type Numbers = (u32, Option<u32>, Option<u32>);

/// A device that is not there (yet) cannot be used, under systemd either. As there, one can be
/// named by its numbers: `/dev/char/10:200`.
fn numbers_of(path: &str) -> Option<Numbers> {
    let named = |folder, kind| {
        let (major, minor) = path.strip_prefix(folder)?.split_once(':')?;
        Some((kind, Some(major.parse().ok()?), Some(minor.parse().ok()?)))
    };
    if let Some(numbers) = named("/dev/char/", CHARACTER).or_else(|| named("/dev/block/", BLOCK)) {
        return Some(numbers);
    }
    let found = fs::stat(path).ok()?;
    let kind = match FileType::from_raw_mode(found.st_mode) {
        FileType::CharacterDevice => CHARACTER,
        FileType::BlockDevice => BLOCK,
        _ => return None,
    };
    Some((kind, Some(fs::major(found.st_rdev)), Some(fs::minor(found.st_rdev))))
}

/// Those of the drivers with such a name, or of that number.
fn majors(kind: u32, names: &str) -> Vec<Numbers> {
    let drivers = std::fs::read_to_string("/proc/devices").unwrap_or_default();
    majors_in(&drivers, kind, names)
}

fn majors_in(drivers: &str, kind: u32, names: &str) -> Vec<Numbers> {
    if names == "*" {
        return vec![(kind, None, None)];
    }
    if let Ok(major) = names.parse() {
        return vec![(kind, Some(major), None)];
    }
    let heading = match kind {
        BLOCK => "Block devices:",
        _ => "Character devices:",
    };
    let lines = drivers.lines().skip_while(|line| *line != heading).skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    let of = |line: &str| {
        let (major, name) = line.trim_start().split_once(' ')?;
        glob::matches(names, name.trim()).then_some((kind, Some(major.parse().ok()?), None))
    };
    lines.filter_map(of).collect()
}

fn device_rule(kind: u32, major: Option<u32>, minor: Option<u32>, access: u8) -> Rule {
    let is = |register, value| Test { register, mask: u32::MAX, value };
    let mut tests = vec![is(device::KIND, kind)];
    if access != EVERY_ACCESS {
        let others = u32::from(EVERY_ACCESS & !access);
        tests.push(Test { register: device::ACCESS, mask: others, value: 0 });
    }
    tests.extend(major.map(|major| is(device::MAJOR, major)));
    tests.extend(minor.map(|minor| is(device::MINOR, minor)));
    (tests, Verdict::Allow)
}

/// Those about addresses of so many bytes; none if nothing is refused.
fn address_rules(length: usize, allowed: &[Network], denied: &[Network]) -> Vec<Rule> {
    let of = |networks: &[Network], verdict| -> Vec<Rule> {
        let ours = networks.iter().filter(|network| network.address.len() == length);
        ours.map(|network| (address_tests(network), verdict)).collect()
    };
    let refused = of(denied, Verdict::Refuse);
    if refused.is_empty() {
        return vec![];
    }
    let mut rules = of(allowed, Verdict::Allow);
    rules.extend(refused);
    rules
}

fn address_tests(network: &Network) -> Vec<Test> {
    let mut tests = vec![];
    let mut left = u32::from(network.prefix);
    for (register, word) in ADDRESS.into_iter().zip(network.address.chunks(4)) {
        let mask = u32::MAX.checked_shl(32_u32.saturating_sub(left)).unwrap_or(0);
        left = left.saturating_sub(32);
        if mask == 0 {
            break;
        }
        // As the machine reads what is in the order of the network.
        let mask = mask.to_be();
        let value = word.try_into().map_or(0, u32::from_ne_bytes) & mask;
        tests.push(Test { register, mask, value });
    }
    tests
}

#[cfg(test)]
mod tests;
