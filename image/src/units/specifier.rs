//! `%` specifiers of the system and of user managers, systemd.unit(5).
//!
//! `%` before anything but a letter or digit stays as it is; an unknown one spoils the value.

use super::accounts::User;
use super::name::{Name, unescape};
use activator::manifest::{INSTANCE, INSTANCE_UNESCAPED};
use std::ops::Range;

/// What the specifiers of one unit stand for.
#[derive(Debug, Clone)]
pub(crate) struct Specifiers {
    /// With [`INSTANCE`] as its instance, if it is the template of connections.
    pub(crate) name: Name,
    pub(crate) host: String,
    /// systemd's name of the architecture.
    pub(crate) architecture: &'static str,
    /// Whoever the manager runs as: root, or the user.
    pub(crate) user: User,
    /// The name of its group.
    pub(crate) group: String,
    pub(crate) directories: Directories,
    /// os-release(5) of the image.
    pub(crate) os_release: &'static str,
    /// Where the unit's file is in the image, if a package brings it.
    pub(crate) fragment: Option<String>,
}

/// `%t %S %C %L %E %D`
#[derive(Debug, Clone)]
pub(crate) struct Directories {
    pub(crate) runtime: String,
    pub(crate) state: String,
    pub(crate) cache: String,
    pub(crate) logs: String,
    pub(crate) configuration: String,
    pub(crate) shared: String,
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
            'I' => unescape_instance(instance()),
            'j' => last().to_owned(),
            'J' => unescape(last()),
            'f' => match instance() {
                "" => format!("/{}", unescape(name.prefix()).trim_start_matches('/')),
                some => format!("/{}", unescape_instance(some).trim_start_matches('/')),
            },
            't' => self.directories.runtime.clone(),
            'S' => self.directories.state.clone(),
            'C' => self.directories.cache.clone(),
            'L' => self.directories.logs.clone(),
            'E' => self.directories.configuration.clone(),
            'D' => self.directories.shared.clone(),
            'T' => "/tmp".into(),
            'V' => "/var/tmp".into(),
            'h' => self.user.home.clone(),
            'u' => self.user.name.clone(),
            'U' => self.user.uid.to_string(),
            'g' => self.group.clone(),
            'G' => self.user.gid.to_string(),
            's' => self.user.shell.clone(),
            'H' => self.host.clone(),
            'l' => self.host.split('.').next().unwrap_or_default().to_owned(),
            'q' => self.host.clone(),
            'a' => self.architecture.to_owned(),
            'o' => self.release("ID"),
            'w' => self.release("VERSION_ID"),
            'W' => self.release("VARIANT_ID"),
            'B' => self.release("BUILD_ID"),
            'A' => self.release("IMAGE_VERSION"),
            'M' => self.release("IMAGE_ID"),
            // Those of users and of connections are elsewhere: CREDENTIALS_DIRECTORY knows.
            'd' if self.directories.runtime != "/run" || name.as_str().contains(INSTANCE) => {
                return Err(Reason::OnlyInTheGuest);
            }
            'd' => format!("/run/credentials/{}", name.as_str()),
            'y' => self.fragment.clone().ok_or(Reason::OnlyInTheGuest)?,
            'Y' => {
                let fragment = self.fragment.as_deref().ok_or(Reason::OnlyInTheGuest)?;
                fragment.rsplit_once('/').map_or("/", |(folder, _)| folder).to_owned()
            }
            'm' | 'b' | 'v' => return Err(Reason::OnlyInTheGuest),
            _ => return Err(Reason::Unknown),
        };
        Ok(value)
    }

    /// A field of os-release(5); empty if it is not there.
    fn release(&self, field: &str) -> String {
        let line =
            self.os_release.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    }
}

fn unescape_instance(instance: &str) -> String {
    if instance == INSTANCE { INSTANCE_UNESCAPED.to_owned() } else { unescape(instance) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::manager::Manager;

    fn specifiers(name: &str, user: User, directories: Directories) -> Specifiers {
        Specifiers {
            name: Name::parse(name).unwrap(),
            host: "echo.example".into(),
            architecture: "x86-64",
            group: user.name.clone(),
            user,
            directories,
            os_release: "NAME=x\nID=rouse\nVERSION_ID=\"12\"\n",
            fragment: Some("/usr/lib/systemd/system/a.service".into()),
        }
    }

    fn expand(name: &str, text: &str) -> Result<String, Unresolved> {
        let root = User {
            name: "root".into(),
            uid: 0,
            gid: 0,
            home: "/root".into(),
            shell: "/bin/sh".into(),
        };
        specifiers(name, root, Manager::System.directories()).expand(text)
    }

    #[test]
    fn specifiers_are_those_of_the_system_manager() {
        let text = "%n %N %p %i %I %j %f %t %h %U %l %a 100%% 5% %-";
        let expected =
            "a-b@c-d.socket a-b@c-d a-b c-d c/d b /c/d /run /root 0 echo x86-64 100% 5% %-";
        assert_eq!(expand("a-b@c-d.socket", text).as_deref(), Ok(expected));
    }

    #[test]
    fn a_users_are_his_own() {
        let config = crate::config::User { name: "ann".into(), uid: 1000, ..Default::default() };
        let user = User {
            name: "ann".into(),
            uid: 1000,
            gid: 1000,
            home: "/home/ann".into(),
            shell: "/bin/sh".into(),
        };
        let directories = Manager::User(0, config).directories();
        let specifiers = specifiers("a.service", user, directories);
        let expanded = specifiers.expand("%h %t %S %C %L %E %D %u %U %g %G %s %T %V");
        let expected = "/home/ann /run/user/1000 /home/ann/.local/state /home/ann/.cache \
                        /home/ann/.local/state/log /home/ann/.config /home/ann/.local/share \
                        ann 1000 ann 1000 /bin/sh /tmp /var/tmp";
        assert_eq!(expanded.as_deref(), Ok(expected));
        let credentials = Unresolved { range: 0..2, reason: Reason::OnlyInTheGuest };
        assert_eq!(specifiers.expand("%d"), Err(credentials));
    }

    #[test]
    fn the_image_is_known() {
        let text = expand("a.service", "%o %w [%W%B%A%M] %y %Y");
        let expected = "rouse 12 [] /usr/lib/systemd/system/a.service /usr/lib/systemd/system";
        assert_eq!(text.as_deref(), Ok(expected));
    }

    #[test]
    fn a_connections_instance_is_a_placeholder() {
        let name = format!("a-b@{INSTANCE}.service");
        let text = expand(&name, "%n %N %p %i %I %j %f").unwrap();
        let expected = format!(
            "a-b@{INSTANCE}.service a-b@{INSTANCE} a-b {INSTANCE} {INSTANCE_UNESCAPED} b \
             /{INSTANCE_UNESCAPED}"
        );
        assert_eq!(text, expected);
        assert!(expand(&name, "%d").is_err(), "its credentials are elsewhere");
        assert_eq!(expand("a.service", "%d").as_deref(), Ok("/run/credentials/a.service"));
    }

    #[test]
    fn an_unknown_one_has_a_place() {
        let unknown = Unresolved { range: 12..14, reason: Reason::Unknown };
        assert_eq!(expand("a.socket", "[fe80::1]:80%eth0"), Err(unknown));
        let later = Unresolved { range: 0..2, reason: Reason::OnlyInTheGuest };
        assert_eq!(expand("a.socket", "%m"), Err(later));
    }
}
