//! `LoadCredential=` and `SetCredential=`: files below CREDENTIALS_DIRECTORY.

use crate::units::keys::Keys;
use crate::units::quoting;
use crate::units::value::{self, Expected};
use activator::manifest::{Credential, CredentialSource};

/// Where systemd looks for a credential that is given by name, in that order.
const STORES: [&str; 4] =
    ["/etc/credstore", "/run/credstore", "/usr/local/lib/credstore", "/usr/lib/credstore"];

/// Those of files first: a text is for what they do not give.
pub(super) fn read(keys: &mut Keys<'_>, section: &str) -> Vec<Credential> {
    let mut credentials = vec![];
    for line in keys.list(section, "LoadCredential") {
        let Some(text) = keys.expand(line) else { continue };
        let (name, path) = text.text.split_once(':').unwrap_or((&text.text, &text.text));
        if !is_name(name) {
            keys.bad(line, &NAME);
            continue;
        }
        let path = match path.starts_with('/') {
            true => value::path(path),
            false => stored(keys, path),
        };
        match path {
            Ok(path) => put(&mut credentials, name, CredentialSource::Path(path)),
            Err(expected) => keys.bad(line, &expected),
        }
    }
    for line in keys.list(section, "SetCredential") {
        let Some(text) = keys.expand(line) else { continue };
        match text.text.split_once(':').filter(|(name, _)| is_name(name)) {
            Some((name, text)) => {
                let bytes = quoting::decode(text).into_bytes();
                put(&mut credentials, name, CredentialSource::Text(bytes));
            }
            None => keys.bad(line, &NAME),
        }
    }
    credentials
}

const NAME: Expected = Expected::Other("`NAME:` and where it comes from");

/// A later line of the same key and name takes the earlier one's place.
fn put(credentials: &mut Vec<Credential>, name: &str, source: CredentialSource) {
    let kind = std::mem::discriminant(&source);
    let same =
        |old: &&mut Credential| old.name == name && std::mem::discriminant(&old.source) == kind;
    match credentials.iter_mut().find(same) {
        Some(old) => old.source = source,
        None => credentials.push(Credential { name: name.to_owned(), source }),
    }
}

/// A credential that is given by name: a file of the image.
fn stored(keys: &Keys<'_>, name: &str) -> Result<String, Expected> {
    let mut paths = STORES.iter().map(|store| format!("{store}/{name}"));
    let found = paths.find(|path| keys.facts.has_file(path) == Some(true));
    found.filter(|_| is_name(name)).ok_or(Expected::Other(
        "`NAME:/path`: without a path, the image needs the file /etc/credstore/NAME",
    ))
}

/// A file name that is no dot.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text != "."
        && text != ".."
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':')
}
