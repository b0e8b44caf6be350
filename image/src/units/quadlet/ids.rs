//! Ids that a container of engine crun asks for by a name or leaves to Podman: those of
//! `SubUIDMap=` are looked up, and those of `UserNS=auto` chosen.
//!
//! What is chosen depends on the container's name, and hardly on the others: files that it keeps
//! on a disk are still its own when the appliance has one container more. Two whose names lead to
//! the same ids get others, in the order in which they are compiled, which is always the same.

use crate::config::{Config, Ids};
use crate::container::{Container, Written};
use crate::finding::Finding;
use crate::oci;
use crate::units::keys::Keys;
use crate::units::suggest;
use crate::units::syntax::shorten;
use activator::manifest;
use std::collections::BTreeMap;
use std::path::Path;

/// From which `auto` takes a container's of the system: what podman-run(1) wants in /etc/subuid,
/// `containers:2147483647:2147483648`.
const OF_THE_SYSTEM: Ids = Ids { first: 2_147_483_647, count: 2_147_483_648 };
/// What is chosen begins at a multiple of it from there.
const STEP: u32 = 65_536;
/// The same for those of a user, who has few.
const STEP_OF_USERS: u32 = 1024;

/// What was chosen so far.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    /// The user, if it is one's, and the ids: of the guest, or an index into those of the user.
    taken: Vec<(Option<String>, Ids)>,
}

impl Chosen {
    /// Chooses for `UserNS=auto`. Nothing is chosen if there are not that many, which is a
    /// finding when the container is checked.
    pub(crate) fn choose(&mut self, container: &mut Container, config: &Config) {
        let Some(count) = oci::wanted_ids(container) else { return };
        let owner = container.owner.as_ref();
        let (from, step) = match owner {
            // 0 is the user himself.
            Some(owner) => (
                Ids { first: 1, count: owner.subuids.count.min(owner.subgids.count) },
                STEP_OF_USERS,
            ),
            None => (OF_THE_SYSTEM, STEP),
        };
        let whose = owner.map(|owner| owner.name.clone());
        let others = config.users.iter().enumerate().filter(|_| owner.is_none());
        let others = others.flat_map(|(index, user)| [user.subuids(index), user.subgids(index)]);
        let taken = self.taken.iter().filter(|(other, _)| *other == whose).map(|(_, ids)| *ids);
        let taken: Vec<Ids> = taken.chain(others).collect();
        let Some(rest) = from.count.checked_sub(count) else { return };
        let places = rest / step + 1;
        let start = match owner {
            None if count <= step => {
                manifest::Container::digest_of(container.id().as_bytes()) % places
            }
            // Many leave no gaps; and what a user's containers keep is gone with the guest.
            _ => 0,
        };
        let mut all = (start..places).chain(0..start);
        let found = all.find_map(|place| {
            let ids = Ids { first: from.first + place * step, count };
            taken.iter().all(|other| are_apart(ids, *other)).then_some(ids)
        });
        self.taken.extend(found.map(|ids| (whose, ids)));
        container.user_namespace.chosen = found.map(|ids| ids.first);
    }
}

/// `SubUIDMap=`, `SubGIDMap=`: the ids of that name.
pub(crate) fn look_up(keys: &mut Keys<'_>, container: &mut Container) {
    let Some((uid, gid)) = oci::subordinates(container) else { return };
    // A user has his own, whatever it says, which is a finding of its own.
    if container.owner.is_some() {
        return;
    }
    let input = keys.facts.input;
    let users = || input.config.users.iter().enumerate();
    let uids = users().map(|(index, user)| (user.name.clone(), user.subuids(index)));
    let gids = users().map(|(index, user)| (user.name.clone(), user.subgids(index)));
    let uids = table(input.config, input.folder, "/etc/subuid", uids.collect());
    let gids = table(input.config, input.folder, "/etc/subgid", gids.collect());
    let (uid, gid) = (uid.clone(), gid.clone());
    let missing = if uids.contains_key(&uid.text) { &gids } else { &uids };
    match (uids.get(&uid.text), gids.get(&gid.text)) {
        (Some(uids), Some(gids)) => {
            container.user_namespace.sub_uids.clone_from(uids);
            container.user_namespace.sub_gids.clone_from(gids);
        }
        (None, _) => keys.findings.push(unknown("SubUIDMap", &uid, missing)),
        (_, None) => keys.findings.push(unknown("SubGIDMap", &gid, missing)),
    }
}

/// Who has which ids in /etc/subuid or /etc/subgid of the guest, subuid(5): what `[files]` puts
/// there, else the users of appliance.toml.
fn table(
    config: &Config,
    folder: &Path,
    path: &str,
    users: Vec<(String, Ids)>,
) -> BTreeMap<String, Vec<Ids>> {
    let given = config.files.get(path);
    let text = given.and_then(|file| std::fs::read_to_string(folder.join(file)).ok());
    let lines = match &text {
        Some(text) => text.lines().filter_map(line).collect(),
        None => users,
    };
    let mut table: BTreeMap<String, Vec<Ids>> = BTreeMap::new();
    for (name, ids) in lines {
        table.entry(name).or_default().push(ids);
    }
    table
}

/// `NAME:FIRST:COUNT`
fn line(text: &str) -> Option<(String, Ids)> {
    let mut parts = text.trim().split(':');
    let (name, first, count) = (parts.next()?, parts.next()?, parts.next()?);
    let (first, count): (u32, u32) = (first.parse().ok()?, count.parse().ok()?);
    let fits = !name.is_empty() && !name.starts_with('#') && count > 0;
    (fits && first.checked_add(count).is_some()).then(|| (name.to_owned(), Ids { first, count }))
}

fn unknown(key: &str, written: &Written, table: &BTreeMap<String, Vec<Ids>>) -> Finding {
    let names: Vec<&str> = table.keys().map(String::as_str).collect();
    let message =
        format!("`{key}=` names `{}`, who has no subordinate ids", shorten(&written.text));
    let finding = Finding::error(written.span.clone(), message);
    match (suggest::nearest(&written.text, names.iter().copied()), &names[..]) {
        (Some(near), _) => finding.label("unknown").help(format!("did you mean `{near}`?")),
        (None, []) => finding
            .label("nobody has any")
            .help("a `[[user]]` of appliance.toml has some; or write `UIDMap=0:100000:65536`"),
        (None, names) => {
            finding.label("unknown").help(format!("these have some: {}", names.join(", ")))
        }
    }
}

fn are_apart(one: Ids, other: Ids) -> bool {
    let end = |ids: Ids| u64::from(ids.first) + u64::from(ids.count);
    end(one) <= u64::from(other.first) || end(other) <= u64::from(one.first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::User;
    use crate::container::Rootless;
    use crate::finding::{Source, Span};
    use std::sync::Arc;

    fn auto(name: &str, mode: &str) -> Container {
        let source = Arc::new(Source { path: "a.container".into(), text: String::new() });
        let span = Span::file(&source);
        let mut container = Container::new(span.clone(), "a.service", name, "image");
        container.user_namespace.mode = Some(Written { text: mode.into(), span });
        container
    }

    fn choose(chosen: &mut Chosen, config: &Config, mut container: Container) -> Option<u32> {
        chosen.choose(&mut container, config);
        container.user_namespace.chosen
    }

    #[test]
    fn everyone_gets_ids_of_his_own_whoever_else_is_there() {
        let config = Config::default();
        let of = |names: &[&str]| -> BTreeMap<String, u32> {
            let mut chosen = Chosen::default();
            let one = |name: &&str| {
                let first = choose(&mut chosen, &config, auto(name, "auto")).unwrap();
                ((*name).to_owned(), first)
            };
            names.iter().map(one).collect()
        };
        let (some, all) = (of(&["a", "c"]), of(&["c", "b", "a"]));
        assert!(some.iter().all(|(name, first)| all[name] == *first));
        let firsts: std::collections::BTreeSet<_> = all.values().collect();
        assert_eq!(firsts.len(), 3);
        assert!(firsts.iter().all(|&&first| first >= 2_147_483_647 && (first + 1) % 65_536 == 0));
        assert_eq!(choose(&mut Chosen::default(), &config, auto("a", "host")), None);
    }

    #[test]
    fn the_same_ids_are_not_chosen_twice() {
        let mut chosen = Chosen::default();
        let config = Config::default();
        let half = "auto:size=1073741824";
        let both = [(); 2].map(|()| choose(&mut chosen, &config, auto("a", half)));
        let both = both.map(Option::unwrap);
        assert!(both[0].abs_diff(both[1]) >= 1 << 30, "{both:?}");
        assert_eq!(choose(&mut chosen, &config, auto("a", half)), None);
    }

    #[test]
    fn those_of_users_are_left_alone() {
        // All but the last 65536.
        let subuid = Some("2147483647:2147418112".to_owned());
        let config = Config {
            users: vec![User { name: "ann".into(), uid: 1000, subuid, ..User::default() }],
            ..Config::default()
        };
        let mut chosen = Chosen::default();
        let last = 2_147_483_647 + 2_147_418_112;
        assert_eq!(choose(&mut chosen, &config, auto("a", "auto")), Some(last));
        assert_eq!(choose(&mut chosen, &config, auto("b", "auto")), None);
    }

    #[test]
    fn a_user_has_some_for_each_of_his_containers() {
        let config = Config::default();
        let ids = Ids { first: 100_000, count: 2048 };
        let of = |name: &str| {
            let name = name.to_owned();
            Some(Rootless { name, uid: 1000, gid: 1000, subuids: ids, subgids: ids })
        };
        let mut chosen = Chosen::default();
        let mut ask = |user: &str, name: &str| {
            choose(&mut chosen, &config, Container { owner: of(user), ..auto(name, "auto") })
        };
        let mut two = [ask("ann", "a"), ask("ann", "b")];
        two.sort_unstable();
        assert_eq!(two, [Some(1), Some(1025)]);
        assert_eq!(ask("ann", "c"), None);
        assert!(ask("bob", "a").is_some());
    }

    #[test]
    fn lines_are_as_in_subuid() {
        assert_eq!(
            line("ann:100000:65536"),
            Some(("ann".into(), Ids { first: 100_000, count: 65_536 }))
        );
        for wrong in ["", "# ann:1:1", "ann:1", "ann:x:1", "ann:1:0", "ann:4294967295:1"] {
            assert_eq!(line(wrong), None, "{wrong}");
        }
    }
}
