//! `[[user]]`: a lingering user, whose units lie in `users/NAME/`.

use super::{Part, place};
use crate::finding::{Finding, Source};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Component, Path};
use std::sync::Arc;

/// Folder in an appliance's folder with one folder of units for each user.
pub const FOLDER: &str = "users";

/// How many ids a user gets for containers, as from useradd(8).
const SUBORDINATES: u32 = 65_536;
/// The first of them, login.defs(5).
const FIRST_SUBORDINATE: u32 = 100_000;
/// The largest id of a person, login.defs(5). Those above are for dynamic users and nobody.
const LARGEST: u32 = 60_000;

/// A user with units of his own. His home is writable and empty at every boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct User {
    /// Login name; also the folder `users/NAME` with the user's units.
    pub name: String,
    /// User id, 1 to 60000.
    pub uid: u32,
    /// Group id; by default the user id. The group has the user's name.
    pub gid: Option<u32>,
    /// Home directory; by default `/home/NAME`.
    pub home: Option<String>,
    /// Login shell; by default `/bin/sh`.
    pub shell: Option<String>,
    /// Further groups of the image, by name.
    #[serde(default)]
    pub groups: Vec<String>,
    /// User ids of the user's containers as subuid(5) writes them, `FIRST:COUNT`; by default
    /// 65536 of them from 100000 on, each user's behind those of the one before.
    pub subuid: Option<String>,
    /// The same for group ids; by default the same as `subuid`.
    pub subgid: Option<String>,
    /// Units that come inside packages and are enabled for the user.
    #[serde(default)]
    pub enable: Vec<String>,
}

/// Ids in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// The first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl User {
    /// Group id.
    pub fn gid(&self) -> u32 {
        self.gid.unwrap_or(self.uid)
    }

    /// Home directory, absolute.
    pub fn home(&self) -> String {
        self.home.clone().unwrap_or_else(|| format!("/home/{}", self.name))
    }

    /// Login shell.
    pub fn shell(&self) -> &str {
        self.shell.as_deref().unwrap_or("/bin/sh")
    }

    /// XDG_RUNTIME_DIR.
    pub fn runtime_directory(&self) -> String {
        format!("/run/user/{}", self.uid)
    }

    /// User ids of containers. `index` is the user's place in appliance.toml.
    pub fn subuids(&self, index: usize) -> Ids {
        self.subuid.as_deref().and_then(ids).unwrap_or_else(|| by_default(index))
    }

    /// Group ids of containers.
    pub fn subgids(&self, index: usize) -> Ids {
        self.subgid.as_deref().and_then(ids).unwrap_or_else(|| self.subuids(index))
    }
}

/// `FIRST:COUNT`
fn ids(text: &str) -> Option<Ids> {
    let (first, count) = text.split_once(':')?;
    let (first, count): (u32, u32) = (first.parse().ok()?, count.parse().ok()?);
    let free = first > LARGEST && count > 0 && first.checked_add(count).is_some();
    free.then_some(Ids { first, count })
}

fn by_default(index: usize) -> Ids {
    let before = u32::try_from(index).unwrap_or(0).saturating_mul(SUBORDINATES);
    Ids { first: FIRST_SUBORDINATE.saturating_add(before), count: SUBORDINATES }
}

/// The first thing that is wrong with the users.
pub(super) fn check(users: &[User], source: &Arc<Source>) -> Result<(), Finding> {
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    for (index, user) in users.iter().enumerate() {
        let wrong = |key: &str, message: String| {
            let span = place_of(source, index, key);
            Finding::error(span, message)
        };
        let name = &user.name;
        if !is_login(name) || ["root", "nobody"].contains(&name.as_str()) {
            return Err(wrong("name", format!("`{name}` cannot be a user's name"))
                .label("expected 1 to 32 of a-z, 0-9, _ and -, a letter first"));
        }
        if !names.insert(name) {
            return Err(wrong("name", format!("there are two users `{name}`")));
        }
        if !(1..=LARGEST).contains(&user.uid) || !(1..=LARGEST).contains(&user.gid()) {
            return Err(wrong("uid", format!("user `{name}` cannot have this number"))
                .label("expected 1 to 60000"));
        }
        if !numbers.insert(user.uid) {
            return Err(wrong("uid", format!("two users have the number {}", user.uid)));
        }
        let home = user.home();
        let normal = |part| matches!(part, Component::RootDir | Component::Normal(_));
        let plain = home.starts_with('/') && Path::new(&home).components().all(normal);
        if !plain || home.contains([':', '\n']) || Path::new(&home).components().count() < 3 {
            return Err(wrong("home", format!("`{home}` cannot be a home directory"))
                .label("expected a path such as `/home/ann`"));
        }
        if !user.shell().starts_with('/') || user.shell().contains([':', '\n']) {
            return Err(wrong("shell", format!("`{}` cannot be a shell", user.shell()))
                .label("expected an absolute path"));
        }
        for (key, range) in [("subuid", &user.subuid), ("subgid", &user.subgid)] {
            if let Some(range) = range.as_deref().filter(|range| ids(range).is_none()) {
                return Err(wrong(key, format!("`{range}` is no range of ids"))
                    .label("expected FIRST:COUNT, with FIRST above 60000")
                    .help("leave the line out for the default, 100000:65536"));
            }
        }
    }
    Ok(())
}

/// Where a key of the user of that number stands; the table's beginning if it does not.
fn place_of(source: &Arc<Source>, index: usize, key: &str) -> crate::finding::Span {
    let number = index.to_string();
    let span = place(source, &["user", &number, key], Part::Value);
    if span.range.is_empty() { place(source, &["user", &number], Part::Key) } else { span }
}

fn is_login(name: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    (1..=32).contains(&name.len())
        && name.bytes().all(plain)
        && name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn parse(text: &str) -> Result<Vec<User>, String> {
        let source = Arc::new(Source { path: "appliance.toml".into(), text: text.into() });
        Config::parse(&source).map(|config| config.users).map_err(|finding| finding.one_line())
    }

    #[test]
    fn a_name_and_a_number_are_enough() {
        let users =
            parse("[[user]]\nname = \"ann\"\nuid = 1000\n[[user]]\nname = \"bob\"\nuid = 1001\n");
        let users = users.unwrap();
        assert_eq!((users[0].home().as_str(), users[0].gid()), ("/home/ann", 1000));
        assert_eq!(users[0].runtime_directory(), "/run/user/1000");
        assert_eq!(users[1].subuids(1), Ids { first: 165_536, count: 65_536 });
        assert_eq!(users[1].subgids(1), users[1].subuids(1));
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        let first = |text: &str| parse(text).unwrap_err();
        assert_eq!(
            first("[[user]]\nname = \"Ann\"\nuid = 1000\n"),
            "appliance.toml:2:9: error: `Ann` cannot be a user's name"
        );
        assert_eq!(
            first("[[user]]\nname = \"ann\"\nuid = 0\n"),
            "appliance.toml:3:7: error: user `ann` cannot have this number"
        );
        let two = "[[user]]\nname = \"a\"\nuid = 1\n[[user]]\nname = \"b\"\nuid = 1\n";
        assert_eq!(first(two), "appliance.toml:6:7: error: two users have the number 1");
        assert_eq!(
            first("[[user]]\nname = \"a\"\nuid = 1\nsubuid = \"5:5\"\n"),
            "appliance.toml:4:11: error: `5:5` is no range of ids"
        );
        assert_eq!(
            first("[[user]]\nname = \"a\"\nuid = 1\nhome = \"/a\"\n"),
            "appliance.toml:4:9: error: `/a` cannot be a home directory"
        );
    }
}
