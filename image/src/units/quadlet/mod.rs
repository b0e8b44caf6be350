//! `.container` files (podman-systemd.unit(5)): which keys there are, and what they become.

pub(crate) mod arguments;
pub(crate) mod build;
mod build_options;
mod capability;
pub(crate) mod container;
pub(crate) mod health;
pub(crate) mod ids;
pub(crate) mod image;
mod inherit;
mod limits;
mod network;
mod preparation;
mod reader;
pub(crate) mod resource;
pub(crate) mod service;
mod storage;
mod table;

pub use inherit::inherit;

use super::suggest;
use super::syntax::{Assignment, shorten};
use super::table::Class;
use super::value;
use crate::finding::Finding;

/// What to do about a key that needs Podman.
const USE_PODMAN: &str = "take the line out, or set `engine = \"podman\"` in appliance.toml";

/// Checks one assignment of `[Container]` or `[Quadlet]`, where an unknown key is an error, as
/// it is for Podman.
pub(super) fn check(found: &Assignment, findings: &mut Vec<Finding>) {
    let Some(class) = is_known(found, findings) else { return };
    let key = &found.key;
    let value = found.value.text.as_str();
    match class {
        Class::Honoured => {}
        Class::Harmless(why) => {
            findings.push(Finding::note(found.key_span.clone(), format!("`{key}=` {why}")));
        }
        Class::Refused(_) if value.is_empty() || is_no(key, value) => {}
        Class::Refused(why) => {
            findings.push(
                Finding::error(found.key_span.clone(), format!("`{key}=` {why}"))
                    .label("refused by the engine crun")
                    .help(USE_PODMAN),
            );
        }
    }
}

/// The class of a key; an unknown one is an error.
pub(super) fn is_known(found: &Assignment, findings: &mut Vec<Finding>) -> Option<Class> {
    let keys = match found.section.as_str() {
        "Container" => table::CONTAINER,
        _ => table::QUADLET,
    };
    let key = &found.key;
    if let Some((_, class)) = keys.iter().find(|(known, _)| known == key) {
        return Some(*class);
    }
    let help = match suggest::nearest(key, keys.iter().map(|(key, _)| *key)) {
        Some(near) => format!("did you mean `{near}=`?"),
        None => "see podman-systemd.unit(5) for the keys that there are".into(),
    };
    let message = format!("`{}=` is unknown in `[{}]`", shorten(key), found.section);
    findings.push(Finding::error(found.key_span.clone(), message).label("unknown").help(help));
    None
}

/// "No" to a question; other keys take names and numbers, of which 0 is one.
fn is_no(key: &str, value: &str) -> bool {
    key == "StartWithPod" && matches!(value::boolean(value), Ok(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Source;
    use crate::units::syntax::{self, Dialect};
    use std::sync::Arc;

    #[test]
    fn a_key_that_needs_podman_is_refused_at_its_line_with_a_next_step() {
        let refused =
            table::CONTAINER.iter().filter(|(_, class)| matches!(class, Class::Refused(_)));
        for (key, _) in refused {
            let text = format!("[Container]\nImage=x\n{key}=yes\n");
            let source = Arc::new(Source { path: "a.container".into(), text });
            let mut findings = vec![];
            let file = syntax::parse(&source, Dialect::Quadlet, &mut findings);
            file.assignments.iter().for_each(|found| check(found, &mut findings));
            let [finding] = &findings[..] else { panic!("{key}: {findings:?}") };
            let line = finding.one_line();
            assert!(line.starts_with(&format!("a.container:3:1: error: `{key}=` ")), "{line}");
            let help = finding.help.as_deref().unwrap_or_default();
            assert!(help.contains("engine = \"podman\""), "{help}");
        }
    }
}
