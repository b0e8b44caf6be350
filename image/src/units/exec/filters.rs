//! `DevicePolicy=`, `DeviceAllow=`, `IPAddressAllow=` and `IPAddressDeny=`,
//! systemd.resource-control(5). Stage 2 makes programs of them, for the unit's cgroup.

use crate::units::keys::Keys;
use crate::units::value::{self, Expected};
use activator::manifest::{Device, DeviceRule, Devices, Network, Sandbox};
use std::net::IpAddr;

/// Reads all of them.
pub(super) fn read(keys: &mut Keys<'_>, section: &str, sandbox: &mut Sandbox) {
    sandbox.devices = devices(keys, section, sandbox);
    sandbox.allowed_addresses = addresses(keys, section, "IPAddressAllow");
    sandbox.denied_addresses = addresses(keys, section, "IPAddressDeny");
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Auto,
    Closed,
    Strict,
}

fn devices(keys: &mut Keys<'_>, section: &str, sandbox: &Sandbox) -> Option<Devices> {
    let policies: &'static [&str] = &["auto", "closed", "strict"];
    let policy = keys.setting(section, "DevicePolicy", |text| {
        value::one_of(text, policies, &[Policy::Auto, Policy::Closed, Policy::Strict])
    });
    let mut rules = vec![];
    for line in keys.list(section, "DeviceAllow") {
        let Some(text) = keys.expand(line) else { continue };
        match rule(&text.text) {
            Ok(_) if rules.len() == Sandbox::MOST_DEVICES => {
                keys.bad(line, &Expected::Other("at most 256 lines in all"));
                break;
            }
            Ok(rule) => rules.push(rule),
            Err(expected) => keys.bad(line, &expected),
        }
    }
    let policy = policy.unwrap_or(Policy::Auto);
    let explicit = policy != Policy::Auto || !rules.is_empty();
    if !explicit && !sandbox.private_devices {
        return None;
    }
    if sandbox.protect_clock {
        // systemd.exec(5). Alone it closes nothing: systemd adds it to a list that there is.
        rules
            .push(DeviceRule { device: Device::Character("rtc".into()), access: DeviceRule::READ });
    }
    Some(Devices { standard: policy != Policy::Strict, rules, explicit })
}

/// A device or drivers, and perhaps what may be done with it; all of it without.
fn rule(text: &str) -> Result<DeviceRule, Expected> {
    const DEVICE: Expected = Expected::Other(
        "a path below /dev, `char-NAME` or `block-NAME`, and perhaps `rwm` of them",
    );
    let (name, access) = text.split_once(char::is_whitespace).unwrap_or((text, "rwm"));
    let device = if name.starts_with("/dev/") {
        Device::Path(value::path(name)?)
    } else {
        match name.split_once('-') {
            Some(("char", names)) if !names.is_empty() => Device::Character(names.into()),
            Some(("block", names)) if !names.is_empty() => Device::Block(names.into()),
            _ => return Err(DEVICE),
        }
    };
    let bit = |letter| match letter {
        'm' => Ok(DeviceRule::MAKE),
        'r' => Ok(DeviceRule::READ),
        'w' => Ok(DeviceRule::WRITE),
        _ => Err(DEVICE),
    };
    let bits = access.trim().chars().map(bit);
    let access = bits.reduce(|a, b| Ok(a? | b?)).unwrap_or(Err(DEVICE))?;
    Ok(DeviceRule { device, access })
}

fn addresses(keys: &mut Keys<'_>, section: &str, key: &str) -> Vec<Network> {
    let mut all = vec![];
    for (line, word) in keys.list_words(section, key) {
        let Some(networks) = networks(&word.text) else {
            let expected = "an address, perhaps with `/` and the length of a prefix, or `any`, \
                            `localhost`, `link-local` or `multicast`";
            keys.bad_word(line, &word, &Expected::Other(expected));
            continue;
        };
        let before = all.len();
        all.extend(networks);
        if before <= Sandbox::MOST_ADDRESSES && all.len() > Sandbox::MOST_ADDRESSES {
            keys.bad_word(line, &word, &Expected::Other("at most 1,000 addresses in all"));
        }
    }
    all
}

fn networks(text: &str) -> Option<Vec<Network>> {
    let words: &[&str] = match text {
        "any" => &["0.0.0.0/0", "::/0"],
        "localhost" => &["127.0.0.0/8", "::1/128"],
        "link-local" => &["169.254.0.0/16", "fe80::/64"],
        "multicast" => &["224.0.0.0/4", "ff00::/8"],
        text => &[text],
    };
    words.iter().map(|text| network(text)).collect()
}

fn network(text: &str) -> Option<Network> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address = match address.parse().ok()? {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let whole = i64::try_from(8 * address.len()).ok()?;
    let prefix = prefix.map_or(Some(whole), |text| value::number(text, 0, whole).ok())?;
    Some(Network { address, prefix: prefix as u8 })
}
