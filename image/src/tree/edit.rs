//! Takes nodes out of a tree, and puts others in their place.

use super::{Node, Tree, TreeError};
use std::ops::Bound;

impl Tree {
    /// Takes a node out, and all below it. Whether there was one.
    pub fn remove(&mut self, path: &str) -> bool {
        let Some(path) = self.normalise(path) else { return false };
        let below = self.remove_below(&path);
        self.nodes.remove(&path).is_some() || below
    }

    /// Takes out all that is below a path. Whether there was anything.
    pub fn remove_below(&mut self, path: &str) -> bool {
        let Some(path) = self.normalise(path) else { return false };
        let first = format!("{path}/");
        let range = (Bound::Included(first.as_str()), Bound::Unbounded);
        let below = self.nodes.range::<str, _>(range).map(|(path, _)| path);
        let below: Vec<String> =
            below.take_while(|path| path.starts_with(&first)).cloned().collect();
        below.iter().for_each(|path| drop(self.nodes.remove(path)));
        !below.is_empty()
    }

    /// Puts a node at a path, whatever is there: what is below stays. Missing parents are made.
    pub fn set(&mut self, path: &str, node: Node) -> Result<(), TreeError> {
        let normal = self.normalise(path).filter(|path| !path.is_empty());
        let normal = normal
            .ok_or_else(|| TreeError::Path { path: path.into(), origin: node.origin.clone() })?;
        self.make_parents(&normal, &node.origin)?;
        self.nodes.insert(normal, node);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_out_takes_along_what_is_below() {
        let mut tree = Tree::plain();
        for path in ["/a/b/c", "/a/b/d", "/a/b-c", "/a/b0", "/a.b"] {
            tree.insert(path, Node::file(&b""[..], 0o644, "x")).unwrap();
        }
        assert!(tree.remove_below("/a/b") && !tree.remove_below("/a/b"));
        assert!(tree.node("/a/b").is_some() && tree.node("/a/b/c").is_none());
        assert!(tree.remove("/a/b") && !tree.remove("/a/b"));
        let left: Vec<&str> = tree.iter().map(|(path, _)| path).collect();
        assert_eq!(left, ["/a", "/a.b", "/a/b-c", "/a/b0"]);
        tree.set("/a", Node::directory(0o700, "y")).unwrap();
        assert_eq!((tree.node("/a").unwrap().mode, tree.len()), (0o700, 4));
        assert!(tree.set("/a.b/c", Node::directory(0o700, "y")).is_err());
    }
}
