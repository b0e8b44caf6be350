//! `SeccompProfile=`: Podman's own profile, a file of the guest, or none.

use super::{Context, seccomp, wrong};
use crate::container::Container;
use crate::finding::Finding;
use serde_json::Value;
use std::collections::BTreeSet;

/// `linux.seccomp`; null is no filter.
pub(super) fn of(
    container: &Container,
    context: Context<'_>,
    capabilities: &BTreeSet<&str>,
) -> Result<Value, Finding> {
    let convert = |text: &str, span| {
        seccomp::convert(text, context.architecture, capabilities)
            .map_err(|error| wrong(span, format!("failed to {error}")))
    };
    let Some(written) = &container.seccomp_profile else {
        return match context.seccomp.filter(|_| !container.extra.privileged) {
            Some(profile) => convert(profile, &container.span),
            None => Ok(Value::Null),
        };
    };
    if written.text == "unconfined" {
        return Ok(Value::Null);
    }
    let content = context.guest.and_then(|guest| guest.content(&written.text));
    let text = content.and_then(|content| std::str::from_utf8(content).ok());
    match text {
        Some(text) => convert(text, &written.span),
        None => {
            let message = format!("there is no seccomp profile `{}` in the guest", written.text);
            Err(wrong(&written.span, message)
                .label("expected an absolute path, or `unconfined`")
                .help("put the file there with `[files]` in appliance.toml"))
        }
    }
}
