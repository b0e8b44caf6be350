//! Who the container's processes are: `User=`, `UserNS=` and its kin, and what came before them.

use super::container::Maker;
use super::lines::Text;
use crate::finding::Finding;
use crate::units::quoting::Escapes;
use crate::units::value::{self, Expected};

/// Adds the options.
pub(super) fn add(maker: &mut Maker<'_>) {
    user(maker);
    if !named(maker) {
        remapped(maker);
    }
}

/// Both in one option.
fn user(maker: &mut Maker<'_>) {
    match (maker.lines.last("User"), maker.lines.last("Group")) {
        (Some(user), None) => maker.run.option("--user", &user),
        (Some(user), Some(group)) => {
            let both = format!("{}:{}", user.text, group.text);
            maker.run.option("--user", &user.with(both));
        }
        (None, Some(group)) => maker.lines.findings.push(
            Finding::error(group.span, "`Group=` needs a `User=`")
                .label("a group alone")
                .help("add `User=`, `User=0` for root"),
        ),
        (None, None) => {}
    }
}

/// The keys of today; whether there are any.
fn named(maker: &mut Maker<'_>) -> bool {
    let mut found = false;
    let mut add = |maker: &mut Maker<'_>, option: &str, text: &Text| {
        maker.run.option(option, text);
        found = true;
    };
    if let Some(text) = maker.lines.last("UserNS") {
        add(maker, "--userns", &text);
    }
    for (key, option) in [("UIDMap", "--uidmap"), ("GIDMap", "--gidmap")] {
        for word in maker.lines.words(key, Escapes::Literal) {
            add(maker, option, &word);
        }
    }
    for (key, option) in [("SubUIDMap", "--subuidname"), ("SubGIDMap", "--subgidname")] {
        if let Some(text) = maker.lines.last(key) {
            add(maker, option, &text);
        }
    }
    let old = ["RemapUsers", "RemapUid", "RemapGid"];
    if let Some(old) = old.iter().find_map(|key| maker.lines.last(key)).filter(|_| found) {
        maker.lines.findings.push(
            Finding::error(
                old.span,
                "the `Remap` keys do not go together with those that name a user namespace",
            )
            .label("deprecated")
            .help("say all of it with `UserNS=`, `UIDMap=` and `GIDMap=`"),
        );
    }
    found
}

/// The deprecated ones.
fn remapped(maker: &mut Maker<'_>) {
    let uids = maker.lines.words("RemapUid", Escapes::Literal);
    let gids = maker.lines.words("RemapGid", Escapes::Literal);
    let Some(how) = maker.lines.last("RemapUsers") else {
        if let Some(first) = uids.iter().chain(&gids).next() {
            maker.lines.findings.push(
                Finding::error(
                    first.span.clone(),
                    "`RemapUid=` and `RemapGid=` need `RemapUsers=`",
                )
                .label("says not how")
                .help("write `UIDMap=` or `GIDMap=` instead"),
            );
        }
        return;
    };
    let mut options = vec![];
    let (kind, names) = match how.text.as_str() {
        "manual" => {
            uids.iter().for_each(|uid| maker.run.option("--uidmap", uid));
            gids.iter().for_each(|gid| maker.run.option("--gidmap", gid));
            return;
        }
        "auto" => ("auto", ["uidmapping", "gidmapping"]),
        "keep-id" => ("keep-id", ["uid", "gid"]),
        _ => {
            let expected = Expected::OneOf(&["manual", "auto", "keep-id"]);
            maker.lines.wrong("RemapUsers", &how, &expected);
            return;
        }
    };
    for (words, name) in [&uids, &gids].into_iter().zip(names) {
        if let ("keep-id", Some(second)) = (kind, words.get(1)) {
            let expected = Expected::Other("one id with `RemapUsers=keep-id`");
            maker.lines.wrong("RemapUid", second, &expected);
        }
        options.extend(words.iter().map(|word| format!("{name}={}", word.text)));
    }
    if let Some(size) = maker.lines.last("RemapUidSize").filter(|_| kind == "auto") {
        match value::unsigned(&size.text) {
            Ok(0) => {}
            Ok(size) => options.push(format!("size={size}")),
            Err(expected) => maker.lines.wrong("RemapUidSize", &size, &expected),
        }
    }
    let text = match options.is_empty() {
        true => kind.to_owned(),
        false => format!("{kind}:{}", options.join(",")),
    };
    maker.run.option("--userns", &how.with(text));
}
