//! `RestrictAddressFamilies=`, `RestrictNamespaces=` and `SystemCallArchitectures=`.

use super::capabilities::inverted;
use crate::units::keys::Keys;
use crate::units::value::{self, Expected};
use std::collections::BTreeSet;

/// AF_* of socket(2), linux/socket.h.
const FAMILIES: [(&str, u32); 44] = [
    ("AF_UNIX", 1),
    ("AF_LOCAL", 1),
    ("AF_INET", 2),
    ("AF_AX25", 3),
    ("AF_IPX", 4),
    ("AF_APPLETALK", 5),
    ("AF_NETROM", 6),
    ("AF_BRIDGE", 7),
    ("AF_ATMPVC", 8),
    ("AF_X25", 9),
    ("AF_INET6", 10),
    ("AF_ROSE", 11),
    ("AF_NETBEUI", 13),
    ("AF_SECURITY", 14),
    ("AF_KEY", 15),
    ("AF_NETLINK", 16),
    ("AF_ROUTE", 16),
    ("AF_PACKET", 17),
    ("AF_ASH", 18),
    ("AF_ECONET", 19),
    ("AF_ATMSVC", 20),
    ("AF_RDS", 21),
    ("AF_SNA", 22),
    ("AF_IRDA", 23),
    ("AF_PPPOX", 24),
    ("AF_WANPIPE", 25),
    ("AF_LLC", 26),
    ("AF_IB", 27),
    ("AF_MPLS", 28),
    ("AF_CAN", 29),
    ("AF_TIPC", 30),
    ("AF_BLUETOOTH", 31),
    ("AF_IUCV", 32),
    ("AF_RXRPC", 33),
    ("AF_ISDN", 34),
    ("AF_PHONET", 35),
    ("AF_IEEE802154", 36),
    ("AF_CAIF", 37),
    ("AF_ALG", 38),
    ("AF_NFC", 39),
    ("AF_VSOCK", 40),
    ("AF_KCM", 41),
    ("AF_QIPCRTR", 42),
    ("AF_XDP", 44),
];

/// CLONE_NEW* of clone(2).
const NAMESPACES: [(&str, u64); 8] = [
    ("cgroup", 0x0200_0000),
    ("ipc", 0x0800_0000),
    ("net", 0x4000_0000),
    ("mnt", 0x0002_0000),
    ("pid", 0x2000_0000),
    ("user", 0x1000_0000),
    ("uts", 0x0400_0000),
    ("time", 0x0000_0080),
];

/// Whether the families are the allowed ones, and which they are; None allows all.
pub(super) fn address_families(keys: &mut Keys<'_>, section: &str) -> Option<(bool, Vec<u32>)> {
    let mut found: Option<(bool, BTreeSet<u32>)> = None;
    for line in keys.list(section, "RestrictAddressFamilies") {
        if line.value.text == "none" {
            found = Some((true, BTreeSet::new()));
            continue;
        }
        let Some(words) = keys.raw_words(line) else { continue };
        let (invert, words) = inverted(words.words);
        let (allow, families) = found.get_or_insert_with(|| (!invert, BTreeSet::new()));
        let adds = *allow != invert;
        for word in words {
            match FAMILIES.iter().find(|(name, _)| *name == word.text) {
                Some((_, number)) if adds => _ = families.insert(*number),
                Some((_, number)) => _ = families.remove(number),
                None => {
                    keys.bad_word(line, &word, &Expected::Other("`none`, or names such as AF_INET"))
                }
            }
        }
    }
    found.map(|(allow, families)| (allow, families.into_iter().collect()))
}

/// The CLONE_NEW* flags that are refused.
pub(super) fn namespaces(keys: &mut Keys<'_>, section: &str) -> u64 {
    let all = NAMESPACES.iter().fold(0, |all, (_, flag)| all | flag);
    let mut allowed: Option<u64> = None;
    for line in keys.list(section, "RestrictNamespaces") {
        if let Ok(restricted) = value::boolean(&line.value.text) {
            allowed = Some(if restricted { 0 } else { all });
            continue;
        }
        let Some(words) = keys.raw_words(line) else { continue };
        let (invert, words) = inverted(words.words);
        let mut flags = 0;
        for word in words {
            match NAMESPACES.iter().find(|(name, _)| *name == word.text) {
                Some((_, flag)) => flags |= flag,
                None => keys.bad_word(
                    line,
                    &word,
                    &Expected::OneOf(&[
                        "yes", "no", "cgroup", "ipc", "net", "mnt", "pid", "user", "uts", "time",
                    ]),
                ),
            }
        }
        let before = allowed.unwrap_or(if invert { all } else { 0 });
        allowed = Some(if invert { before & !flags } else { before | flags });
    }
    all & !allowed.unwrap_or(all)
}

/// Only the architecture of the image can be named.
pub(super) fn native_only(keys: &mut Keys<'_>, section: &str) -> bool {
    let native = keys.facts.input.architecture.systemd_name();
    let mut only = false;
    for (line, word) in keys.list_words(section, "SystemCallArchitectures") {
        match word.text == "native" || word.text == native {
            true => only = true,
            false => keys.bad_word(
                line,
                &word,
                &Expected::Other("native: programs of other architectures do not run here"),
            ),
        }
    }
    only
}
