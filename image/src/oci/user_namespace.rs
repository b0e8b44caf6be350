//! A container's user namespace, user_namespaces(7): `UserNS=`, `UIDMap=` and their kin, as
//! podman-run(1) has them.
//!
//! What they name is for a container of the system an id of the guest. For one of a user it is an
//! index into the ids that he has: 0 is he himself, and 1 the first of his subordinate ids. Podman
//! calls that the intermediate namespace; the two steps are made one here.
//!
//! | | a container of the system | one of a user |
//! |---|---|---|
//! | nothing, `host` | no namespace of its own | all of his ids |
//! | `auto` | ids that nobody else has | a part of his subordinate ids, another for each |
//! | `keep-id` | the guest's ids, in a namespace of its own | all of his ids, he has his own number |
//! | `nomap` | refused, as by Podman | his subordinate ids |

use super::wrong;
use crate::config::Ids;
use crate::container::{Container, Rootless, UserNamespace, Written};
use crate::finding::Finding;

/// One range of ids: in the container, in the guest, how many.
pub(super) type Range = (u32, u32, u32);
/// Those of users, and of groups.
pub(super) type Maps = (Vec<Range>, Vec<Range>);

/// All ids of the guest: 4294967295 stands for none.
const EVERYONE: Range = (0, 0, u32::MAX);
/// How many ids `auto` takes for a container of the system that does not say it: as many as
/// Podman's does at most.
const AUTO: u32 = 65_536;
/// The same for a user's, who has no more than that altogether: as many as Podman's does at least.
const AUTO_OF_USERS: u32 = 1024;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode {
    Host,
    Auto {
        size: Option<u32>,
        uids: Vec<Range>,
        gids: Vec<Range>,
    },
    KeepId {
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u32>,
    },
    NoMap,
    Maps(Maps),
    /// And what the others add.
    Subordinate(Maps),
}

/// How many ids `auto` wants for it; None if it does not ask for `auto`.
pub fn wanted(container: &Container) -> Option<u32> {
    let Ok(Mode::Auto { size, .. }) = mode(container) else { return None };
    Some(size.unwrap_or(if container.owner.is_some() { AUTO_OF_USERS } else { AUTO }))
}

/// Whose subordinate ids it has, `SubUIDMap=` and `SubGIDMap=`: each stands for the other, too.
pub fn subordinates(container: &Container) -> Option<(&Written, &Written)> {
    let UserNamespace { sub_uid, sub_gid, .. } = &container.user_namespace;
    let uid = sub_uid.as_ref().or(sub_gid.as_ref())?;
    Some((uid, sub_gid.as_ref().unwrap_or(uid)))
}

/// The user and group ids of a container in a user namespace; None if it has none of its own.
pub(super) fn maps(container: &Container) -> Option<Maps> {
    // What is wrong is a finding of `check`.
    let mode = mode(container).unwrap_or(Mode::Host);
    let Some(owner) = &container.owner else { return of_the_guest(container, mode) };
    let (uids, gids) = of_a_user(container, owner, mode);
    let own = intermediate(owner);
    // Out of range is a finding of `check`, too.
    Some((through(&uids, &own.0).unwrap_or_default(), through(&gids, &own.1).unwrap_or_default()))
}

/// The user and group that `keep-id` has in the container. It runs as them, unless `User=` or the
/// image says otherwise, and is in that group anyway.
pub(super) fn kept(container: &Container) -> Option<(u32, u32)> {
    let Ok(Mode::KeepId { uid, gid, .. }) = mode(container) else { return None };
    let own = container.owner.as_ref().map_or((0, 0), |owner| (owner.uid, owner.gid));
    Some((uid.unwrap_or(own.0), gid.unwrap_or(own.1)))
}

/// Whether every id of the guest is the same in the container.
pub(super) fn is_everyone(maps: &Maps) -> bool {
    maps.0 == [EVERYONE] && maps.1 == [EVERYONE]
}

/// The guest's id for one of the container's.
pub(super) fn outside(ranges: &[Range], id: u32) -> u32 {
    let fits = ranges.iter().find(|(inner, _, count)| id >= *inner && id - inner < *count);
    fits.map_or(id, |(inner, outer, _)| outer.saturating_add(id - inner))
}

/// Whether the container has that id.
pub(super) fn is_mapped(ranges: &[Range], id: u32) -> bool {
    ranges.iter().any(|(inner, _, count)| id >= *inner && id - inner < *count)
}

/// What is wrong with it.
pub(super) fn check(container: &Container) -> Option<Finding> {
    let mode = match mode(container) {
        Ok(mode) => mode,
        Err(finding) => return Some(finding),
    };
    let given = &container.user_namespace;
    let first = [&given.uid_maps, &given.gid_maps, &given.remap_uid, &given.remap_gid];
    let first = first.into_iter().flatten().next().or(given.mode.as_ref());
    let at = || first.map_or_else(|| container.span.clone(), |written| written.span.clone());
    if let Some(owner) = &container.owner {
        if matches!(mode, Mode::Subordinate(_)) {
            let written = subordinates(container)?.0;
            let message = "a user's container has that user's subordinate ids, and no others";
            return Some(
                wrong(&written.span, message)
                    .label("not among what he has")
                    .help("take the line out, or choose of his own with `UIDMap=`"),
            );
        }
        let is_left_to_us = matches!(mode, Mode::Auto { .. }) && given.chosen.is_none();
        let mode = if is_left_to_us { Mode::Host } else { mode.clone() };
        let asked = of_a_user(container, owner, mode);
        let own = intermediate(owner);
        for (ranges, own) in [(&asked.0, &own.0), (&asked.1, &own.1)] {
            if through(ranges, own).is_none() {
                let last: u32 = own.iter().map(|(_, _, count)| count).sum::<u32>() - 1;
                let message = format!("user `{}` has fewer ids than that", owner.name);
                return Some(
                    wrong(&at(), message)
                        .label(format!("expected ids from 0, himself, to {last}"))
                        .help("give him more with `subuid` and `subgid` of `[[user]]`"),
                );
            }
        }
    } else if mode == Mode::NoMap {
        let message = "`UserNS=nomap` leaves a user out, and this is a container of the system";
        return Some(
            wrong(&at(), message)
                .label("Podman refuses it as well")
                .help("take the line out, or write `UserNS=auto`"),
        );
    }
    if let Some(count) = wanted(container).filter(|_| given.chosen.is_none()) {
        let at = given.mode.as_ref().or(given.remap_users.as_ref()).map(|it| it.span.clone());
        let message = format!("there are no {count} ids left for this container");
        return Some(
            wrong(&at.unwrap_or_else(|| container.span.clone()), message)
                .label("too many of them")
                .help("ask for fewer: `UserNS=auto:size=1024`"),
        );
    }
    let has_size = matches!(mode, Mode::KeepId { size: Some(_), .. });
    if has_size && container.owner.is_none() {
        let message = "`size` of `UserNS=keep-id` is for containers of a `[[user]]`";
        return Some(
            wrong(&at(), message)
                .label("Podman refuses it as well")
                .help("leave `size` out: it has all ids of the guest"),
        );
    }
    let (uids, gids) = maps(container)?;
    let twice = overlaps(&uids) || overlaps(&gids);
    twice.then(|| {
        wrong(&at(), "two ranges of ids have one in common")
            .label("the kernel takes no such map")
            .help("see user_namespaces(7)")
    })
}

/// Of a container of the system.
fn of_the_guest(container: &Container, mode: Mode) -> Option<Maps> {
    let given = &container.user_namespace;
    match mode {
        Mode::Host | Mode::NoMap => None,
        Mode::KeepId { .. } => Some((vec![EVERYONE], vec![EVERYONE])),
        Mode::Maps(maps) => Some(maps),
        Mode::Auto { uids, gids, .. } => {
            let (first, count) = (given.chosen?, wanted(container)?);
            Some((around(uids, first, count), around(gids, first, count)))
        }
        Mode::Subordinate((uids, gids)) => {
            let both = |ids: &[Ids], more: Vec<Range>| in_a_row(ids).into_iter().chain(more);
            let uids = both(&given.sub_uids, uids).collect();
            Some((uids, both(&given.sub_gids, gids).collect()))
        }
    }
}

/// Of a user's: the second number is an index into what he has.
fn of_a_user(container: &Container, owner: &Rootless, mode: Mode) -> Maps {
    let all = |ids: Ids| vec![(0, 0, ids.count.saturating_add(1))];
    match mode {
        Mode::Host | Mode::Subordinate(_) => (all(owner.subuids), all(owner.subgids)),
        Mode::Maps(maps) => maps,
        Mode::NoMap => (vec![(0, 1, owner.subuids.count)], vec![(0, 1, owner.subgids.count)]),
        Mode::KeepId { uid, gid, size } => (
            keep(uid.unwrap_or(owner.uid), owner.subuids.count, size),
            keep(gid.unwrap_or(owner.gid), owner.subgids.count, size),
        ),
        Mode::Auto { uids, gids, .. } => {
            let first = container.user_namespace.chosen.unwrap_or(1);
            let count = wanted(container).unwrap_or(AUTO_OF_USERS);
            (around(uids, first, count), around(gids, first, count))
        }
    }
}

/// A user's ids by their indices.
pub(super) fn intermediate(owner: &Rootless) -> Maps {
    let own = |id: u32, ids: Ids| vec![(0, id, 1), (1, ids.first, ids.count)];
    (own(owner.uid, owner.subuids), own(owner.gid, owner.subgids))
}

/// The user himself as `id`, and his others around it. `size` is that of the namespace.
fn keep(id: u32, others: u32, size: Option<u32>) -> Vec<Range> {
    let others = size.map_or(others, |size| others.min(size.saturating_sub(1)));
    let before = (0, 1, id.min(others));
    let after = (id.saturating_add(1), id.saturating_add(1), others.saturating_sub(id));
    let ranges = [before, (id, 0, 1), after];
    ranges.into_iter().filter(|(_, _, count)| *count > 0).collect()
}

/// The ids of the container from 0, `count` of them, one after the other from `first` on, but for
/// those that stand in `given`.
fn around(given: Vec<Range>, first: u32, count: u32) -> Vec<Range> {
    let (mut ranges, mut next, mut inner) = (vec![], first, 0);
    let mut taken: Vec<(u32, u32)> = given.iter().map(|(at, _, count)| (*at, *count)).collect();
    taken.sort_unstable();
    for (at, many) in taken.into_iter().chain([(count, 0)]) {
        let rest = at.min(count).saturating_sub(inner);
        if rest > 0 {
            ranges.push((inner, next, rest));
            next = next.saturating_add(rest);
        }
        inner = inner.max(at.saturating_add(many));
    }
    ranges.extend(given);
    ranges
}

/// The ids of the container from 0, from range to range.
fn in_a_row(all: &[Ids]) -> Vec<Range> {
    let mut next = 0u32;
    let mut ranges = vec![];
    for ids in all {
        ranges.push((next, ids.first, ids.count));
        next = next.saturating_add(ids.count);
    }
    ranges
}

/// Both steps at once; None if there is no such id in the second.
fn through(ranges: &[Range], own: &[Range]) -> Option<Vec<Range>> {
    let mut all = vec![];
    for &(mut inner, mut index, mut count) in ranges {
        while count > 0 {
            let fits = |(first, _, many): &&Range| index >= *first && index - first < *many;
            let (first, outer, many) = own.iter().find(fits)?;
            let part = count.min(many - (index - first));
            all.push((inner, outer + (index - first), part));
            inner = inner.saturating_add(part);
            index += part;
            count -= part;
        }
    }
    Some(all)
}

fn overlaps(ranges: &[Range]) -> bool {
    let mut inner: Vec<_> = ranges.iter().map(|(inner, _, count)| (*inner, *count)).collect();
    let mut outer: Vec<_> = ranges.iter().map(|(_, outer, count)| (*outer, *count)).collect();
    [&mut inner, &mut outer].into_iter().any(|all| {
        all.sort_unstable();
        all.windows(2).any(|pair| pair[1].0 - pair[0].0 < pair[0].1)
    })
}

/// `container:guest[:count]`
fn range(text: &str) -> Option<Range> {
    let mut parts = text.split(':');
    let inner: u32 = parts.next()?.parse().ok()?;
    let outer: u32 = parts.next()?.parse().ok()?;
    let count: u32 = parts.next().map_or(Ok(1), str::parse).ok()?;
    let fits = count > 0 && inner.max(outer).checked_add(count).is_some();
    (parts.next().is_none() && fits).then_some((inner, outer, count))
}

/// What the keys ask for together.
fn mode(container: &Container) -> Result<Mode, Finding> {
    let given = &container.user_namespace;
    let maps = [&given.uid_maps, &given.gid_maps];
    let first_map = maps.into_iter().flatten().next();
    let subordinate = given.sub_uid.as_ref().or(given.sub_gid.as_ref());
    let named = given.mode.as_ref().filter(|mode| !matches!(mode.text.as_str(), "" | "host"));
    // Podman takes the two together, whatever its manual says.
    let all = [named, first_map.or(subordinate), given.remap_users.as_ref()];
    let mut all = all.into_iter().flatten();
    if let (Some(_), Some(second)) = (all.next(), all.next()) {
        let message = "two keys say which ids the container has";
        return Err(wrong(&second.span, message)
            .label("does not go together with the other")
            .help("keep `UserNS=`, `RemapUsers=`, or the ones that name ids"));
    }
    let remaps = [&given.remap_uid, &given.remap_gid];
    if let Some(remap) = &given.remap_users {
        return remapped(given, remap);
    }
    if let Some(first) = remaps.into_iter().flatten().next() {
        return Err(wrong(&first.span, "`RemapUid=` and `RemapGid=` need `RemapUsers=`")
            .label("says not how")
            .help("write `UIDMap=` or `GIDMap=` instead"));
    }
    match named {
        Some(named) => of_name(named),
        None => Ok(match (subordinate, both(&given.uid_maps, &given.gid_maps)?) {
            (Some(_), Mode::Maps(maps)) => Mode::Subordinate(maps),
            (Some(_), _) => Mode::Subordinate(Maps::default()),
            (None, mode) => mode,
        }),
    }
}

/// `UserNS=MODE[:OPTION,...]`
fn of_name(written: &Written) -> Result<Mode, Finding> {
    let (mode, options) = written.text.split_once(':').unwrap_or((&written.text, ""));
    let options: Vec<(&str, &str)> = options
        .split(',')
        .filter(|option| !option.is_empty())
        .map(|option| option.split_once('=').unwrap_or((option, "")))
        .collect();
    match mode {
        "auto" => auto(written, &options),
        "keep-id" => keep_id(written, &options),
        "nomap" if options.is_empty() => Ok(Mode::NoMap),
        "container" | "ns" => {
            Err(wrong(&written.span, format!("`UserNS={mode}:` joins the namespace of another"))
                .label("refused by the engine crun")
                .help("take it out, or set `engine = \"podman\"` in appliance.toml"))
        }
        _ => Err(wrong(&written.span, format!("`UserNS=` does not take `{}`", written.text))
            .label("expected host, auto, keep-id or nomap")
            .help("see podman-run(1), --userns")),
    }
}

fn auto(written: &Written, options: &[(&str, &str)]) -> Result<Mode, Finding> {
    let (mut size, mut uids, mut gids) = (None, vec![], vec![]);
    for (name, value) in options {
        let bad = || unknown(written, name, "size=N, uidmapping= or gidmapping=C:G:N");
        match *name {
            // None at all is as if it were not there.
            "size" => size = Some(value.parse().map_err(|_| bad())?).filter(|size| *size > 0),
            "uidmapping" => uids.push(range(value).ok_or_else(bad)?),
            "gidmapping" => gids.push(range(value).ok_or_else(bad)?),
            _ => return Err(bad()),
        }
    }
    Ok(Mode::Auto { size, uids, gids })
}

fn keep_id(written: &Written, options: &[(&str, &str)]) -> Result<Mode, Finding> {
    let (mut uid, mut gid, mut size) = (None, None, None);
    for (name, value) in options {
        let bad = || unknown(written, name, "uid=, gid= or size=, each with a number");
        let number = Some(value.parse().map_err(|_| bad())?).filter(|id| *id < u32::MAX);
        let number = number.ok_or_else(bad)?;
        match *name {
            "uid" => uid = Some(number),
            "gid" => gid = Some(number),
            "size" => size = Some(number),
            _ => return Err(bad()),
        }
    }
    Ok(Mode::KeepId { uid, gid, size })
}

fn unknown(written: &Written, option: &str, expected: &str) -> Finding {
    wrong(&written.span, format!("`{option}` of `{}` is not understood", written.text))
        .label(format!("expected {expected}"))
        .help("see podman-run(1), --userns")
}

/// `RemapUsers=`, the old way to say the same.
fn remapped(given: &UserNamespace, how: &Written) -> Result<Mode, Finding> {
    let options = |names: [&'static str; 2]| -> Vec<(&'static str, &str)> {
        let uids = given.remap_uid.iter().map(move |it| (names[0], it.text.as_str()));
        uids.chain(given.remap_gid.iter().map(move |it| (names[1], it.text.as_str()))).collect()
    };
    match how.text.as_str() {
        "manual" => both(&given.remap_uid, &given.remap_gid),
        "auto" => {
            let mut options = options(["uidmapping", "gidmapping"]);
            let size = given.remap_uid_size.iter().map(|size| ("size", size.text.as_str()));
            options.extend(size);
            auto(how, &options)
        }
        "keep-id" => keep_id(how, &options(["uid", "gid"])),
        other => Err(wrong(&how.span, format!("`RemapUsers=` does not take `{other}`"))
            .label("expected manual, auto or keep-id")
            .help("write `UserNS=` or `UIDMap=` instead")),
    }
}

/// Ranges in words. Podman takes the one for the other where only one is given.
fn both(uids: &[Written], gids: &[Written]) -> Result<Mode, Finding> {
    let ranges = |all: &[Written]| -> Result<Vec<Range>, Finding> {
        let one = |written: &Written| {
            range(&written.text).ok_or_else(|| {
                wrong(&written.span, format!("`{}` is no range of ids", written.text))
                    .label("expected `container:guest:count`")
                    .help("forms with `@` and `+` need Podman: `engine = \"podman\"`")
            })
        };
        all.iter().map(one).collect()
    };
    let (uids, gids) = (ranges(uids)?, ranges(gids)?);
    Ok(match (uids.is_empty(), gids.is_empty()) {
        (true, true) => Mode::Host,
        (false, true) => Mode::Maps((uids.clone(), uids)),
        (true, false) => Mode::Maps((gids.clone(), gids)),
        (false, false) => Mode::Maps((uids, gids)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::{Source, Span};
    use std::sync::Arc;

    fn written(text: &str) -> Written {
        let source = Arc::new(Source { path: "a.container".into(), text: String::new() });
        Written { text: text.into(), span: Span::file(&source) }
    }

    fn container(change: impl FnOnce(&mut UserNamespace)) -> Container {
        let mut container = Container::new(written("").span, "a.service", "a", "image");
        change(&mut container.user_namespace);
        container
    }

    fn with_mode(mode: &str) -> Container {
        container(|it| (it.mode, it.chosen) = (Some(written(mode)), Some(5000)))
    }

    fn of_ann(container: Container) -> Container {
        let (subuids, subgids) =
            (Ids { first: 100_000, count: 2000 }, Ids { first: 200_000, count: 2000 });
        let owner = Rootless { name: "ann".into(), uid: 1000, gid: 1001, subuids, subgids };
        Container { owner: Some(owner), ..container }
    }

    fn uids(container: &Container) -> Vec<Range> {
        assert_eq!(check(container), None);
        maps(container).unwrap().0
    }

    fn message(container: &Container) -> String {
        check(container).unwrap().message
    }

    #[test]
    fn ids_are_looked_up_in_ranges() {
        let ranges = [(0, 1000, 1), (1, 100_000, 10)];
        assert_eq!([0, 1, 5, 50].map(|id| outside(&ranges, id)), [1000, 100_000, 100_004, 50]);
        assert_eq!(range("0:1000:1"), Some((0, 1000, 1)));
        for wrong in ["@0:1", "0:1:0", "0:1:2:3", "0:4294967295:1"] {
            assert_eq!(range(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_system_has_ids_of_the_guest() {
        assert_eq!(maps(&container(|_| {})), None);
        assert_eq!(maps(&with_mode("host")), None);
        assert_eq!(uids(&with_mode("auto")), [(0, 5000, 65_536)]);
        assert_eq!(uids(&with_mode("auto:size=100")), [(0, 5000, 100)]);
        let around = [(0, 5000, 7), (8, 5007, 2), (7, 33, 1)];
        assert_eq!(uids(&with_mode("auto:size=10,uidmapping=7:33:1")), around);
        // Podman has it so as well: all ids, in a namespace of its own.
        assert_eq!(uids(&with_mode("keep-id")), [EVERYONE]);
        assert_eq!(kept(&with_mode("keep-id")), Some((0, 0)));
        assert_eq!(kept(&with_mode("keep-id:uid=7,gid=8")), Some((7, 8)));
        let sub = container(|it| {
            it.sub_gid = Some(written("ann"));
            it.sub_uids = vec![Ids { first: 9, count: 3 }, Ids { first: 20, count: 2 }];
            it.uid_maps = vec![written("100:5:1")];
        });
        assert_eq!(uids(&sub), [(0, 9, 3), (3, 20, 2), (100, 5, 1)]);
        let maps = container(|it| it.gid_maps = vec![written("0:7:9")]);
        assert_eq!(uids(&maps), [(0, 7, 9)]);
    }

    #[test]
    fn a_user_has_himself_and_his_subordinates() {
        let of = |mode: &str| uids(&of_ann(with_mode(mode)));
        assert_eq!(of("host"), [(0, 1000, 1), (1, 100_000, 2000)]);
        assert_eq!(of("nomap"), [(0, 100_000, 2000)]);
        assert_eq!(of("keep-id"), [(0, 100_000, 1000), (1000, 1000, 1), (1001, 101_000, 1000)]);
        assert_eq!(of("keep-id:uid=0"), [(0, 1000, 1), (1, 100_000, 2000)]);
        assert_eq!(of("keep-id:uid=9999"), [(0, 100_000, 2000), (9999, 1000, 1)]);
        let few = [(0, 100_000, 2), (2, 1000, 1), (3, 100_002, 2)];
        assert_eq!(of("keep-id:uid=2,size=5"), few);
        assert_eq!(kept(&of_ann(with_mode("keep-id"))), Some((1000, 1001)));
        assert_eq!(kept(&of_ann(with_mode("keep-id:gid=5"))), Some((1000, 5)));
        let auto = of_ann(container(|it| {
            (it.mode, it.chosen) = (Some(written("auto")), Some(11));
        }));
        assert_eq!(uids(&auto), [(0, 100_010, 1024)]);
        let chosen = of_ann(container(|it| {
            it.uid_maps = ["0:5:10", "33:0:1"].map(written).to_vec();
        }));
        assert_eq!(uids(&chosen), [(0, 100_004, 10), (33, 1000, 1)]);
        assert_eq!(maps(&chosen).unwrap().1, [(0, 200_004, 10), (33, 1001, 1)]);
        // Over the boundary of the two.
        let both = of_ann(container(|it| it.uid_maps = vec![written("7:0:3")]));
        assert_eq!(uids(&both), [(7, 1000, 1), (8, 100_000, 2)]);
    }

    #[test]
    fn the_old_keys_say_the_same() {
        let remap = |how: &str, uid: &str, size: &str| {
            container(|it| {
                it.remap_users = Some(written(how));
                it.remap_uid =
                    Some(written(uid)).filter(|it| !it.text.is_empty()).into_iter().collect();
                it.remap_uid_size = Some(written(size)).filter(|it| !it.text.is_empty());
                it.chosen = Some(5000);
            })
        };
        assert_eq!(uids(&remap("manual", "0:7:9", "")), [(0, 7, 9)]);
        assert_eq!(uids(&remap("auto", "", "8")), [(0, 5000, 8)]);
        assert_eq!(uids(&remap("auto", "0:7:1", "3")), [(1, 5000, 2), (0, 7, 1)]);
        assert_eq!(uids(&of_ann(remap("keep-id", "0", ""))), [(0, 1000, 1), (1, 100_000, 2000)]);
        assert!(message(&remap("often", "", "")).contains("does not take `often`"));
        let alone = container(|it| it.remap_uid = vec![written("0:7:9")]);
        assert!(message(&alone).contains("need `RemapUsers=`"));
    }

    #[test]
    fn what_cannot_be_had_is_said() {
        for (container, expected) in [
            (with_mode("nomap"), "a container of the system"),
            (with_mode("keep-id:size=5"), "is for containers of a `[[user]]`"),
            (with_mode("ns:/run/x"), "joins the namespace"),
            (with_mode("container:a"), "joins the namespace"),
            (with_mode("often"), "does not take `often`"),
            (with_mode("auto:size=x"), "`size` of"),
            (with_mode("keep-id:fish=1"), "`fish` of"),
            (of_ann(container(|it| it.uid_maps = vec![written("0:1:2001")])), "fewer ids"),
            (of_ann(container(|it| it.sub_uid = Some(written("ann")))), "no others"),
            (container(|it| it.mode = Some(written("auto"))), "no 65536 ids left"),
            (of_ann(container(|it| it.mode = Some(written("auto")))), "no 1024 ids left"),
            (container(|it| it.uid_maps = vec![written("0:@5:1")]), "no range of ids"),
            (container(|it| it.uid_maps = ["0:5:9", "8:50:9"].map(written).to_vec()), "in common"),
            (
                container(|it| {
                    it.uid_maps = vec![written("0:5:1")];
                    it.mode = Some(written("auto"));
                }),
                "two keys",
            ),
        ] {
            let finding = check(&container).unwrap();
            assert!(finding.message.contains(expected), "{}", finding.message);
            assert!(finding.help.is_some(), "{}", finding.message);
        }
    }
}
