//! Where a path of a container image leads.

use super::{Kind, LINKS, Tree, components};

/// What becomes of a symlink at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// It is followed as well.
    Followed,
    /// It is what the path means.
    Kept,
}

impl Tree {
    /// Where a path leads if the folder `root` is all there is: no symlink and no `..` leads out
    /// of it. The result is below `root`, and what is missing stays as it is; an error is the path
    /// at which there is no way, for there is a file, or too many symlinks have been followed.
    pub fn resolve(&self, root: &str, path: &str, last: Last) -> Result<String, String> {
        // A folder is meant by `.` at the end.
        let dot = path.ends_with("/.").then_some(".");
        let mut rest: Vec<&str> = components(path).chain(dot).collect();
        rest.reverse();
        let mut real = String::new();
        let mut followed = 0;
        while let Some(part) = rest.pop() {
            match part {
                "." => continue,
                ".." => {
                    real.truncate(real.rfind('/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let next = format!("{real}/{part}");
            match self.node(&format!("{root}{next}")).map(|node| &node.kind) {
                _ if rest.is_empty() && last == Last::Kept => return Ok(next),
                None | Some(Kind::Directory) => real = next,
                Some(Kind::Symlink(_)) if followed == LINKS => return Err(next),
                Some(Kind::Symlink(target)) => {
                    followed += 1;
                    if target.starts_with('/') {
                        real.clear();
                    }
                    rest.extend(components(target).rev());
                }
                Some(_) if rest.is_empty() => return Ok(next),
                Some(_) => return Err(next),
            }
        }
        Ok(real)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    #[test]
    fn no_link_leads_out() {
        let mut tree = Tree::new();
        tree.insert("/image/file", Node::file(&b""[..], 0o644, "x")).unwrap();
        let links = [("run", "/tmp"), ("up", "../../x"), ("lib", "usr/lib"), ("loop", "loop")];
        for (name, target) in links {
            tree.insert(&format!("/image/{name}"), Node::symlink(target, "x")).unwrap();
        }
        let resolve = |path: &str, last| tree.resolve("/image", path, last);
        let follow = |path: &str| resolve(path, Last::Followed);
        for (path, expected) in [
            ("/run/a", "/tmp/a"),
            ("/run", "/tmp"),
            ("/up/a", "/x/a"),
            ("/../../a", "/a"),
            ("/lib/./a/", "/usr/lib/a"),
            ("/file", "/file"),
            ("/", ""),
        ] {
            assert_eq!(follow(path).as_deref(), Ok(expected), "{path}");
        }
        for (path, at) in [("/file/a", "/file"), ("/loop/a", "/loop")] {
            assert_eq!(follow(path), Err(at.into()));
        }
        assert_eq!(resolve("/run", Last::Kept).as_deref(), Ok("/run"));
        assert_eq!(resolve("/run/a", Last::Kept).as_deref(), Ok("/tmp/a"));
        assert_eq!(resolve("/run/.", Last::Kept).as_deref(), Ok("/tmp"));
    }
}
