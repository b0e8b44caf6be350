//! Leaves out of packages what the person who wrote the appliance does not want: paths by name
//! (`drop`), and all but the libraries of packages that only came as dependencies
//! (`dependencies = "libraries"`).

use crate::config::{Config, Dependencies, Image, Part, place};
use crate::elf::{self, ElfError};
use crate::exit::{BAD_INPUT, Failure};
use crate::finding::{Finding, Source};
use crate::tree::{Tree, filter};
use std::sync::Arc;

/// What is wanted of some packages.
pub(super) struct Wishes<'a> {
    /// Those that are named.
    pub(super) packages: &'a [String],
    pub(super) dependencies: Dependencies,
    pub(super) drop: &'a [String],
    /// The keys of the table of appliance.toml that says so; none are the outermost.
    pub(super) table: &'a [&'a str],
}

impl<'a> Wishes<'a> {
    /// Of the guest's own packages.
    pub(super) fn of_guest(config: &'a Config) -> Self {
        let Config { packages, dependencies, drop, .. } = config;
        Self { packages, dependencies: *dependencies, drop, table: &[] }
    }

    /// Of those of a container image.
    pub(super) fn of_image(image: &'a Image, table: &'a [&'a str]) -> Self {
        let Image { packages, dependencies, drop, .. } = image;
        Self { packages, dependencies: *dependencies, drop, table }
    }
}

/// Takes out of the packages' tree what nobody wants.
pub(super) fn reduce(
    tree: &mut Tree,
    wishes: &Wishes<'_>,
    source: &Arc<Source>,
) -> Result<(), Failure> {
    for path in wishes.drop {
        if !tree.remove(path) {
            let keys = [wishes.table, &["drop", path]].concat();
            let finding = Finding::error(
                place(source, &keys, Part::Value),
                format!("no package brings `{path}`"),
            )
            .label("nothing to leave out")
            .help("`rouse inspect IMAGE` lists files; take the path out");
            return Err(Failure::findings(BAD_INPUT, vec![finding]));
        }
    }
    match wishes.dependencies {
        Dependencies::Whole => Ok(()),
        Dependencies::Libraries => libraries(tree, wishes.packages).map_err(|error| {
            Failure::new(BAD_INPUT, "leave out what only dependencies bring")
                .because(error)
                .hint("name the package that brings it in `packages`, too")
        }),
    }
}

/// Keeps the files of some packages, and the libraries that they load.
fn libraries(tree: &mut Tree, packages: &[String]) -> Result<(), ElfError> {
    let named = |origin: &str| {
        let package = origin.split(' ').next().unwrap_or_default();
        packages.iter().any(|name| name == package)
    };
    let own: Vec<String> = tree
        .iter()
        // Examples in /usr/share/doc need nothing; a link may lead to what another package has.
        .filter(|(path, _)| filter::is_wanted(path) && tree.content(path).is_some())
        .filter(|(path, node)| named(&node.origin) && is_runnable(tree, path))
        .map(|(path, _)| path.to_owned())
        .collect();
    // What glibc loads by name when a thread ends by pthread_exit(3), and else aborts.
    let unwinder = tree.iter().map(|(path, _)| path).find(|path| path.ends_with("/libgcc_s.so.1"));
    let roots = own.iter().map(String::as_str).chain(unwinder);
    let needed = elf::closure(tree, roots)?;
    tree.retain(|path, node| named(&node.origin) || needed.contains(path));
    Ok(())
}

/// False for a script in a language that no package brings: nobody counts on it.
fn is_runnable(tree: &Tree, path: &str) -> bool {
    let script = tree.content(path).and_then(|content| content.strip_prefix(b"#!"));
    let Some(script) = script else { return true };
    let line = script.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let program = String::from_utf8_lossy(line);
    let program = program.split_whitespace().next().filter(|program| program.starts_with('/'));
    program.is_some_and(|program| tree.trace(program).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    const GCC: &str = "/usr/lib/x86_64-linux-gnu/libgcc_s.so.1";

    fn tree() -> Tree {
        let mut tree = Tree::new();
        let mut put = |path: &str, text: &str, origin: &str| {
            tree.insert(path, Node::file(text.as_bytes(), 0o755, origin)).unwrap();
        };
        put("/usr/bin/tool", "#!/usr/bin/sh\n", "tool 1");
        put("/usr/share/tool/data", "data", "tool 1");
        put("/usr/bin/sh", "static", "shell 2");
        put("/usr/bin/other", "static", "shell 2");
        put("/etc/shell", "x", "shell 2");
        put(GCC, "static", "libgcc-s1 14");
        tree
    }

    fn reduced(text: &str) -> Result<Vec<String>, u8> {
        let source = Arc::new(Source { path: "appliance.toml".into(), text: text.into() });
        let config = Config::parse(&source).unwrap();
        let mut tree = tree();
        let wishes = match config.image.get("x") {
            Some(image) => Wishes::of_image(image, &["image", "x"]),
            None => Wishes::of_guest(&config),
        };
        reduce(&mut tree, &wishes, &source).map_err(|failure| failure.code())?;
        let files = tree.iter().filter(|(path, _)| tree.content(path).is_some());
        Ok(files.map(|(path, _)| path.to_owned()).collect())
    }

    #[test]
    fn of_dependencies_what_is_loaded_stays() {
        let found = reduced("packages = [\"tool\"]\ndependencies = \"libraries\"\n").unwrap();
        assert_eq!(found, ["/usr/bin/sh", "/usr/bin/tool", GCC, "/usr/share/tool/data"]);
    }

    #[test]
    fn an_image_of_packages_is_reduced_by_its_own_table() {
        let image = "[image.x]\npackages = [\"tool\"]\ncommand = [\"/usr/bin/tool\"]\n";
        let text = format!("{image}dependencies = \"libraries\"\ndrop = [\"/usr/share/tool\"]\n");
        assert_eq!(reduced(&text).unwrap(), ["/usr/bin/sh", "/usr/bin/tool", GCC]);
        assert_eq!(reduced(&format!("{image}drop = [\"/usr/share/none\"]\n")), Err(BAD_INPUT));
    }

    #[test]
    fn paths_are_left_out_by_name() {
        let found = reduced("drop = [\"/usr/share/tool\", \"/etc/shell\"]\n").unwrap();
        assert_eq!(found, ["/usr/bin/other", "/usr/bin/sh", "/usr/bin/tool", GCC]);
        assert_eq!(reduced("drop = [\"/usr/share/nothing\"]\n"), Err(BAD_INPUT));
    }

    #[test]
    fn a_script_without_its_language_keeps_nothing() {
        let text =
            "packages = [\"tool\"]\ndependencies = \"libraries\"\ndrop = [\"/usr/bin/sh\"]\n";
        assert_eq!(reduced(text).unwrap(), ["/usr/bin/tool", GCC, "/usr/share/tool/data"]);
    }
}
