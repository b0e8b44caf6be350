//! A container image in the lock.

use super::Stale;
use crate::debian::Package;
use crate::oci::source::Digest;
use serde::{Deserialize, Serialize};

/// An image that an appliance asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedImage {
    /// As `Image=` names it.
    pub reference: String,
    /// Where it comes from: `from`, `packages:` and their names, `containerfile:` with a hash of
    /// what it is built from.
    pub source: String,
}

/// What an image is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedImage {
    /// As `Image=` names it.
    pub reference: String,
    /// Where it comes from: see [`AskedImage::source`].
    pub source: String,
    /// Its manifest; None for one that is made of packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The packages that it is made of, with what they depend on, sorted by name.
    #[serde(rename = "package", default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<Package>,
}

impl LockedImage {
    /// What it is, for the hash of a section.
    pub(super) fn list(&self, list: &mut String) {
        let Self { reference, source, .. } = self;
        *list += &format!("image {reference} {source}\n");
        self.digest.iter().for_each(|digest| *list += &format!("{digest}\n"));
        self.packages.iter().for_each(|package| *list += &format!("{}\n", package.sha256));
    }

    /// Names and versions, to tell what has changed.
    pub(super) fn versions(&self) -> Vec<(String, String)> {
        let name = format!("image {}", self.reference);
        let packages = self.packages.iter();
        let packages =
            packages.map(|package| (format!("{name}: {}", package.name), package.version.clone()));
        let digest = self.digest.iter().map(|digest| (name.clone(), digest.to_string()));
        digest.chain(packages).collect()
    }
}

/// Whether what is locked is what is asked for.
pub(super) fn cover(locked: &[LockedImage], asked: &[AskedImage]) -> Result<(), Stale> {
    let same = |one: &LockedImage, other: &AskedImage| {
        one.reference == other.reference && one.source == other.source
    };
    if let Some(image) = asked.iter().find(|image| !locked.iter().any(|it| same(it, image))) {
        return Err(Stale::Image(image.reference.clone()));
    }
    match locked.iter().find(|image| !asked.iter().any(|it| same(image, it))) {
        Some(image) => Err(Stale::SuperfluousImage(image.reference.clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Hash;

    fn locked(reference: &str, source: &str) -> LockedImage {
        let digest = Some(Digest(Hash::of(source.as_bytes())));
        LockedImage { reference: reference.into(), source: source.into(), digest, packages: vec![] }
    }

    fn asked(reference: &str, source: &str) -> AskedImage {
        AskedImage { reference: reference.into(), source: source.into() }
    }

    #[test]
    fn a_lock_covers_the_same_images_from_the_same_places() {
        let lock = [locked("a", "oci:x"), locked("b", "docker://q.io/b:1")];
        let same = [asked("b", "docker://q.io/b:1"), asked("a", "oci:x")];
        assert_eq!(cover(&lock, &same), Ok(()));
        assert_eq!(cover(&lock, &same[1..]), Err(Stale::SuperfluousImage("b".into())));
        let moved = [asked("a", "oci:y"), asked("b", "docker://q.io/b:1")];
        assert_eq!(cover(&lock, &moved), Err(Stale::Image("a".into())));
        assert_eq!(cover(&lock[..1], &same), Err(Stale::Image("b".into())));
    }

    #[test]
    fn a_new_digest_is_a_change() {
        let one = locked("a", "oci:x");
        let other = LockedImage { digest: Some(Digest(Hash::of(b"new"))), ..one.clone() };
        assert_ne!(one.versions(), other.versions());
        let list = |image: &LockedImage| {
            let mut list = String::new();
            image.list(&mut list);
            list
        };
        assert_ne!(list(&one), list(&other));
    }
}
