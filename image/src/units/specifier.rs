//! `%` specifiers of the system manager, systemd.unit(5).
//!
//! `%` before anything but a letter or digit stays as it is; an unknown one spoils the value.

use super::name::{Name, unescape};
use std::ops::Range;

/// What the specifiers of one unit stand for.
#[derive(Debug, Clone)]
pub(crate) struct Specifiers {
    pub(crate) name: Name,
    pub(crate) host: String,
    /// systemd's name of the architecture.
    pub(crate) architecture: &'static str,
    /// root's, from the image's passwd.
    pub(crate) home: String,
    pub(crate) shell: String,
}

/// A specifier that has no value here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unresolved {
    /// Where `%x` stands in the text.
    pub(crate) range: Range<usize>,
    pub(crate) reason: Reason,
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// systemd does not know it either.
    Unknown,
    /// Its value is only known in the running guest.
    OnlyInTheGuest,
}

impl Specifiers {
    /// The text with all specifiers replaced.
    pub(crate) fn expand(&self, text: &str) -> Result<String, Unresolved> {
        let mut expanded = String::with_capacity(text.len());
        let mut characters = text.char_indices();
        while let Some((at, c)) = characters.next() {
            if c != '%' {
                expanded.push(c);
                continue;
            }
            match characters.clone().next() {
                Some((_, '%')) => {
                    characters.next();
                    expanded.push('%');
                }
                Some((_, letter)) if letter.is_ascii_alphanumeric() => {
                    characters.next();
                    let value = self
                        .value(letter)
                        .map_err(|reason| Unresolved { range: at..at + 2, reason })?;
                    expanded.push_str(&value);
                }
                _ => expanded.push('%'),
            }
        }
        Ok(expanded)
    }

    fn value(&self, letter: char) -> Result<String, Reason> {
        let name = &self.name;
        let last = || name.prefix().rsplit('-').next().unwrap_or_default();
        let instance = || name.instance().unwrap_or_default();
        let value = match letter {
            'n' => name.as_str().to_owned(),
            'N' => name.stem().to_owned(),
            'p' => name.prefix().to_owned(),
            'P' => unescape(name.prefix()),
            'i' => instance().to_owned(),
            'I' => unescape(instance()),
            'j' => last().to_owned(),
            'J' => unescape(last()),
            'f' => {
                let path = name.instance().filter(|i| !i.is_empty()).unwrap_or(name.prefix());
                format!("/{}", unescape(path).trim_start_matches('/'))
            }
            't' => "/run".into(),
            'S' => "/var/lib".into(),
            'C' => "/var/cache".into(),
            'L' => "/var/log".into(),
            'E' => "/etc".into(),
            'D' => "/usr/share".into(),
            'T' => "/tmp".into(),
            'V' => "/var/tmp".into(),
            'h' => self.home.clone(),
            'u' | 'g' => "root".into(),
            'U' | 'G' => "0".into(),
            's' => self.shell.clone(),
            'H' => self.host.clone(),
            'l' => self.host.split('.').next().unwrap_or_default().to_owned(),
            'q' => self.host.clone(),
            'a' => self.architecture.to_owned(),
            'm' | 'b' | 'v' | 'o' | 'w' | 'W' | 'B' | 'A' | 'M' | 'd' | 'y' | 'Y' => {
                return Err(Reason::OnlyInTheGuest);
            }
            _ => return Err(Reason::Unknown),
        };
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(name: &str, text: &str) -> Result<String, Unresolved> {
        Specifiers {
            name: Name::parse(name).unwrap(),
            host: "echo.example".into(),
            architecture: "x86-64",
            home: "/root".into(),
            shell: "/bin/sh".into(),
        }
        .expand(text)
    }

    #[test]
    fn specifiers_are_those_of_the_system_manager() {
        let text = "%n %N %p %i %I %j %f %t %h %U %l %a 100%% 5% %-";
        let expected =
            "a-b@c-d.socket a-b@c-d a-b c-d c/d b /c/d /run /root 0 echo x86-64 100% 5% %-";
        assert_eq!(expand("a-b@c-d.socket", text).as_deref(), Ok(expected));
    }

    #[test]
    fn an_unknown_one_has_a_place() {
        let unknown = Unresolved { range: 12..14, reason: Reason::Unknown };
        assert_eq!(expand("a.socket", "[fe80::1]:80%eth0"), Err(unknown));
        let later = Unresolved { range: 0..2, reason: Reason::OnlyInTheGuest };
        assert_eq!(expand("a.socket", "%m"), Err(later));
    }
}
