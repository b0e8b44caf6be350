//! The unit compiler: a folder of unit files becomes the units of a manifest.
//!
//! The way of the data: [`files`] finds the files and their drop-ins, `syntax` splits them into
//! assignments, `table` knows every key and whether it is honoured, the readers (`socket`,
//! `service`, `quadlet`, ...) give them types, and `graph` joins the units.
//!
//! Every key that systemd or Quadlet knows is in one of three classes: honoured, harmless to
//! leave out (a note says why), or refused (an error, since leaving it out would weaken what its
//! author asked for). Nothing is silently ignored, but for `X-` keys and sections, which
//! systemd skips too.
//!
//! Where this differs from systemd on purpose:
//!
//! | systemd | here |
//! |---|---|
//! | a value that does not parse is dropped with a warning | an error: the person is there to see it |
//! | an unknown specifier drops the assignment | an error |
//! | a `Requires=` of a unit that is not there fails at the start | an error |
//! | an ordering cycle is broken up at random | an error that names the cycle |
//! | conditions are checked at every start | those that the image decides are checked here |
//! | several sockets of one service: random order of the fds | order of the unit names |

mod accounts;
mod addresses;
mod cat;
mod check;
mod command;
mod compile;
mod condition;
mod cycle;
mod definition;
mod describe;
mod drop_in;
mod exec;
mod files;
mod graph;
mod idle;
mod keys;
mod kill;
mod manager;
mod name;
mod pairing;
pub mod podman;
mod podman_api;
mod quadlet;
mod quoting;
mod resources;
mod restart;
mod service;
mod socket;
mod specifier;
pub(crate) mod suggest;
mod syntax;
mod table;
mod unit_section;
mod users;
mod value;
mod variables;
mod well_known;

use crate::base;
use crate::config::Config;
use crate::container::Container;
use crate::finding::{Finding, Source};
use accounts::Accounts;
use activator::manifest;
pub use describe::describe;
use manager::Manager;
use name::Name;
pub(crate) use podman_api::is_behind as is_behind_podman_api;
pub use quadlet::build::images as built_images;
pub(crate) use quadlet::image::is_file as is_image_file;
pub use quadlet::inherit;
use specifier::Specifiers;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// What the compiler works from.
pub struct Input<'a> {
    /// The appliance's folder: units beside appliance.toml, drop-ins in `NAME.d/`.
    pub folder: &'a Path,
    /// Units that come inside packages, and their drop-ins: path in the image, without the first
    /// `/` (`usr/lib/systemd/system/podman.socket`), and text. A symlink to /dev/null is an
    /// empty text, which masks. Compiled only if they are enabled or another unit needs them.
    pub packaged: &'a [(String, String)],
    /// Links among them that lead elsewhere than to /dev/null: path in the image as above, and
    /// what they lead to. Other names of units, and `A.target.wants/b.service`.
    pub links: &'a [(String, String)],
    /// The appliance's name, which is its host name (`%H`).
    pub name: &'a str,
    /// `enable` and `engine` are used.
    pub config: &'a Config,
    /// appliance.toml, to point into.
    pub config_source: Option<&'a Arc<Source>>,
    /// The image's /etc/passwd; without `root` it gets one.
    pub passwd: &'a str,
    /// The image's /etc/group; without `root` it gets one.
    pub group: &'a str,
    /// What the guest runs on.
    pub architecture: Architecture,
    /// Whether the image's read-only root has that file (absolute path); None if that is not
    /// known yet. Used for programs and for conditions.
    pub has_file: Option<&'a dyn Fn(&str) -> bool>,
    /// Podman's generator, for engine podman; None if there are no packages yet.
    pub generator: Option<&'a dyn podman::Generator>,
}

/// What the guest runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // their names say it
pub enum Architecture {
    X86_64,
    Aarch64,
}

impl Architecture {
    /// As systemd writes it: `%a`, `ConditionArchitecture=`.
    pub fn systemd_name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86-64",
            Self::Aarch64 => "arm64",
        }
    }
}

/// What came out.
#[derive(Debug, Default)]
pub struct Compiled {
    /// The users of a manifest, sorted by name.
    pub users: Vec<manifest::Lingering>,
    /// The units of a manifest, sorted by owner and name. Empty if a finding is an error.
    pub units: Vec<manifest::Unit>,
    /// The service's name and the container of each `.container`, sorted by owner and name.
    pub containers: Vec<(String, Container)>,
    /// Everything that was found, sorted by file and place.
    pub findings: Vec<Finding>,
    /// Engine podman: the image that each `.container` names, and where.
    pub images: Vec<(String, crate::finding::Span)>,
    /// Engine podman: the services whose health checks their images say.
    pub image_health: Vec<podman::ImageHealth>,
    /// Ids of containers with `UserNS=auto`.
    chosen: quadlet::ids::Chosen,
    /// See [`Compiled::cat`]; by user and name.
    texts: BTreeMap<(Option<String>, String), String>,
}

impl Compiled {
    /// A unit's files as `systemctl cat` shows them: each with its path in a comment, drop-ins
    /// last; for a Quadlet the service that it became. Of a user, or of the system.
    pub fn cat(&self, user: Option<&str>, unit: &str) -> Option<&str> {
        let key = (user.map(str::to_owned), unit.to_owned());
        self.texts.get(&key).map(String::as_str)
    }

    /// Names that [`Compiled::cat`] knows, sorted.
    pub fn names(&self, user: Option<&str>) -> impl Iterator<Item = &str> {
        let of_the_user = move |(owner, _): &&(Option<String>, String)| owner.as_deref() == user;
        self.texts.keys().filter(of_the_user).map(|(_, name)| name.as_str())
    }
}

/// What all readers need beside the unit.
struct Facts<'a> {
    input: &'a Input<'a>,
    /// Whose units are being read.
    manager: Manager,
    accounts: Accounts,
    /// Service to the `.container` file that becomes it.
    quadlets: BTreeMap<Name, String>,
    /// Quadlet files of all types.
    resources: podman::resources::Resources,
}

impl Facts<'_> {
    /// Whether the image has a file, as far as that is known. Debian's /bin, /sbin and /lib are
    /// links into /usr.
    fn has_file(&self, path: &str) -> Option<bool> {
        let has_file = self.input.has_file?;
        let linked = ["/bin/", "/sbin/", "/lib/"].iter().any(|link| path.starts_with(link));
        Some(has_file(path) || linked && has_file(&format!("/usr{path}")))
    }

    fn specifiers(&self, name: &Name) -> Specifiers {
        let user = self.manager.account(&self.accounts);
        // A template that is a unit itself is that of connections.
        let name = match name.is_template() {
            true => name.instantiate(manifest::INSTANCE).unwrap_or_else(|| name.clone()),
            false => name.clone(),
        };
        Specifiers {
            name,
            host: self.input.name.to_owned(),
            architecture: self.input.architecture.systemd_name(),
            group: self.accounts.group_name(user.gid),
            user,
            directories: self.manager.directories(),
            os_release: base::OS_RELEASE,
            fragment: None,
        }
    }
}

/// Compiles a folder. Never fails as such: what is wrong is among the findings.
pub fn compile(input: &Input<'_>) -> Compiled {
    let mut compiled = Compiled::default();
    let accounts = Accounts::parse(input.passwd, input.group);
    let mut facts = Facts {
        input,
        manager: Manager::System,
        accounts,
        quadlets: BTreeMap::new(),
        resources: BTreeMap::new(),
    };
    compile::run(&mut facts, &mut compiled);
    compiled.findings.sort_by_cached_key(place);
    compiled.findings.dedup();
    if crate::finding::forbids(&compiled.findings, false) {
        compiled.units.clear();
    }
    compiled
}

/// By file and place; findings without a file come first.
fn place(finding: &Finding) -> (Option<(String, usize)>, String) {
    let place = finding.span.as_ref().map(|span| (span.source.path.clone(), span.range.start));
    (place, finding.message.clone())
}
