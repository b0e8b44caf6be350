//! Who a container runs as: names and numbers, as the image's own /etc/passwd and /etc/group
//! know them.

use crate::tree::Tree;
use std::collections::BTreeSet;
use thiserror::Error;

/// A user with all that follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Further groups, sorted. The primary one is among them where a user was asked for, as with
    /// Podman.
    pub groups: Vec<u32>,
    /// Home directory: / where the image does not say.
    pub home: String,
}

/// The image does not know a name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UserError {
    /// /etc/passwd lacks it.
    #[error("the image's /etc/passwd has no user `{0}`")]
    NoUser(String),
    /// /etc/group lacks it.
    #[error("the image's /etc/group has no group `{0}`")]
    NoGroup(String),
}

/// Resolves `user`, `user:group`, with numbers for either; nothing is root. `has` says which group
/// ids there are in the container's user namespace: a user is in no others.
pub fn resolve(
    image: &Tree,
    user: Option<&str>,
    has: impl Fn(u32) -> bool,
) -> Result<Identity, UserError> {
    let is_given = user.is_some_and(|user| !user.is_empty());
    let (user, group) = match user.unwrap_or_default().split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user.unwrap_or_default(), None),
    };
    let passwd = table(image, "/etc/passwd");
    let groups = table(image, "/etc/group");
    let number = |field: Option<&String>| field.and_then(|text| text.parse::<u32>().ok());
    let user = if user.is_empty() { "0" } else { user };
    // As in useradd's world, a name goes before a number.
    let by_name = passwd.iter().find(|line| line.first().is_some_and(|name| name == user));
    let by_number = user.parse::<u32>().ok();
    let entry = by_name.or_else(|| passwd.iter().find(|line| number(line.get(2)) == by_number));
    let entry = entry.filter(|line| number(line.get(2)).is_some());
    let uid = entry.and_then(|line| number(line.get(2))).or(by_number);
    let uid = uid.ok_or_else(|| UserError::NoUser(user.into()))?;
    let gid = match group {
        Some(group) => {
            let line = groups.iter().find(|line| line.first().is_some_and(|name| name == group));
            let gid = line.and_then(|line| number(line.get(2))).or_else(|| group.parse().ok());
            gid.ok_or_else(|| UserError::NoGroup(group.into()))?
        }
        None => entry.and_then(|line| number(line.get(3))).unwrap_or(0),
    };
    let mut all: BTreeSet<u32> = is_given.then_some(gid).into_iter().collect();
    // A group in words replaces the ones that the user is a member of.
    if let (None, Some(name)) = (group, entry.and_then(|line| line.first())) {
        let is_member =
            |line: &&Vec<String>| line.get(3).is_some_and(|m| m.split(',').any(|m| m == name));
        let ids = groups.iter().filter(is_member).filter_map(|line| number(line.get(2)));
        all.extend(ids.filter(|id| has(*id)));
    }
    let home = entry.and_then(|line| line.get(5)).filter(|home| home.starts_with('/'));
    let home = home.map_or("/", String::as_str).to_owned();
    Ok(Identity { uid, gid, groups: all.into_iter().collect(), home })
}

/// A group by its name in the image, or its number.
pub fn group(image: &Tree, group: &str) -> Result<u32, UserError> {
    let groups = table(image, "/etc/group");
    let line = groups.iter().find(|line| line.first().is_some_and(|name| name == group));
    let by_name = line.and_then(|line| line.get(2)).and_then(|text| text.parse().ok());
    by_name.or_else(|| group.parse().ok()).ok_or_else(|| UserError::NoGroup(group.into()))
}

/// The lines of passwd(5) or group(5), split into fields.
fn table(image: &Tree, path: &str) -> Vec<Vec<String>> {
    let content = image.content(path).map(|content| String::from_utf8_lossy(content));
    let fields = |line: &str| line.split(':').map(|field| field.trim().to_owned()).collect();
    content.unwrap_or_default().lines().map(fields).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    fn image() -> Tree {
        let mut tree = Tree::plain();
        let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/false\n";
        let group = "root:x:0:\nwww:x:34:\ntls:x:50:root,web\n";
        for (path, text) in [("/etc/passwd", passwd), ("/etc/group", group)] {
            tree.insert(path, Node::file(text.as_bytes(), 0o644, "test")).unwrap();
        }
        tree
    }

    fn identity(uid: u32, gid: u32, groups: &[u32], home: &str) -> Identity {
        Identity { uid, gid, groups: groups.into(), home: home.into() }
    }

    #[test]
    fn names_and_numbers_are_looked_up_in_the_image() {
        let cases = [
            (None, identity(0, 0, &[50], "/root")),
            (Some("root"), identity(0, 0, &[0, 50], "/root")),
            (Some("web"), identity(33, 34, &[34, 50], "/srv")),
            (Some("33"), identity(33, 34, &[34, 50], "/srv")),
            (Some("web:tls"), identity(33, 50, &[50], "/srv")),
            (Some("33:7"), identity(33, 7, &[7], "/srv")),
            (Some("65534:65534"), identity(65534, 65534, &[65534], "/")),
            (Some("1000"), identity(1000, 0, &[0], "/")),
        ];
        for (user, expected) in cases {
            assert_eq!(resolve(&image(), user, |_| true), Ok(expected), "{user:?}");
        }
        assert_eq!(resolve(&Tree::plain(), None, |_| true), Ok(identity(0, 0, &[], "/")));
        // In a user namespace without group 50.
        let web = identity(33, 34, &[34], "/srv");
        assert_eq!(resolve(&image(), Some("web"), |id| id < 40), Ok(web));
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let of = |user| resolve(&image(), Some(user), |_| true);
        assert_eq!(of("nobody"), Err(UserError::NoUser("nobody".into())));
        assert_eq!(of("web:x"), Err(UserError::NoGroup("x".into())));
        assert_eq!(of("-1"), Err(UserError::NoUser("-1".into())));
    }
}
