//! The image's account files: those of every image, and the users of appliance.toml.

use crate::base;
use crate::config::{Ids, User};
use crate::tree::{Node, Tree, TreeError};

/// Who brings these files.
const ORIGIN: &str = "appliance.toml";

/// /etc/passwd
pub fn passwd(users: &[User]) -> String {
    let mut text = base::PASSWD.to_owned();
    for user in users {
        let (name, uid, gid) = (&user.name, user.uid, user.gid());
        text += &format!("{name}:x:{uid}:{gid}:{name}:{}:{}\n", user.home(), user.shell());
    }
    text
}

/// /etc/group: each user has a group of his name, unless his number is another's already.
pub fn group(users: &[User]) -> String {
    let mut lines: Vec<Vec<String>> = base::GROUP.lines().map(fields).collect();
    for user in users {
        let gid = user.gid().to_string();
        if !lines.iter().any(|line| line[2] == gid) {
            lines.push(fields(&format!("{}:x:{gid}:", user.name)));
        }
    }
    for user in users {
        let member = |line: &&mut Vec<String>| {
            user.groups.iter().any(|group| line[0] == *group || line[2] == *group)
        };
        for line in lines.iter_mut().filter(member) {
            let separator = if line[3].is_empty() { "" } else { "," };
            line[3] += &format!("{separator}{}", user.name);
        }
    }
    lines.into_iter().map(|line| line.join(":") + "\n").collect()
}

/// The four fields of group(5).
fn fields(line: &str) -> Vec<String> {
    let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
    fields.resize(4, String::new());
    fields
}

/// /etc/subuid or /etc/subgid
fn subordinate(users: &[User], ids: impl Fn(&User, usize) -> Ids) -> String {
    let line = |(index, user): (usize, &User)| {
        let Ids { first, count } = ids(user, index);
        format!("{}:{first}:{count}\n", user.name)
    };
    users.iter().enumerate().map(line).collect()
}

/// Puts the files and homes of users into an image.
pub fn put_into(tree: &mut Tree, users: &[User]) -> Result<(), TreeError> {
    if users.is_empty() {
        return Ok(());
    }
    for (path, text) in [
        ("/etc/passwd", passwd(users)),
        ("/etc/group", group(users)),
        ("/etc/subuid", subordinate(users, User::subuids)),
        ("/etc/subgid", subordinate(users, User::subgids)),
    ] {
        tree.replace(path, Node::file(text.as_bytes(), 0o644, ORIGIN))?;
    }
    for user in users {
        let home = Node::directory(0o700, ORIGIN).owned_by(user.uid, user.gid());
        tree.insert(&user.home(), home)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_get_accounts_groups_and_homes() {
        let ann =
            User { name: "ann".into(), uid: 1000, groups: vec!["tty".into()], ..User::default() };
        let bob = User {
            name: "bob".into(),
            uid: 1001,
            gid: Some(5),
            groups: vec!["tty".into()],
            home: Some("/srv/bob".into()),
            ..User::default()
        };
        let users = [ann, bob];
        assert!(passwd(&users).ends_with(
            "ann:x:1000:1000:ann:/home/ann:/bin/sh\nbob:x:1001:5:bob:/srv/bob:/bin/sh\n"
        ));
        assert_eq!(group(&users), "root:x:0:\ntty:x:5:ann,bob\nnogroup:x:65534:\nann:x:1000:\n");
        let mut tree = base::tree("a", base::tests::PROGRAMS).unwrap();
        put_into(&mut tree, &users).unwrap();
        let subuid = tree.content("/etc/subuid").unwrap();
        assert_eq!(subuid.as_ref(), b"ann:100000:65536\nbob:165536:65536\n");
        let home = tree.node("/home/ann").unwrap();
        assert_eq!((home.uid, home.gid, home.mode), (1000, 1000, 0o700));
    }
}
