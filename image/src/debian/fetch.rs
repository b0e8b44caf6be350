//! Brings locked packages into the cache: from the mirror, else from Debian's snapshot archive.

use super::download::{self, Client};
use super::{Debian, Error, Package};
use crate::cache::{Cache, Hash};
use crate::terminal::{Measure, Task};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Downloads at the same time.
const PARALLEL: usize = 4;
/// The longest answer of the snapshot archive about one package, in bytes.
const LONGEST_ANSWER: u64 = 1 << 20;

impl Debian {
    /// The files of some packages, in their order. Asks nobody for what the cache has. Every file
    /// has the hash that its package says.
    pub fn fetch(&self, packages: &[Package]) -> Result<Vec<PathBuf>, Error> {
        let mut paths = Vec::with_capacity(packages.len());
        for package in packages {
            paths.push(self.cache.blob(package.sha256)?);
        }
        let missing: Vec<usize> = (0..packages.len()).filter(|at| paths[*at].is_none()).collect();
        if !missing.is_empty() {
            let bytes = missing.iter().map(|at| packages[*at].size).sum();
            let label = format!("downloading {} Debian packages", missing.len());
            let task = Task::begin(label, Measure::Bytes, bytes);
            let fetched = parallel(&missing, |at| self.fetch_one(&packages[at], &task))?;
            for (at, path) in missing.into_iter().zip(fetched) {
                paths[at] = Some(path);
            }
        }
        Ok(paths.into_iter().flatten().collect())
    }

    fn fetch_one(&self, package: &Package, task: &Task) -> Result<PathBuf, Error> {
        let url = format!("{}/{}", self.mirror.url(package.archive), escaped(&package.path, "/"));
        match fetch_blob(&self.cache, &self.client, &url, package.size, package.sha256, task) {
            Err(Error::Download(download::Error::NotFound { .. })) => {}
            other => return other,
        }
        self.fetch_from_snapshot(package, task).map_err(|error| match error {
            Error::Download(
                source @ (download::Error::NotFound { .. } | download::Error::Unreachable { .. }),
            ) => Error::Gone {
                package: Box::new(package.clone()),
                snapshot: self.snapshot.clone(),
                source: Box::new(source),
            },
            error => error,
        })
    }

    /// By name and version, then by the SHA-1 that the snapshot archive keeps its files under (see
    /// its machine-readable interface, `/mr/`). The file is still checked by its sha256.
    fn fetch_from_snapshot(&self, package: &Package, task: &Task) -> Result<PathBuf, Error> {
        let url = format!(
            "{}/mr/binary/{}/{}/binfiles",
            self.snapshot,
            escaped(&package.name, ""),
            escaped(&package.version, "")
        );
        let answer = self.client.text(&url, LONGEST_ANSWER)?;
        let answer: Answer = serde_json::from_slice(&answer).unwrap_or_default();
        let file = answer.result.iter().find(|file| file.architecture == package.architecture);
        let Some(file) = file else {
            return Err(download::Error::NotFound { url, status: 404 }.into());
        };
        let url = format!("{}/file/{}", self.snapshot, escaped(&file.hash, ""));
        fetch_blob(&self.cache, &self.client, &url, package.size, package.sha256, task)
    }
}

/// What the snapshot archive says about the files of a binary package.
#[derive(Default, serde::Deserialize)]
struct Answer {
    #[serde(default)]
    result: Vec<AnswerFile>,
}

#[derive(serde::Deserialize)]
struct AnswerFile {
    architecture: String,
    hash: String,
}

/// Brings one file into the cache. Of two processes that want it, one downloads and the other waits.
pub(super) fn fetch_blob(
    cache: &Cache,
    client: &Client,
    url: &str,
    size: u64,
    hash: Hash,
    task: &Task,
) -> Result<PathBuf, Error> {
    let _guard = cache.lock(&hash.to_string())?;
    if let Some(path) = cache.blob(hash)? {
        task.advance(size);
        return Ok(path);
    }
    let mut blob = cache.write_blob()?;
    client.blob(url, size, hash, &mut blob, task)?;
    Ok(blob.finish(hash)?)
}

/// Does `work` for each, several at the same time. After an error none is begun; of several errors
/// the one of the first in order is given.
fn parallel<T: Send>(
    items: &[usize],
    work: impl Fn(usize) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, Result<T, Error>)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL.min(items.len()) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = work(*item);
                    if result.is_err() {
                        next.store(items.len(), Ordering::Relaxed);
                    }
                    results
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .push((*item, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by_key(|(item, _)| *item);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Percent-encodes what has a meaning in a URL, but for `kept`.
fn escaped(text: &str, kept: &str) -> String {
    text.chars()
        .map(|at| match at {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' | '_' | '~' => at.to_string(),
            at if kept.contains(at) => at.to_string(),
            at => at.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Archive;
    use super::super::repository::tests::{debian, debian_at};
    use super::super::server::{Fault, Server};
    use super::*;

    fn package(name: &str, content: &[u8]) -> Package {
        Package {
            name: name.into(),
            version: "1:2+b1".into(),
            architecture: "amd64".into(),
            archive: Archive::Debian,
            path: format!("pool/{name}_2+b1_amd64.deb"),
            size: content.len() as u64,
            sha256: Hash::of(content),
        }
    }

    #[test]
    fn packages_come_in_their_order_and_the_second_time_from_the_cache() {
        let server = Server::start();
        let contents: Vec<Vec<u8>> = (0..12).map(|at| vec![at; 1000]).collect();
        let packages: Vec<_> = contents
            .iter()
            .enumerate()
            .map(|(at, content)| {
                server.put(&format!("/debian/pool/p{at}_2%2Bb1_amd64.deb"), content.clone());
                package(&format!("p{at}"), content)
            })
            .collect();
        let (_folder, debian) = debian(&server);
        let paths = debian.fetch(&packages).unwrap();
        let read: Vec<_> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
        assert_eq!(read, contents);
        let asked = server.log().len();
        assert_eq!(debian.fetch(&packages).unwrap(), paths);
        assert_eq!(server.log().len(), asked);
    }

    #[test]
    fn a_package_that_the_mirror_dropped_comes_from_the_snapshots() {
        let server = Server::start();
        let answer = r#"{"result": [{"architecture": "arm64", "hash": "a0"},
            {"architecture": "amd64", "hash": "b1"}]}"#;
        server.put("/snapshot/mr/binary/gone/1%3A2%2Bb1/binfiles", answer);
        server.put("/snapshot/file/b1", "content");
        let (_folder, debian) = debian(&server);
        let paths = debian.fetch(&[package("gone", b"content")]).unwrap();
        assert_eq!(std::fs::read(&paths[0]).unwrap(), b"content");
        // The cache is asked before both.
        server.remove("/snapshot/file/b1");
        assert_eq!(debian.fetch(&[package("gone", b"content")]).unwrap(), paths);
    }

    #[test]
    fn a_snapshot_with_another_content_is_not_taken() {
        let server = Server::start();
        let answer = r#"{"result": [{"architecture": "amd64", "hash": "b1"}]}"#;
        server.put("/snapshot/mr/binary/gone/1%3A2%2Bb1/binfiles", answer);
        server.put("/snapshot/file/b1", "contort");
        let (_folder, debian) = debian(&server);
        let error = debian.fetch(&[package("gone", b"content")]).unwrap_err();
        assert!(matches!(error, Error::Download(download::Error::WrongHash { .. })));
    }

    #[test]
    fn a_package_that_is_gone_everywhere_is_named_with_the_way_out() {
        let server = Server::start();
        let (_folder, debian) = debian(&server);
        server.put("/debian/pool/there_2%2Bb1_amd64.deb", "there");
        let packages = [package("there", b"there"), package("gone", b"content")];
        let error = debian.fetch(&packages).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("fetch gone 1:2+b1 (amd64): the mirror has dropped it"), "{text}");
        assert!(error.hint().unwrap().contains("rouse lock"));
        assert!(!error.is_temporary());
        // An answer that knows only another architecture is as good as none.
        let answer = r#"{"result": [{"architecture": "arm64", "hash": "b1"}]}"#;
        server.put("/snapshot/mr/binary/gone/1%3A2%2Bb1/binfiles", answer);
        assert!(matches!(debian.fetch(&packages), Err(Error::Gone { .. })));
    }

    #[test]
    fn a_truncated_download_leaves_nothing_behind() {
        let server = Server::start();
        let path = "/debian/pool/a_2%2Bb1_amd64.deb";
        server.put(path, "content");
        server.fail(path, &[Fault::Short(3); 9]);
        server.ignore_ranges();
        let (folder, debian) = debian(&server);
        let error = debian.fetch(&[package("a", b"content")]).unwrap_err();
        assert!(error.is_temporary());
        assert!(
            matches!(error, Error::Download(download::Error::Size { expected: 7, got: 3, .. })),
            "{error:?}"
        );
        for name in ["blobs", "scratch"] {
            assert_eq!(std::fs::read_dir(folder.path().join(name)).unwrap().count(), 0);
        }
    }

    #[test]
    fn two_processes_that_want_the_same_download_it_once() {
        let server = Server::start();
        server.put("/debian/pool/a_2%2Bb1_amd64.deb", "content");
        let (folder, one) = debian(&server);
        let other = debian_at(&server, folder.path());
        let packages = [package("a", b"content")];
        std::thread::scope(|scope| {
            for debian in [&one, &other] {
                scope.spawn(|| debian.fetch(&packages).unwrap());
            }
        });
        assert_eq!(server.log().len(), 1);
    }
}
