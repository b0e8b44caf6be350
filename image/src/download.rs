//! HTTP: one file, retried, resumed, and checked while it comes.

#[cfg(test)]
pub(crate) mod server;
mod trust;

use crate::cache::{self, BlobWriter, Hash};
use crate::terminal::Task;
use std::io::{self, Read};
use std::time::Duration;
pub use trust::TrustError;
use ureq::tls::TlsConfig;

/// How often a download is tried.
const TRIES: u32 = 5;
/// Between the first two tries; doubled after each.
const PAUSE: Duration = Duration::from_millis(500);
/// A server that is silent for so long is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// Why a download failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server does not have it.
    #[error("download {url}: the server does not have it ({status})")]
    NotFound {
        /// What was asked for.
        url: String,
        /// The HTTP status: 404 or 410.
        status: u16,
    },
    /// The server answers something else than the file.
    #[error("download {url}: the server answered {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// There is no way to the server.
    #[error("download {url}: the server cannot be reached")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke or fell silent, each time that it was tried.
    #[error("download {url}: it broke off after {got} bytes")]
    Broken {
        /// What was asked for.
        url: String,
        /// Bytes that came.
        got: u64,
        /// Why.
        source: io::Error,
    },
    /// It is shorter or longer than it should be.
    #[error("download {url}: expected {expected} bytes, got {got}")]
    Size {
        /// What was asked for.
        url: String,
        /// The size that it should have.
        expected: u64,
        /// The bytes that came, at least.
        got: u64,
    },
    /// It has the right size and another content.
    #[error("download {url}: expected sha256 {expected}, got {got}")]
    WrongHash {
        /// What was asked for.
        url: String,
        /// The hash that it should have.
        expected: Hash,
        /// The one that it has.
        got: Hash,
    },
    /// It could not be stored.
    #[error("download {url}")]
    Cache {
        /// What was asked for.
        url: String,
        /// Why.
        source: cache::Error,
    },
}

impl Error {
    /// Whether the same may work a little later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Broken { .. } | Self::Size { .. } => true,
            Self::Status { status, .. } => is_passing(*status),
            Self::Cache { source, .. } => source.is_temporary(),
            _ => false,
        }
    }
}

/// Makes requests; keeps connections open between them. Cheap to share between threads.
#[derive(Debug, Clone)]
pub struct Client {
    agent: ureq::Agent,
    pause: Duration,
    /// Sent with every request; the one about who asks is not sent on to other hosts.
    headers: Vec<(&'static str, String)>,
}

/// What a server answered, whatever it is.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: ureq::http::HeaderMap,
    /// What follows them.
    pub body: Vec<u8>,
}

impl Client {
    /// With the proxy that `http_proxy` and its kin name.
    pub fn new() -> Self {
        Self::with(ureq::Proxy::try_from_env(), PAUSE)
    }

    pub(crate) fn with(proxy: Option<ureq::Proxy>, pause: Duration) -> Self {
        let agent = agent(proxy, trust::of_the_machine());
        Self { agent, pause, headers: Vec::new() }
    }

    /// One for a server, by `HOST[:PORT]`, that may have certificates of its own in a `certs.d`.
    pub fn for_host(&self, host: &str) -> Result<Self, TrustError> {
        Ok(match trust::of_host(host)? {
            Some(tls) => {
                let proxy = self.agent.config().proxy().cloned();
                Self { agent: agent(proxy, tls), ..self.clone() }
            }
            None => self.clone(),
        })
    }

    /// One that sends these headers as well, over the same connections.
    pub fn with_headers(&self, headers: Vec<(&'static str, String)>) -> Self {
        Self { headers, ..self.clone() }
    }

    /// What the server says, of at most `limit` bytes; its refusal is an answer, too. With a
    /// `form`, that is posted.
    pub fn ask(&self, url: &str, form: Option<&str>, limit: u64) -> Result<Answer, Error> {
        self.retry(|attempt| {
            let sent = match form {
                None => self.to_send(self.agent.get(url)).call(),
                Some(form) => self
                    .to_send(self.agent.post(url))
                    .header("Content-Type", "application/x-www-form-urlencoded")
                    .send(form),
            };
            let mut response = sent.map_err(|error| failed(url, error))?;
            let status = response.status().as_u16();
            if is_passing(status) && attempt + 1 < TRIES {
                return Err(Error::Status { url: url.into(), status });
            }
            let headers = response.headers().clone();
            let mut body = Vec::new();
            let mut reader = response.body_mut().as_reader().take(limit + 1);
            reader.read_to_end(&mut body).map_err(|source| broken(url, 0, source))?;
            match body.len() as u64 {
                got if got > limit => Err(Error::Size { url: url.into(), expected: limit, got }),
                _ => Ok(Answer { status, headers, body }),
            }
        })
    }

    fn to_send<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        self.headers.iter().fold(request, |request, (name, value)| request.header(*name, value))
    }

    /// A small file of which nothing is known beforehand, at most `limit` bytes.
    pub fn text(&self, url: &str, limit: u64) -> Result<Vec<u8>, Error> {
        self.retry(|_| {
            let mut response = self.request(url, 0)?;
            let mut bytes = Vec::new();
            let mut body = response.body_mut().as_reader().take(limit + 1);
            body.read_to_end(&mut bytes).map_err(|source| broken(url, 0, source))?;
            match bytes.len() as u64 {
                got if got > limit => Err(Error::Size { url: url.into(), expected: limit, got }),
                _ => Ok(bytes),
            }
        })
    }

    /// A file of which size and hash are known. A try that breaks off is taken up where it ended.
    pub fn blob(
        &self,
        url: &str,
        size: u64,
        hash: Hash,
        blob: &mut BlobWriter,
        task: &Task,
    ) -> Result<(), Error> {
        let stored = |source| Error::Cache { url: url.into(), source };
        self.retry(|attempt| {
            if blob.size() > size || (blob.size() == size && blob.hash() != hash) {
                blob.restart().map_err(stored)?;
            }
            if blob.size() < size || attempt == 0 {
                self.append(url, size, blob, task)?;
            }
            if blob.size() < size {
                return Err(Error::Size { url: url.into(), expected: size, got: blob.size() });
            }
            let got = blob.hash();
            if got != hash {
                return Err(Error::WrongHash { url: url.into(), expected: hash, got });
            }
            Ok(())
        })
    }

    /// Appends what the server has beyond what is there already.
    fn append(
        &self,
        url: &str,
        size: u64,
        blob: &mut BlobWriter,
        task: &Task,
    ) -> Result<(), Error> {
        let stored = |source| Error::Cache { url: url.into(), source };
        let mut response = self.request(url, blob.size())?;
        if response.status() != 206 || !continues(&response, blob.size()) {
            blob.restart().map_err(stored)?;
        }
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) => return Err(broken(url, blob.size(), error)),
            };
            let got = blob.size() + read as u64;
            if got > size {
                return Err(Error::Size { url: url.into(), expected: size, got });
            }
            blob.append(&buffer[..read]).map_err(stored)?;
            task.advance(read as u64);
        }
    }

    fn request(&self, url: &str, from: u64) -> Result<ureq::http::Response<ureq::Body>, Error> {
        let mut request = self.to_send(self.agent.get(url));
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let response = request.call().map_err(|error| failed(url, error))?;
        match response.status().as_u16() {
            200 | 206 => Ok(response),
            status @ (404 | 410) => Err(Error::NotFound { url: url.into(), status }),
            status => Err(Error::Status { url: url.into(), status }),
        }
    }

    /// Tries again, later each time, what another try can mend.
    fn retry<T>(&self, mut attempt: impl FnMut(u32) -> Result<T, Error>) -> Result<T, Error> {
        let mut tried = 0;
        loop {
            let error = match attempt(tried) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            tried += 1;
            // A wrong hash can come from two halves of a file that changed in between.
            let once_more = matches!(error, Error::WrongHash { .. } | Error::Unreachable { .. });
            let again = match &error {
                Error::Cache { .. } => false,
                _ if once_more => tried < 2,
                error => error.is_temporary() && tried < TRIES,
            };
            if !again {
                return Err(error);
            }
            std::thread::sleep(self.pause * 2_u32.pow(tried - 1));
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

fn agent(proxy: Option<ureq::Proxy>, tls: TlsConfig) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .proxy(proxy)
        .tls_config(tls)
        .http_status_as_error(false)
        .redirect_auth_headers(ureq::config::RedirectAuthHeaders::SameHost)
        .user_agent(concat!("rouse/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(SILENCE))
        .timeout_connect(Some(SILENCE))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .build();
    config.into()
}

fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 416 | 425 | 429 | 500..=599)
}

/// Whether the answer begins where it was asked to.
fn continues(response: &ureq::http::Response<ureq::Body>, from: u64) -> bool {
    let range = response.headers().get("content-range").and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
}

fn broken(url: &str, got: u64, source: io::Error) -> Error {
    Error::Broken { url: url.into(), got, source }
}

fn failed(url: &str, error: ureq::Error) -> Error {
    use ureq::Timeout;
    let url_owned = url.to_owned();
    match error {
        ureq::Error::Timeout(Timeout::RecvResponse | Timeout::RecvBody | Timeout::PerRead) => {
            broken(url, 0, io::ErrorKind::TimedOut.into())
        }
        ureq::Error::Io(source) => match source.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::TimedOut => broken(url, 0, source),
            _ => Error::Unreachable { url: url_owned, source },
        },
        error @ ureq::Error::Protocol(_) => broken(url, 0, io::Error::other(error)),
        error => Error::Unreachable { url: url_owned, source: error.into_io() },
    }
}

#[cfg(test)]
mod tests {
    use super::server::{Fault, Server};
    use super::*;
    use crate::cache::Cache;
    use crate::terminal::Measure;

    /// Downloads `/file` of a server, which should be `content`.
    fn download(server: &Server, content: &[u8]) -> Result<Vec<u8>, Error> {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open_at(folder.path()).unwrap();
        let mut blob = cache.write_blob().unwrap();
        let client = Client::with(None, Duration::from_millis(1));
        let url = format!("{}/file", server.url());
        let task = Task::begin("test", Measure::Bytes, 0);
        let hash = Hash::of(content);
        client.blob(&url, content.len() as u64, hash, &mut blob, &task)?;
        Ok(std::fs::read(blob.finish(hash).unwrap()).unwrap())
    }

    fn content() -> Vec<u8> {
        (0..200_000_u32).flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn a_download_that_breaks_off_is_taken_up_where_it_ended() {
        let server = Server::start();
        server.put("/file", content());
        server.fail("/file", &[Fault::CutAfter(300_000), Fault::CutAfter(7), Fault::Status(503)]);
        assert!(download(&server, &content()).unwrap() == content());
        let from: Vec<_> = server.log().into_iter().map(|(_, from)| from).collect();
        assert_eq!(from, [0, 300_000, 300_007, 300_007]);
    }

    #[test]
    fn a_server_without_ranges_sends_it_all_again() {
        let server = Server::start();
        server.put("/file", content());
        server.ignore_ranges();
        server.fail("/file", &[Fault::CutAfter(300_000)]);
        assert!(download(&server, &content()).unwrap() == content());
    }

    #[test]
    fn a_file_that_stays_truncated_is_named_with_its_sizes() {
        let server = Server::start();
        server.put("/file", &content()[..1000]);
        let error = download(&server, &content()).unwrap_err();
        assert!(error.is_temporary());
        assert!(matches!(error, Error::Size { url, expected: 800_000, got: 1000 }
            if url.ends_with("/file")));
    }

    #[test]
    fn a_file_that_is_cut_each_time_is_broken() {
        let server = Server::start();
        server.put("/file", content());
        server.fail("/file", &[Fault::CutAfter(10); 9]);
        let error = download(&server, &content()).unwrap_err();
        assert!(error.is_temporary());
        assert!(matches!(error, Error::Broken { got: 50, .. }), "{error:?}");
        assert_eq!(server.log().len(), 5);
    }

    #[test]
    fn a_wrong_hash_is_named_with_both() {
        let server = Server::start();
        let mut wrong = content();
        wrong[7] ^= 1;
        server.put("/file", wrong.clone());
        let error = download(&server, &content()).unwrap_err();
        assert!(!error.is_temporary());
        assert!(matches!(error, Error::WrongHash { expected, got, .. }
            if expected == Hash::of(&content()) && got == Hash::of(&wrong)));
        assert_eq!(server.log().len(), 2);
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read_to_its_end() {
        let server = Server::start();
        server.put("/file", content());
        let error = download(&server, &content()[..100]).unwrap_err();
        assert!(matches!(error, Error::Size { expected: 100, .. }));
    }

    #[test]
    fn what_is_not_there_is_asked_for_once() {
        let server = Server::start();
        let error = download(&server, b"x").unwrap_err();
        assert!(matches!(error, Error::NotFound { status: 404, .. }) && !error.is_temporary());
        assert_eq!(server.log().len(), 1);
    }

    #[test]
    fn a_server_that_is_not_there_is_unreachable() {
        let server = Server::start();
        let url = server.url();
        drop(server);
        let error = Client::with(None, Duration::ZERO).text(&url, 10).unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    }

    #[test]
    fn a_text_that_is_too_long_is_refused() {
        let server = Server::start();
        server.put("/file", "hello");
        let client = Client::with(None, Duration::ZERO);
        let url = format!("{}/file", server.url());
        assert_eq!(client.text(&url, 5).unwrap(), b"hello");
        assert!(matches!(client.text(&url, 4), Err(Error::Size { expected: 4, .. })));
    }
}
