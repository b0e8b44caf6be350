//! The image's users and groups, from the texts of its /etc/passwd and /etc/group.

/// One line of passwd(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
    pub(crate) shell: String,
}

/// Both files. root is always there.
#[derive(Debug)]
pub(crate) struct Accounts {
    users: Vec<User>,
    /// Name, gid, members.
    groups: Vec<(String, u32, Vec<String>)>,
}

impl Accounts {
    /// Lines that are malformed are nobody.
    pub(crate) fn parse(passwd: &str, group: &str) -> Self {
        let mut users: Vec<User> = passwd.lines().filter_map(user).collect();
        if !users.iter().any(|user| user.name == "root") {
            users.push(User {
                name: "root".into(),
                uid: 0,
                gid: 0,
                home: "/root".into(),
                shell: "/bin/sh".into(),
            });
        }
        let mut groups: Vec<_> = group.lines().filter_map(self::group).collect();
        if !groups.iter().any(|(name, ..)| name == "root") {
            groups.push(("root".into(), 0, vec![]));
        }
        Self { users, groups }
    }

    /// A user by name or number. A number needs no entry.
    pub(crate) fn user(&self, text: &str) -> Option<User> {
        if let Some(user) = self.users.iter().find(|user| user.name == text) {
            return Some(user.clone());
        }
        let uid = id(text)?;
        let known = self.users.iter().find(|user| user.uid == uid).cloned();
        Some(known.unwrap_or_else(|| User {
            name: text.into(),
            uid,
            gid: uid,
            home: "/".into(),
            shell: "/bin/sh".into(),
        }))
    }

    /// A group by name or number.
    pub(crate) fn group(&self, text: &str) -> Option<u32> {
        let named = self.groups.iter().find(|(name, ..)| name == text).map(|(_, gid, _)| *gid);
        named.or_else(|| id(text))
    }

    /// The groups that list a user as their member, ascending.
    pub(crate) fn groups_of(&self, user: &str) -> Vec<u32> {
        let listed = |(_, _, members): &&(_, _, Vec<String>)| members.iter().any(|m| m == user);
        let mut groups: Vec<u32> =
            self.groups.iter().filter(listed).map(|(_, gid, _): &(String, u32, _)| *gid).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// Whether a user or a group has that number.
    pub(crate) fn has_id(&self, id: u32) -> bool {
        self.users.iter().any(|user| user.uid == id || user.gid == id)
            || self.groups.iter().any(|(_, gid, _)| *gid == id)
    }

    /// The name of a group; its number if it has none.
    pub(crate) fn group_name(&self, gid: u32) -> String {
        let named = self.groups.iter().find(|(_, number, _)| *number == gid);
        named.map_or_else(|| gid.to_string(), |(name, ..)| name.clone())
    }

    pub(crate) fn user_names(&self) -> impl Iterator<Item = &str> {
        self.users.iter().map(|user| user.name.as_str())
    }

    pub(crate) fn group_names(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(|(name, ..)| name.as_str())
    }
}

/// 4294967295 and 65535 mean "none" to chown(2) and its old form.
fn id(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| plain && *id != u32::MAX && *id != 65535)
}

fn user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
    let uid = id(fields.nth(1)?)?;
    let gid = id(fields.next()?)?;
    let home = fields.nth(1)?.to_owned();
    let shell = fields.next().filter(|shell| !shell.is_empty()).unwrap_or("/bin/sh").to_owned();
    Some(User { name, uid, gid, home, shell })
}

fn group(line: &str) -> Option<(String, u32, Vec<String>)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
    let gid = id(fields.nth(1)?)?;
    let members = fields.next().unwrap_or_default();
    Some((name, gid, members.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33::/var/www:\nbad\n";
        let accounts = Accounts::parse(passwd, "ssl:x:108:www-data,x\nwww-data:x:33:\n");
        assert_eq!(accounts.user("www-data").unwrap().gid, 33);
        assert_eq!(accounts.user("33").unwrap().name, "www-data");
        assert_eq!(accounts.user("1000").unwrap().gid, 1000);
        assert_eq!(accounts.user("nobody"), None);
        assert_eq!(accounts.group("ssl"), Some(108));
        assert_eq!(accounts.group("root"), Some(0));
        assert_eq!(accounts.groups_of("www-data"), [108]);
        assert_eq!(accounts.group("4294967295"), None);
    }
}
