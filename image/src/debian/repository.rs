//! The archive as one thing: its suites, their indexes, and what is chosen from them.

use super::download::Client;
use super::fetch::fetch_blob;
use super::index::{self, Index};
use super::release::{ByHash, Expiry, Release};
use super::signature::Keyring;
use super::solver::{self, Universe};
use super::{Architecture, Archive, Error, Mirror, Package, download, release};
use crate::cache::{Cache, Hash};
use crate::terminal::{self, Measure, Task};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Debian's public snapshot archive.
const SNAPSHOT: &str = "http://snapshot.debian.org";
/// The longest InRelease, in bytes; trixie's has 140,000.
const LONGEST_RELEASE: u64 = 16 << 20;

/// Debian, as it can be reached from here.
#[derive(Debug)]
pub struct Debian {
    pub(super) cache: Cache,
    pub(super) mirror: Mirror,
    pub(super) client: Client,
    /// Base URL of the snapshot archive.
    pub(super) snapshot: String,
    /// None is Debian's own.
    pub(super) keyring: Option<Keyring>,
    expiry: Expiry,
    /// What was read in this process.
    suites: Mutex<BTreeMap<(String, Architecture), Arc<Suite>>>,
}

/// A suite with its updates, for one architecture.
#[derive(Debug)]
pub struct Suite {
    indexes: Vec<Index>,
}

impl Suite {
    /// What can be chosen. Takes some 50 ms: for several questions, ask once.
    pub fn universe(&self) -> Universe<'_> {
        Universe::new(&self.indexes)
    }
}

impl Debian {
    /// With the mirror of the configuration, if it names one: see [`Mirror::find`].
    /// `ROUSE_SNAPSHOT_MIRROR` names another snapshot archive than Debian's.
    pub fn new(cache: Cache, mirror: Option<&str>) -> Self {
        let snapshot = std::env::var("ROUSE_SNAPSHOT_MIRROR").unwrap_or_else(|_| SNAPSHOT.into());
        Self {
            cache,
            mirror: Mirror::find(mirror),
            client: Client::new(),
            snapshot: snapshot.trim_end_matches('/').to_owned(),
            keyring: None,
            expiry: Expiry::from_environment(),
            suites: Mutex::default(),
        }
    }

    /// The cache that it fetches into.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The mirror that is asked.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// The closure of some packages as the mirror has them today, sorted by name.
    pub fn resolve(
        &self,
        suite: &str,
        architecture: Architecture,
        roots: &[impl AsRef<str>],
    ) -> Result<Vec<Package>, Error> {
        Ok(self.suite(suite, architecture)?.universe().resolve(roots)?)
    }

    /// A package without what it depends on: for its files, not to be run.
    pub fn resolve_alone(
        &self,
        suite: &str,
        architecture: Architecture,
        name: &str,
    ) -> Result<Package, Error> {
        let suite = self.suite(suite, architecture)?;
        let universe = suite.universe();
        let unknown = || solver::Error::Unknown { name: name.into() };
        let found = universe.find(name).ok_or_else(unknown)?;
        let incomplete = || solver::Error::Incomplete { name: name.into() };
        Ok(found.package().ok_or_else(incomplete)?)
    }

    /// The kernel package that a kernel's metapackage (`linux-image-cloud-amd64`) stands for today,
    /// without what that depends on: an appliance makes its own initramfs.
    pub fn resolve_kernel(
        &self,
        suite: &str,
        architecture: Architecture,
        metapackage: &str,
    ) -> Result<Package, Error> {
        let suite = self.suite(suite, architecture)?;
        let universe = suite.universe();
        let unknown = || solver::Error::Unknown { name: metapackage.into() };
        let meta = universe.find(metapackage).ok_or_else(unknown)?;
        let real = meta
            .depends()
            .into_iter()
            .flat_map(super::relation::terms)
            .find(|term| term.name.starts_with("linux-image-"))
            .and_then(|term| universe.find(term.name))
            .unwrap_or(meta);
        let incomplete = || solver::Error::Incomplete { name: real.name().into() };
        Ok(real.package().ok_or_else(incomplete)?)
    }

    /// A suite with `-updates` and `-security`, signatures verified. Read once in a process.
    pub fn suite(&self, name: &str, architecture: Architecture) -> Result<Arc<Suite>, Error> {
        let key = (name.to_owned(), architecture);
        let mut suites = self.suites.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(suite) = suites.get(&key) {
            return Ok(suite.clone());
        }
        let mut indexes = vec![self.index(Archive::Debian, name, architecture)?];
        let more = [(Archive::Debian, "updates"), (Archive::DebianSecurity, "security")];
        for (archive, pocket) in more {
            match self.index(archive, &format!("{name}-{pocket}"), architecture) {
                Ok(index) => indexes.push(index),
                // A private mirror may do without; what is there and is not right is an error.
                Err(Error::Download(
                    error @ (download::Error::NotFound { .. }
                    | download::Error::Unreachable { .. }
                    | download::Error::Status { .. }),
                )) => terminal::warn(format!("{name}-{pocket} is left out: failed to {error}")),
                Err(error) => return Err(error),
            }
        }
        let suite = Arc::new(Suite { indexes });
        suites.insert(key, suite.clone());
        Ok(suite)
    }

    fn index(
        &self,
        archive: Archive,
        suite: &str,
        architecture: Architecture,
    ) -> Result<Index, Error> {
        let base = format!("{}/dists/{suite}", self.mirror.url(archive));
        let url = format!("{base}/InRelease");
        let signed = self.client.text(&url, LONGEST_RELEASE)?;
        let signed = String::from_utf8_lossy(&signed);
        let trusted;
        let keyring = match &self.keyring {
            Some(keyring) => keyring,
            None => {
                trusted = Keyring::debian()
                    .map_err(|source| release::Error::Signature { url: url.clone(), source })?;
                &trusted
            }
        };
        let release = Release::read(&signed, keyring, &url, suite, self.expiry)?;
        let path = format!("main/binary-{architecture}/Packages.xz");
        let (hash, size) = release.file(&path).ok_or_else(|| index::Error::Missing {
            url: url.clone(),
            architecture: architecture.debian(),
        })?;
        let url = match release.by_hash {
            ByHash::Yes => format!("{base}/main/binary-{architecture}/by-hash/SHA256/{hash}"),
            ByHash::No => format!("{base}/{path}"),
        };
        let place = format!("{base}/{path}");
        let text = self.condensed((&url, &place), suite, size, hash)?;
        Ok(Index::read(archive, text))
    }

    /// An index without what is not needed: from the cache, or downloaded.
    /// A newer one of the same place takes the older one's room.
    fn condensed(
        &self,
        (url, place): (&str, &str),
        suite: &str,
        size: u64,
        hash: Hash,
    ) -> Result<String, Error> {
        let key = format!("packages-1-{}", Hash::of(place.as_bytes()));
        let first_line = format!("{hash}\n");
        if let Some(text) = self.cache.made(&key)?.and_then(|text| String::from_utf8(text).ok())
            && text.starts_with(&first_line)
        {
            return Ok(text);
        }
        let label = format!("downloading the index of {suite}");
        let task = Task::begin(label, Measure::Bytes, size);
        let path = fetch_blob(&self.cache, &self.client, url, size, hash, &task)?;
        drop(task);
        let _task = Task::begin(format!("reading the index of {suite}"), Measure::None, 0);
        let malformed = |error: std::io::Error| index::Error::Malformed {
            url: url.to_owned(),
            reason: error.to_string(),
        };
        let file = std::fs::File::open(path).map_err(malformed)?;
        let reader = lzma_rust2::XzReader::new(std::io::BufReader::new(file), true);
        let text = first_line + &index::condense(url, reader)?;
        self.cache.store_made(&key, text.as_bytes())?;
        self.cache.remove_blob(hash)?;
        Ok(text)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::deb::tests::xz;
    use super::super::server::Server;
    use super::super::signature::tests::{key, sign};
    use super::*;
    use std::path::Path;
    use std::time::Duration;

    /// The archive that a server has under `/debian`, trusted by no key yet, with an empty cache.
    pub(in crate::debian) fn debian(server: &Server) -> (tempfile::TempDir, Debian) {
        let folder = tempfile::tempdir().unwrap();
        let debian = debian_at(server, folder.path());
        (folder, debian)
    }

    pub(in crate::debian) fn debian_at(server: &Server, cache: &Path) -> Debian {
        Debian {
            cache: Cache::open_at(cache).unwrap(),
            mirror: Mirror::at(&format!("{}/debian", server.url())),
            client: Client::with(None, Duration::from_millis(1)),
            snapshot: format!("{}/snapshot", server.url()),
            keyring: None,
            expiry: Expiry::At(1_790_000_000),
            suites: Mutex::default(),
        }
    }

    /// Puts a signed suite onto a server, for amd64.
    pub(in crate::debian) fn publish(
        server: &Server,
        archive: &str,
        suite: &str,
        packages: &str,
        secret: &pgp::composed::SignedSecretKey,
    ) {
        let index = xz(packages.as_bytes());
        let hash = Hash::of(&index);
        let base = format!("/{archive}/dists/{suite}");
        let release = format!(
            "Codename: {suite}\nValid-Until: Sat, 28 Nov 2026 02:10:46 UTC\nAcquire-By-Hash: yes\n\
            SHA256:\n {hash} {} main/binary-amd64/Packages.xz\n",
            index.len()
        );
        server.put(&format!("{base}/InRelease"), sign(secret, &release));
        server.put(&format!("{base}/main/binary-amd64/by-hash/SHA256/{hash}"), index);
    }

    pub(in crate::debian) fn stanza(name: &str, version: &str, depends: &str) -> String {
        let hash = Hash::of(name.as_bytes());
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nDepends: {depends}\n\
            Filename: pool/{name}.deb\nSize: 1\nSHA256: {hash}\n\n"
        )
    }

    #[test]
    fn a_suite_is_verified_read_and_has_its_updates() {
        let server = Server::start();
        let (public, secret) = key();
        let main = stanza("a", "1", "b") + &stanza("b", "1", "");
        publish(&server, "debian", "trixie", &main, &secret);
        publish(&server, "debian", "trixie-updates", &stanza("a", "1.1", "b"), &secret);
        let security = stanza("b", "1+deb13u1", "");
        publish(&server, "debian-security", "trixie-security", &security, &secret);
        let (folder, mut debian) = debian(&server);
        debian.keyring = Some(Keyring::of([&public[..]]).unwrap());
        let packages = debian.resolve("trixie", Architecture::Amd64, &["a"]).unwrap();
        let shown: Vec<_> =
            packages.iter().map(|at| (at.name.as_str(), at.version.as_str(), at.archive)).collect();
        assert_eq!(
            shown,
            [("a", "1.1", Archive::Debian), ("b", "1+deb13u1", Archive::DebianSecurity)]
        );
        // In another process only the three releases are asked for again.
        let before = server.log().len();
        let mut later = debian_at(&server, folder.path());
        later.keyring = debian.keyring.take();
        assert_eq!(later.resolve("trixie", Architecture::Amd64, &["a"]).unwrap(), packages);
        let asked: Vec<_> = server.log().into_iter().skip(before).map(|(path, _)| path).collect();
        assert_eq!(asked.len(), 3);
        assert!(asked.iter().all(|path| path.ends_with("/InRelease")), "{asked:?}");
    }

    #[test]
    fn a_mirror_without_security_will_do_and_one_with_a_bad_signature_will_not() {
        let server = Server::start();
        let (public, secret) = key();
        publish(&server, "debian", "trixie", &stanza("a", "1", ""), &secret);
        let (_folder, mut debian) = debian(&server);
        debian.keyring = Some(Keyring::of([&public[..]]).unwrap());
        assert!(debian.resolve("trixie", Architecture::Amd64, &["a"]).is_ok());

        let (_, other) = key();
        publish(&server, "debian-security", "trixie-security", &stanza("a", "2", ""), &other);
        let keyring = debian.keyring.take();
        let mut later = debian_at(&server, debian.cache.root());
        later.keyring = keyring;
        let error = later.resolve("trixie", Architecture::Amd64, &["a"]).unwrap_err();
        assert!(matches!(error, Error::Release(release::Error::Signature { .. })), "{error:?}");
    }

    #[test]
    fn debians_keys_trust_nobody_else() {
        let server = Server::start();
        let (_, secret) = key();
        publish(&server, "debian", "trixie", &stanza("a", "1", ""), &secret);
        let (_folder, debian) = debian(&server);
        let error = debian.resolve("trixie", Architecture::Amd64, &["a"]).unwrap_err();
        assert!(matches!(error, Error::Release(release::Error::Signature { .. })), "{error:?}");
    }

    #[test]
    fn an_architecture_that_the_suite_lacks_is_named() {
        let server = Server::start();
        let (public, secret) = key();
        publish(&server, "debian", "trixie", &stanza("a", "1", ""), &secret);
        let (_folder, mut debian) = debian(&server);
        debian.keyring = Some(Keyring::of([&public[..]]).unwrap());
        let error = debian.resolve("trixie", Architecture::Arm64, &["a"]).unwrap_err();
        assert!(
            matches!(error, Error::Index(index::Error::Missing { architecture: "arm64", .. })),
            "{error:?}"
        );
    }

    #[test]
    fn a_kernels_metapackage_stands_for_the_newest_kernel() {
        let server = Server::start();
        let (public, secret) = key();
        let main = stanza("linux-image-cloud-amd64", "6.2", "linux-image-6.2 (= 6.2-1)")
            + &stanza("linux-image-6.2", "6.2-1", "kmod, initramfs-tools | dracut");
        publish(&server, "debian", "trixie", &main, &secret);
        let (_folder, mut debian) = debian(&server);
        debian.keyring = Some(Keyring::of([&public[..]]).unwrap());
        let kernel =
            debian.resolve_kernel("trixie", Architecture::Amd64, "linux-image-cloud-amd64");
        assert_eq!(kernel.unwrap().name, "linux-image-6.2");
    }
}
