//! Daemons as the files in `tests/daemons` tell of them.
//!
//! ```text
//! packages: lighttpd busybox       of all daemons of the file
//!
//! === name
//! What it is about.
//! --- enable a.socket b.socket     as in appliance.toml
//! --- unit a.socket                a unit of the appliance's folder, or a drop-in in a.socket.d/
//! --- file /path                   another file
//! --- program /path                the same, mode 755
//! --- prepare                      a script for `busybox sh`, before anything starts
//! --- ask                          the client: a script, too
//! --- see                          lines that must be part of what it writes, in this order
//! --- then a.service dead          the state that a unit must come to after that
//! ```

use std::path::Path;

/// The files of one tree of packages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// The file's name.
    pub name: String,
    /// What is unpacked.
    pub packages: Vec<String>,
    /// Its daemons.
    pub daemons: Vec<Daemon>,
}

/// One daemon, and how it is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Daemon {
    /// The test's name for it.
    pub name: String,
    /// Units that are enabled, those of packages.
    pub enable: Vec<String>,
    /// Unit files: path below the folder, text.
    pub units: Vec<(String, String)>,
    /// Other files: path, mode, text.
    pub files: Vec<(String, u32, String)>,
    /// A script that runs first.
    pub prepare: String,
    /// What is asked, and what must be seen; one after the other.
    pub steps: Vec<Step>,
}

/// What is done with a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A script.
    Ask(String),
    /// Parts of what the last script wrote.
    See(Vec<String>),
    /// A unit and its state.
    Then(String, String),
}

/// All groups of a folder, by name.
pub fn read(folder: &Path) -> Vec<Group> {
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "daemons"));
    files.sort();
    let group = |path: &std::path::PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap();
        parse(name, &std::fs::read_to_string(path).unwrap())
    };
    files.iter().map(group).collect()
}

/// One file. One that is not as it should be ends the test.
pub fn parse(name: &str, text: &str) -> Group {
    let mut parts = text.split("=== ");
    let head = parts.next().unwrap();
    let packages = head.lines().filter_map(|line| line.strip_prefix("packages:"));
    let packages = packages.flat_map(str::split_whitespace).map(str::to_owned).collect();
    let daemons = parts.map(daemon).collect();
    Group { name: name.into(), packages, daemons }
}

fn daemon(text: &str) -> Daemon {
    let mut sections = text.split("\n--- ");
    let head = sections.next().unwrap();
    let mut daemon =
        Daemon { name: head.lines().next().unwrap().trim().into(), ..Daemon::default() };
    for section in sections {
        let (head, body) = section.split_once('\n').unwrap_or((section, ""));
        let body = format!("{}\n", body.trim_end());
        let (word, rest) = head.trim().split_once(' ').unwrap_or((head.trim(), ""));
        match (word, rest) {
            ("enable", names) => {
                daemon.enable.extend(names.split_whitespace().map(str::to_owned));
            }
            ("unit", name) => daemon.units.push((name.into(), body)),
            ("file", path) => daemon.files.push((path.into(), 0o644, body)),
            ("program", path) => daemon.files.push((path.into(), 0o755, body)),
            ("prepare", "") => daemon.prepare = body,
            ("ask", "") => daemon.steps.push(Step::Ask(body)),
            ("see", "") => daemon.steps.push(Step::See(body.lines().map(str::to_owned).collect())),
            ("then", rest) => {
                let (unit, state) = rest.split_once(' ').unwrap();
                daemon.steps.push(Step::Then(unit.into(), state.into()));
            }
            _ => panic!("{}: what is `--- {head}`?", daemon.name),
        }
    }
    assert!(daemon.steps.iter().any(|step| matches!(step, Step::See(_))), "{}", daemon.name);
    daemon
}
