//! Unit names: `prefix[@instance].type`, at most 255 bytes, and how anything is escaped into one.

use std::fmt;

/// What kind of unit a name is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Socket,
    Service,
    Target,
    /// Known to systemd, but not to this version: `timer`, `mount`, ...
    Other(&'static str),
}

const OTHERS: [&str; 8] =
    ["timer", "path", "mount", "automount", "swap", "slice", "scope", "device"];

/// Suffixes of all kinds.
pub(crate) fn kinds() -> impl Iterator<Item = &'static str> {
    ["socket", "service", "target"].into_iter().chain(OTHERS)
}

/// A valid name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    full: String,
    kind: Kind,
}

impl Name {
    /// Longest name in bytes.
    const LONGEST: usize = 255;

    /// None unless it is a valid unit name of a known type.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (stem, suffix) = text.rsplit_once('.')?;
        let kind = match suffix {
            "socket" => Kind::Socket,
            "service" => Kind::Service,
            "target" => Kind::Target,
            other => Kind::Other(OTHERS.into_iter().find(|known| *known == other)?),
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        let prefix = stem.split('@').next().unwrap_or_default();
        let fits = !prefix.is_empty() && text.len() <= Self::LONGEST && stem.chars().all(valid);
        fits.then(|| Self { full: text.to_owned(), kind })
    }

    /// Of a service that is not known yet.
    pub(crate) fn nameless() -> Self {
        Self { full: "quadlet.service".into(), kind: Kind::Service }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.full
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Without the type: `foo@bar`.
    pub(crate) fn stem(&self) -> &str {
        self.full.rsplit_once('.').map_or(&self.full, |(stem, _)| stem)
    }

    /// Up to the `@`: `foo`.
    pub(crate) fn prefix(&self) -> &str {
        self.stem().split_once('@').map_or(self.stem(), |(prefix, _)| prefix)
    }

    /// What follows the `@`; empty for a template.
    pub(crate) fn instance(&self) -> Option<&str> {
        self.stem().split_once('@').map(|(_, instance)| instance)
    }

    /// `foo@.service`
    pub(crate) fn is_template(&self) -> bool {
        self.instance() == Some("")
    }

    /// The template that an instance comes from.
    pub(crate) fn template(&self) -> Option<Self> {
        let suffix = &self.full[self.stem().len()..];
        let instance = self.instance()?;
        (!instance.is_empty())
            .then(|| Self { full: format!("{}@{suffix}", self.prefix()), kind: self.kind })
    }

    /// An instance of a template; the name itself if it is none.
    pub(crate) fn instantiate(&self, instance: &str) -> Option<Self> {
        if !self.is_template() {
            return Some(self.clone());
        }
        let suffix = &self.full[self.stem().len()..];
        Self::parse(&format!("{}@{instance}{suffix}", self.prefix()))
    }

    /// The same with another type: the service of a socket.
    pub(crate) fn with_type(&self, suffix: &str) -> Option<Self> {
        Self::parse(&format!("{}.{suffix}", self.stem()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

/// `systemd-escape --unescape`; what is no escape stays as it is.
pub(crate) fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'-', _) => {
                bytes.push(b'/');
                tail
            }
            (b'\\', [b'x', high, low, tail @ ..]) if hex(*high, *low).is_some() => {
                bytes.extend(hex(*high, *low));
                tail
            }
            _ => {
                bytes.push(*first);
                tail
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_prefix_instance_and_type() {
        let name = Name::parse("foo@bar-1.socket").unwrap();
        assert_eq!(
            (name.prefix(), name.instance(), name.stem()),
            ("foo", Some("bar-1"), "foo@bar-1")
        );
        assert_eq!(name.template().unwrap().as_str(), "foo@.socket");
        assert_eq!(name.with_type("service").unwrap().as_str(), "foo@bar-1.service");
        assert!(Name::parse("foo@.service").unwrap().is_template());
        for bad in ["foo", ".service", "@.service", "a b.service", "foo.servce", "ü.socket"] {
            assert_eq!(Name::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(r"var-lib\x2dx"), "var/lib-x");
        assert_eq!(unescape(r"\x2"), r"\x2");
    }
}
