//! `InRelease`: the signed list of a suite's indexes.

use super::signature::{self, Keyring};
use crate::cache::Hash;
use std::collections::BTreeMap;

/// Why a release is not to be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Its signature is bad.
    #[error("verify {url}")]
    Signature {
        /// Where it came from.
        url: String,
        /// Why.
        source: signature::Error,
    },
    /// A field that it must have is missing or cannot be read.
    #[error("read {url}: `{field}` is missing or malformed")]
    Field {
        /// Where it came from.
        url: String,
        /// The field.
        field: &'static str,
    },
    /// It is the release of another suite.
    #[error("use {url}: it is for suite {got}, not {expected}")]
    Suite {
        /// Where it came from.
        url: String,
        /// The suite that was asked for.
        expected: String,
        /// The one that it is for.
        got: String,
    },
    /// Its time is over: somebody may be holding back security updates.
    #[error("use {url}: it was valid until {until}")]
    Expired {
        /// Where it came from.
        url: String,
        /// Its `Valid-Until`.
        until: String,
    },
}

impl Error {
    /// Whether another try may get a better one: a mirror that is being updated mends itself.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Expired { .. })
    }
}

/// A release whose signature is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// `Date`, as written.
    pub date: String,
    /// Whether indexes can be fetched by their hash, which a mirror in the middle of an update
    /// does not break.
    pub by_hash: ByHash,
    files: BTreeMap<String, (Hash, u64)>,
}

/// `Acquire-By-Hash`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByHash {
    /// Indexes are served by hash, too.
    Yes,
    /// By their name alone.
    No,
}

/// Whether `Valid-Until` is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// It must not lie before this time, in seconds since 1970.
    At(i64),
    /// Any: for old snapshots.
    Ignored,
}

impl Expiry {
    /// Now, unless `ROUSE_DEBIAN_CHECK_VALID_UNTIL` is `no`.
    pub fn from_environment() -> Self {
        if std::env::var("ROUSE_DEBIAN_CHECK_VALID_UNTIL").is_ok_and(|value| value == "no") {
            return Self::Ignored;
        }
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self::At(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }
}

impl Release {
    /// Verifies and reads an InRelease that came from `url` and should be of `suite`.
    pub fn read(
        signed: &str,
        keyring: &Keyring,
        url: &str,
        suite: &str,
        expiry: Expiry,
    ) -> Result<Self, Error> {
        let text = keyring
            .verify(signed)
            .map_err(|source| Error::Signature { url: url.into(), source })?;
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let names: Vec<_> = [field("Codename"), field("Suite")].into_iter().flatten().collect();
        if !names.contains(&suite) {
            return Err(Error::Suite {
                url: url.into(),
                expected: suite.into(),
                got: names.first().copied().unwrap_or("?").into(),
            });
        }
        if let (Some(until), Expiry::At(now)) = (field("Valid-Until"), expiry) {
            let end = seconds(until)
                .ok_or_else(|| Error::Field { url: url.into(), field: "Valid-Until" })?;
            if end < now {
                return Err(Error::Expired { url: url.into(), until: until.into() });
            }
        }
        let files = files(&text);
        if files.is_empty() {
            return Err(Error::Field { url: url.into(), field: "SHA256" });
        }
        let by_hash = match field("Acquire-By-Hash") {
            Some("yes") => ByHash::Yes,
            _ => ByHash::No,
        };
        let date = field("Date").unwrap_or_default().to_owned();
        Ok(Self { date, by_hash, files })
    }

    /// Hash and size in bytes of a file, by its path in the suite's folder.
    pub fn file(&self, path: &str) -> Option<(Hash, u64)> {
        self.files.get(path).copied()
    }
}

/// The lines under `SHA256:`; of those, the indexes of packages.
fn files(text: &str) -> BTreeMap<String, (Hash, u64)> {
    text.lines()
        .skip_while(|line| !line.starts_with("SHA256:"))
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (hash, size, path) = (words.next()?, words.next()?, words.next()?);
            let wanted = path.rsplit('/').next()?.starts_with("Packages");
            wanted.then_some((path.to_owned(), (Hash::parse(hash)?, size.parse().ok()?)))
        })
        .collect()
}

/// `Sat, 28 Nov 2026 02:10:46 UTC` in seconds since 1970.
fn seconds(date: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = date.split_whitespace().skip(1);
    let day: i64 = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = i64::try_from(MONTHS.iter().position(|at| *at == name)?).ok()? + 1;
    let year: i64 = words.next()?.parse().ok()?;
    let mut clock = words.next()?.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if !matches!(words.next()?, "UTC" | "GMT" | "+0000" | "Z") {
        return None;
    }
    // Days from civil, with years that begin in March so that the leap day is the last.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::super::signature::tests::{key, sign};
    use super::*;

    const TEXT: &str = "Suite: stable\nCodename: trixie\nDate: Sat, 21 Nov 2026 02:10:46 UTC\n\
        Valid-Until: Sat, 28 Nov 2026 02:10:46 UTC\nAcquire-By-Hash: yes\nMD5Sum:\n x 1 Packages\n\
        SHA256:\n e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 7 \
        main/binary-amd64/Packages.xz\n \
        e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 7 main/Contents\nEnd: 1\n";

    fn read(text: &str, suite: &str, expiry: Expiry) -> Result<Release, Error> {
        let (public, secret) = key();
        let keyring = Keyring::of([&public[..]]).unwrap();
        Release::read(&sign(&secret, text), &keyring, "URL", suite, expiry)
    }

    #[test]
    fn a_release_is_read() {
        let release = read(TEXT, "trixie", Expiry::At(1_795_000_000)).unwrap();
        assert_eq!(release.by_hash, ByHash::Yes);
        assert_eq!(release.date, "Sat, 21 Nov 2026 02:10:46 UTC");
        let empty = Hash::of(b"");
        assert_eq!(release.file("main/binary-amd64/Packages.xz"), Some((empty, 7)));
        assert_eq!(release.file("main/Contents"), None);
        assert!(read(TEXT, "stable", Expiry::Ignored).is_ok());
    }

    #[test]
    fn a_release_that_is_late_or_of_another_suite_is_refused() {
        let until = "Sat, 28 Nov 2026 02:10:46 UTC".to_owned();
        assert_eq!(
            read(TEXT, "trixie", Expiry::At(1_800_000_000)),
            Err(Error::Expired { url: "URL".into(), until })
        );
        assert!(read(TEXT, "trixie", Expiry::Ignored).is_ok());
        let other =
            Error::Suite { url: "URL".into(), expected: "bookworm".into(), got: "trixie".into() };
        assert_eq!(read(TEXT, "bookworm", Expiry::Ignored), Err(other));
        let odd = TEXT.replace("28 Nov", "28 Foo");
        let field = Error::Field { url: "URL".into(), field: "Valid-Until" };
        assert_eq!(read(&odd, "trixie", Expiry::At(0)), Err(field));
    }

    #[test]
    fn dates_are_counted_as_date_counts_them() {
        // Each was checked with date -d.
        assert_eq!(seconds("Thu, 01 Jan 1970 00:00:00 UTC"), Some(0));
        assert_eq!(seconds("Sat, 28 Nov 2026 02:10:46 UTC"), Some(1_795_831_846));
        assert_eq!(seconds("Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
        assert_eq!(seconds("Sat, 28 Nov 2026 02:10:46 CET"), None);
        assert_eq!(seconds("tomorrow"), None);
    }
}
