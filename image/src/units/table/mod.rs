//! Every key that systemd knows, in one of three classes; one line a key.
//!
//! The data is in the modules below, one for each manual page. A key that is in none of them is
//! unknown: a warning, as in systemd.

mod exec;
mod resource;
mod service;
mod socket;
mod unit;

use super::suggest;

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// It does what the manual says.
    Honoured,
    /// It has no effect, and nobody is worse off; says why, in words that follow the key.
    Harmless(&'static str),
    /// Leaving it out would weaken what its author asked for; says what is missing, in words
    /// that follow the key. An empty value, or one that reads as "no", asks for nothing.
    Refused(&'static str),
}

/// The manual page that explains a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    Unit,
    Install,
    Socket,
    Service,
    Exec,
    Kill,
    ResourceControl,
}

impl Page {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unit | Self::Install => "systemd.unit(5)",
            Self::Socket => "systemd.socket(5)",
            Self::Service => "systemd.service(5)",
            Self::Exec => "systemd.exec(5)",
            Self::Kill => "systemd.kill(5)",
            Self::ResourceControl => "systemd.resource-control(5)",
        }
    }
}

/// One line of the table.
pub(crate) type Key = (&'static str, Class);

const fn honoured(key: &'static str) -> Key {
    (key, Class::Honoured)
}

const fn harmless(key: &'static str, why: &'static str) -> Key {
    (key, Class::Harmless(why))
}

const fn refused(key: &'static str, why: &'static str) -> Key {
    (key, Class::Refused(why))
}

/// Nothing that a guest of this version has.
const NOT_YET: &str = "is not supported by this version";
/// A restriction of what a service may do.
const SANDBOX: &str = "is not supported by this version, and the service would run less confined";

/// The pages of a section; None if systemd does not know the section.
fn pages(section: &str) -> Option<&'static [(Page, &'static [Key])]> {
    Some(match section {
        "Unit" => &[(Page::Unit, unit::UNIT)],
        "Install" => &[(Page::Install, unit::INSTALL)],
        "Socket" => &[
            (Page::Socket, socket::KEYS),
            (Page::Exec, exec::KEYS),
            (Page::Kill, service::KILL),
            (Page::ResourceControl, resource::KEYS),
        ],
        "Service" => &[
            (Page::Service, service::KEYS),
            (Page::Exec, exec::KEYS),
            (Page::Kill, service::KILL),
            (Page::ResourceControl, resource::KEYS),
        ],
        _ => return None,
    })
}

/// Whether systemd knows a section in the units that this version builds.
pub(crate) fn is_section(section: &str) -> bool {
    pages(section).is_some()
}

/// Class and page of a key; None if systemd does not know it in that section.
pub(crate) fn find(section: &str, key: &str) -> Option<(Class, Page)> {
    let (page, class) = pages(section)?.iter().find_map(|(page, keys)| {
        keys.iter().find(|(known, _)| *known == key).map(|(_, class)| (*page, *class))
    })?;
    if section != "Socket" || page == Page::Socket {
        return Some((class, page));
    }
    if socket::ALSO_OF_THE_SOCKET.contains(&key) {
        let why = "is not supported in `[Socket]`: sockets are opened in the guest's own network";
        return Some((Class::Refused(why), page));
    }
    let class = match (page, class) {
        (Page::Kill, Class::Honoured) => {
            Class::Harmless("has no effect here: a late command gets SIGTERM, then SIGKILL")
        }
        (Page::ResourceControl, Class::Honoured) => {
            Class::Refused("is not supported in `[Socket]`: its commands have no cgroup of theirs")
        }
        (_, class) => class,
    };
    Some((class, page))
}

/// Whether a key only changes the commands of a unit: in `[Socket]`, those of other pages.
pub(crate) fn is_of_commands(section: &str, key: &str) -> bool {
    let page = find(section, key).map(|(_, page)| page);
    let own = matches!(page, None | Some(Page::Socket));
    section == "Socket" && !own && !socket::ALSO_OF_THE_SOCKET.contains(&key)
}

/// The known key of a section that is nearest to an unknown one.
pub(crate) fn nearest(section: &str, key: &str) -> Option<&'static str> {
    let keys = pages(section)?.iter().flat_map(|(_, keys)| keys.iter().map(|(key, _)| *key));
    suggest::nearest(key, keys)
}

/// The section that knows a key, for one that stands in the wrong place.
pub(crate) fn section_of(key: &str) -> Option<&'static str> {
    ["Unit", "Socket", "Service", "Install"]
        .into_iter()
        .find(|section| find(section, key).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_section_knows_a_key_twice() {
        for section in ["Unit", "Install", "Socket", "Service"] {
            let mut seen = BTreeSet::new();
            for (_, keys) in pages(section).unwrap() {
                for (key, _) in *keys {
                    assert!(seen.insert(*key), "[{section}] {key}");
                }
            }
        }
    }

    #[test]
    fn reasons_follow_the_key() {
        for section in ["Unit", "Install", "Socket", "Service"] {
            for (key, class) in pages(section).unwrap().iter().flat_map(|(_, keys)| *keys) {
                if let Class::Harmless(why) | Class::Refused(why) = class {
                    let fragment = why.starts_with(char::is_lowercase) && !why.ends_with('.');
                    assert!(fragment, "{key}: {why}");
                }
            }
        }
    }

    #[test]
    fn a_key_is_known_by_section() {
        assert_eq!(find("Socket", "ListenStream"), Some((Class::Honoured, Page::Socket)));
        assert_eq!(find("Service", "ListenStream"), None);
        assert_eq!(find("Socket", "ProtectHome"), Some((Class::Honoured, Page::Exec)));
        assert!(is_of_commands("Socket", "ProtectHome"));
        assert!(!is_of_commands("Socket", "PrivateNetwork"));
        assert!(!is_of_commands("Service", "ProtectHome"));
        assert!(matches!(find("Socket", "PrivateNetwork"), Some((Class::Refused(_), Page::Exec))));
        assert_eq!(nearest("Socket", "ListenStraem"), Some("ListenStream"));
        assert_eq!(section_of("ExecStart"), Some("Service"));
    }
}
