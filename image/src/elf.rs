//! Which files of unpacked packages a program needs to run: its loader, the libraries that it
//! and they name (DT_NEEDED), a script's interpreter, and every symlink on the way, ld.so(8).
//!
//! What a program loads by name at run time (dlopen(3): plugins, NSS, locales) is not seen; who
//! needs that names it as one more root.

use crate::tree::Tree;
use goblin::elf::header::{EM_AARCH64, EM_X86_64};
use goblin::elf::{Elf, dynamic};
use std::collections::BTreeSet;
use thiserror::Error;

/// Why a program would not start in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ElfError {
    /// No package brings the program.
    #[error("find {path} in the packages")]
    NoProgram {
        /// As asked for.
        path: String,
    },
    /// No package brings a library, a loader or an interpreter.
    #[error("find {needed} in the packages, which {by} needs")]
    Missing {
        /// Its name, or path.
        needed: String,
        /// Who needs it.
        by: String,
    },
    /// It begins like an ELF file, and is none.
    #[error("read {path} as an ELF file: {reason}")]
    Damaged {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
}

/// The paths of all files and symlinks without which the roots do not run, the roots included.
/// A root that is a folder brings all that is in it.
pub fn closure<'a>(
    tree: &Tree,
    roots: impl IntoIterator<Item = &'a str>,
) -> Result<BTreeSet<String>, ElfError> {
    let mut closure = Closure { tree, paths: BTreeSet::new(), unread: Vec::new() };
    for root in roots {
        if !closure.add(root) {
            return Err(ElfError::NoProgram { path: root.into() });
        }
    }
    while let Some(path) = closure.unread.pop() {
        closure.read(&path)?;
    }
    Ok(closure.paths)
}

/// Takes everything out of a tree that its roots do not need.
pub fn reduce<'a>(
    tree: &mut Tree,
    roots: impl IntoIterator<Item = &'a str>,
) -> Result<(), ElfError> {
    let needed = closure(tree, roots)?;
    tree.retain(|path, _| needed.contains(path));
    Ok(())
}

struct Closure<'t> {
    tree: &'t Tree,
    /// Everything that was found.
    paths: BTreeSet<String>,
    /// Files that were found and not read yet.
    unread: Vec<String>,
}

impl Closure<'_> {
    /// Adds a path with its symlinks; false if it leads nowhere.
    fn add(&mut self, path: &str) -> bool {
        let Some(touched) = self.tree.trace(path) else { return false };
        let Some(last) = touched.last().cloned() else { return false };
        let below = format!("{last}/");
        let children = self.tree.iter().map(|(path, _)| path.to_owned());
        let children: Vec<String> = match self.tree.content(&last) {
            Some(_) => Vec::new(),
            None => children.filter(|path| path.starts_with(&below)).collect(),
        };
        for path in touched.into_iter().chain(children) {
            if self.paths.insert(path.clone()) {
                self.unread.push(path);
            }
        }
        true
    }

    fn read(&mut self, path: &str) -> Result<(), ElfError> {
        let Some(content) = self.tree.content(path) else { return Ok(()) };
        if let Some(script) = content.strip_prefix(b"#!") {
            let line = script.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line);
            let program = line.split_whitespace().next().unwrap_or_default();
            // A relative one lies where its caller happens to be: no program of a package's.
            return if program.starts_with('/') { self.require(program, path) } else { Ok(()) };
        }
        if !content.starts_with(goblin::elf::header::ELFMAG) {
            return Ok(());
        }
        let damaged = |error: goblin::error::Error| ElfError::Damaged {
            path: path.into(),
            reason: error.to_string(),
        };
        let elf = Elf::parse(content).map_err(damaged)?;
        if let Some(loader) = elf.interpreter {
            self.require(loader, path)?;
        }
        let folders = folders(&elf, path);
        for library in &elf.libraries {
            let found = folders.iter().any(|folder| self.add(&format!("{folder}/{library}")));
            if !found {
                let needed = (*library).to_owned();
                return Err(ElfError::Missing { needed, by: path.into() });
            }
        }
        Ok(())
    }

    fn require(&mut self, needed: &str, by: &str) -> Result<(), ElfError> {
        if self.add(needed) {
            return Ok(());
        }
        Err(ElfError::Missing { needed: needed.into(), by: by.into() })
    }
}

/// Where the loader looks for the libraries of a file: DT_RUNPATH, or else DT_RPATH, then
/// Debian's folders for the architecture, then everybody's.
fn folders(elf: &Elf<'_>, path: &str) -> Vec<String> {
    let own = if elf.runpaths.is_empty() { &elf.rpaths } else { &elf.runpaths };
    let origin = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut folders: Vec<String> = own
        .iter()
        .flat_map(|paths| paths.split(':'))
        .map(|folder| folder.replace("${ORIGIN}", origin).replace("$ORIGIN", origin))
        .collect();
    let is_nodeflib = elf
        .dynamic
        .as_ref()
        .is_some_and(|dynamic| dynamic.info.flags_1 & dynamic::DF_1_NODEFLIB != 0);
    if !is_nodeflib {
        match elf.header.e_machine {
            EM_X86_64 => folders.push("/usr/lib/x86_64-linux-gnu".into()),
            EM_AARCH64 => folders.push("/usr/lib/aarch64-linux-gnu".into()),
            _ => {}
        }
        folders.extend(["/usr/lib64", "/usr/lib"].map(str::to_owned));
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    /// This test program and all that the loader mapped for it, at their places.
    fn own_tree() -> (Tree, String, String) {
        let program = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
        let content = std::fs::read(&program).unwrap();
        let loader = Elf::parse(&content).unwrap().interpreter.unwrap().to_owned();
        let mut tree = Tree::new();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mapped = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
        let mapped: BTreeSet<&str> = mapped.filter(|path| path.starts_with('/')).collect();
        for path in mapped {
            let content = std::fs::read(path).unwrap();
            tree.insert(path, Node::file(content, 0o755, "test")).unwrap();
        }
        let real = std::fs::canonicalize(&loader).unwrap().to_str().unwrap().to_owned();
        if tree.node(&loader).is_none() {
            tree.insert(&loader, Node::symlink(real.clone(), "test")).unwrap();
        }
        (tree, program, real)
    }

    #[test]
    fn the_closure_of_this_test_is_what_the_loader_mapped() {
        let (mut tree, program, loader) = own_tree();
        tree.insert("/usr/lib/unneeded.so", Node::file(&b"x"[..], 0o644, "test")).unwrap();
        let found = closure(&tree, [program.as_str()]).unwrap();
        assert!(found.contains(&program));
        assert!(found.iter().any(|path| path.ends_with("/libc.so.6")), "{found:?}");
        assert!(tree.trace(&loader).unwrap().iter().all(|path| found.contains(path)));
        assert!(!found.contains("/usr/lib/unneeded.so"));
        reduce(&mut tree, [program.as_str()]).unwrap();
        assert!(tree.node("/usr/lib/unneeded.so").is_none() && tree.node(&program).is_some());
    }

    #[test]
    fn a_missing_library_is_named_with_who_needs_it() {
        let (mut tree, program, _) = own_tree();
        tree.retain(|path, _| !path.ends_with("/libc.so.6"));
        let ElfError::Missing { needed, .. } = closure(&tree, [program.as_str()]).unwrap_err()
        else {
            panic!("not the library");
        };
        assert_eq!(needed, "libc.so.6");
    }

    #[test]
    fn a_script_needs_its_interpreter() {
        let mut tree = Tree::new();
        tree.insert("/usr/bin/x", Node::file(&b"#! /bin/sh -e\n"[..], 0o755, "test")).unwrap();
        let missing = ElfError::Missing { needed: "/bin/sh".into(), by: "/usr/bin/x".into() };
        assert_eq!(closure(&tree, ["/bin/x"]), Err(missing));
        tree.insert("/usr/bin/sh", Node::symlink("dash", "test")).unwrap();
        tree.insert("/usr/bin/dash", Node::file(&b"static"[..], 0o755, "test")).unwrap();
        let expected = ["/usr/bin/dash", "/usr/bin/sh", "/usr/bin/x"].map(str::to_owned);
        assert_eq!(closure(&tree, ["/usr/bin/x"]), Ok(expected.into()));
        for (path, line) in [("/usr/bin/y", "#!.\n"), ("/usr/bin/z", "#!perl -w\n")] {
            tree.insert(path, Node::file(line.as_bytes(), 0o755, "test")).unwrap();
            assert_eq!(closure(&tree, [path]), Ok([path.to_owned()].into()));
        }
    }

    #[test]
    fn a_folder_brings_its_files_and_what_is_damaged_is_told() {
        let mut tree = Tree::new();
        tree.insert("/etc/app/a", Node::file(&b"a"[..], 0o644, "test")).unwrap();
        tree.insert("/etc/app.d/b", Node::file(&b"b"[..], 0o644, "test")).unwrap();
        let found = closure(&tree, ["/etc/app"]).unwrap();
        assert_eq!(found, BTreeSet::from(["/etc/app".to_owned(), "/etc/app/a".to_owned()]));
        tree.insert("/usr/bin/bad", Node::file(&b"\x7fELF\x02"[..], 0o755, "test")).unwrap();
        let error = closure(&tree, ["/usr/bin/bad"]).unwrap_err();
        assert!(matches!(error, ElfError::Damaged { .. }), "{error}");
        let missing = ElfError::NoProgram { path: "/usr/bin/none".into() };
        assert_eq!(closure(&tree, ["/usr/bin/none"]), Err(missing));
    }
}
