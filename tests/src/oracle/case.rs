//! Cases: small unit files, and what is done with them.
//!
//! ```text
//! === name
//! What it is about.
//! --- socket              the file name.socket
//! --- @.service           the file name@.service
//! --- -b.service          the file name-b.service
//! --- service.d/x.conf    a drop-in
//! --- link -alias.service a link name-alias.service to the file named on the next line
//! --- file /path          any other file, there before anything starts
//! --- do                  the steps, see the driver
//! ```
//! In files and steps `{probe}` stands for the probe's path and the case's name with a colon, so
//! that `{probe}main` runs it with the tag `main`; `{case}` for the name; `{dir}` for a folder of
//! the case's own; `{port}`, `{port1}` to `{port4}` for ports of its own. A socket unit without an
//! [Install] section is wanted by sockets.target.

use std::path::Path;

/// Where the probe lies in the namespaces.
pub const PROBE: &str = "/run/oracle/probe";
/// Below it each case has a folder of its own, mode 1777.
pub const FOLDERS: &str = "/run/oracle/cases";
/// The first port; each case has ten.
const PORTS: usize = 20_000;

/// One case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// All its units' names begin with it.
    pub name: String,
    /// The file it stands in.
    pub group: String,
    /// Unit files and drop-ins: path below the units' folder, text.
    pub units: Vec<(String, String)>,
    /// Links below the units' folder, and their targets.
    pub links: Vec<(String, String)>,
    /// Other files.
    pub files: Vec<(String, String)>,
    /// What is done.
    pub steps: Vec<String>,
}

impl Case {
    /// The case's own folder.
    pub fn folder(&self) -> String {
        format!("{FOLDERS}/{}", self.name)
    }

    /// Writes its unit files into a folder.
    pub fn write_units(&self, folder: &Path) {
        for (file, text) in &self.units {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        for (link, target) in &self.links {
            std::os::unix::fs::symlink(target, folder.join(link)).unwrap();
        }
    }
}

/// All cases of the `*.units` files of a folder, in the order of the files' names. A file that is
/// not as it should be, or a name that is there twice, ends the test.
pub fn read(folder: &Path) -> Vec<Case> {
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "units"));
    files.sort();
    let mut cases: Vec<Case> = vec![];
    for file in files {
        let group = file.file_stem().unwrap().to_str().unwrap();
        for case in parse(group, &std::fs::read_to_string(&file).unwrap(), cases.len()) {
            let twice = cases.iter().any(|other| other.name == case.name);
            assert!(!twice, "{group}: {} is there twice", case.name);
            cases.push(case);
        }
    }
    cases
}

/// The cases of one file; `first` is the index of the first one, from which the ports follow.
pub fn parse(group: &str, text: &str, first: usize) -> Vec<Case> {
    let mut cases = vec![];
    let parts = text.split("=== ").skip(1);
    for (index, part) in parts.enumerate() {
        let (name, rest) = part.split_once('\n').unwrap();
        let name = name.trim();
        let mut case = Case {
            name: name.into(),
            group: group.into(),
            units: vec![],
            links: vec![],
            files: vec![],
            steps: vec![],
        };
        let ports = PORTS + 10 * (first + index);
        let rest = fill(rest, name, ports);
        for section in rest.split("--- ").skip(1) {
            let (head, body) = section.split_once('\n').unwrap();
            case.add(head.trim(), body);
        }
        cases.push(case);
    }
    cases
}

impl Case {
    fn add(&mut self, head: &str, body: &str) {
        let unit = |suffix: &str| match suffix.starts_with(['@', '-', '.']) {
            true => format!("{}{suffix}", self.name),
            false => format!("{}.{suffix}", self.name),
        };
        match head.split_once(' ') {
            None if head == "do" => {
                let lines = body.lines().map(str::trim).filter(|line| !line.is_empty());
                self.steps.extend(lines.map(str::to_owned));
            }
            None => {
                let mut text = body.to_owned();
                if head.ends_with("socket") && !body.contains("[Install]") {
                    text += "[Install]\nWantedBy=sockets.target\n";
                }
                self.units.push((unit(head), text));
            }
            Some(("link", link)) => self.links.push((unit(link), body.trim().to_owned())),
            Some(("file", path)) => self.files.push((path.to_owned(), body.to_owned())),
            Some(_) => panic!("{}: what is `--- {head}`?", self.name),
        }
    }
}

fn fill(text: &str, name: &str, ports: usize) -> String {
    let mut text = text
        .replace("{probe}", &format!("{PROBE} {name}:"))
        .replace("{case}", name)
        .replace("{dir}", &format!("{FOLDERS}/{name}"))
        .replace("{port}", &ports.to_string());
    for more in 1..5 {
        text = text.replace(&format!("{{port{more}}}"), &(ports + more).to_string());
    }
    text
}
