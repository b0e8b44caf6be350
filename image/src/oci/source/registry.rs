//! A registry: the pulling half of the OCI distribution specification, over the HTTP client that
//! packages are downloaded with.
//!
//! ```text
//! GET manifest -> 401, WWW-Authenticate: Basic                 -> again, with user:password
//!              -> 401, WWW-Authenticate: Bearer realm, service -> GET realm -> token -> again
//!              -> 200 -> index? the guest's machine's manifest -> config, layers: GET blobs
//! ```
//!
//! Everything but a tag is asked for by its digest, and checked against it, so that neither the
//! registry nor a server that it sends us to has to be trusted with what is in an image. Who we
//! are is told to the registry alone, not to a server that it redirects to.

use super::auth::{self, Credentials};
use super::manifest::{self, Digest, Document, Manifest};
use super::reference::Reference;
use super::{SourceError, challenge};
use crate::cache::{BlobWriter, Cache, Hash};
use crate::debian::Architecture;
use crate::download::{self, Answer, Client};
use crate::terminal::Task;
use serde::Deserialize;
use std::sync::{Mutex, PoisonError};

/// Docker Hub's registry is not at its name.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");
/// The longest token answer, in bytes.
const LONGEST_TOKEN: u64 = 1 << 20;
/// How deep indexes may be in indexes.
const DEEPEST: usize = 4;
/// What is shown of a registry's own words, in characters.
const LONGEST_WORDS: usize = 200;

/// How a registry is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// With TLS.
    Https,
    /// Without.
    Http,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }
}

/// One repository of a registry.
#[derive(Debug)]
pub(super) struct Registry<'a> {
    client: Client,
    cache: &'a Cache,
    reference: &'a Reference,
    scheme: Scheme,
    credentials: Option<Credentials>,
    /// What was last good as `Authorization:`; tokens end after some minutes.
    authorization: Mutex<Option<String>>,
}

impl<'a> Registry<'a> {
    /// Asks nobody yet but the files with passwords and certificates.
    pub(super) fn new(
        cache: &'a Cache,
        client: &Client,
        reference: &'a Reference,
        scheme: Scheme,
    ) -> Result<Self, SourceError> {
        let credentials = auth::find(reference)?;
        Ok(Self {
            client: client.for_host(&reference.host)?,
            cache,
            reference,
            scheme,
            credentials,
            authorization: Mutex::new(None),
        })
    }

    /// The manifest that the reference means today, for that machine. It is in the cache then.
    pub(super) fn resolve(&self, architecture: Architecture) -> Result<Digest, SourceError> {
        let mut version = self.reference.version();
        for _ in 0..DEEPEST {
            let what = self.reference.to_string();
            let (digest, bytes) = self.document(&version)?;
            match Document::parse(&what, &bytes)? {
                Document::Manifest(_) => {
                    self.cache.store_blob(&bytes)?;
                    return Ok(digest);
                }
                Document::Index(index) => {
                    version = index.select(&what, architecture)?.digest.to_string();
                }
            }
        }
        Err(self.odd("an index in an index in an index"))
    }

    /// The manifest of that digest, from the cache or the registry.
    pub(super) fn manifest(&self, digest: Digest) -> Result<Manifest, SourceError> {
        let bytes = match self.cache.blob(digest.0)? {
            Some(path) => super::read(&path)?,
            None => match self.document(&digest.to_string()) {
                Ok((_, bytes)) => bytes,
                Err(SourceError::NotFound { .. }) => return Err(self.gone(digest)),
                Err(error) => return Err(error),
            },
        };
        match Document::parse(&self.reference.to_string(), &bytes)? {
            Document::Manifest(manifest) => {
                self.cache.store_blob(&bytes)?;
                Ok(manifest)
            }
            Document::Index(_) => Err(self.odd("an index where a manifest was locked")),
        }
    }

    /// Brings a configuration or layer into the cache. Of two processes that want it, one
    /// downloads and the other waits.
    pub(super) fn blob(&self, digest: Digest, size: u64, task: &Task) -> Result<(), SourceError> {
        let _guard = self.cache.lock(&digest.0.to_string())?;
        if self.cache.blob(digest.0)?.is_some() {
            task.advance(size);
            return Ok(());
        }
        let mut blob = self.cache.write_blob()?;
        self.download(digest, size, &mut blob, task)?;
        blob.finish(digest.0)?;
        Ok(())
    }

    fn download(
        &self,
        digest: Digest,
        size: u64,
        blob: &mut BlobWriter,
        task: &Task,
    ) -> Result<(), SourceError> {
        let url = self.url("blobs", &digest.to_string());
        let mut again = true;
        loop {
            let client = self.client.with_headers(self.headers(None));
            let error = match client.blob(&url, size, digest.0, blob, task) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match error {
                // The token has ended, or there was none yet.
                download::Error::Status { status: 401, .. } if again => {
                    again = false;
                    let answer = client.ask(&url, None, manifest::LARGEST)?;
                    self.log_in(&answer)?;
                }
                download::Error::Status { status: status @ (401 | 403), .. } => {
                    return Err(self.denied(status, String::new()));
                }
                download::Error::NotFound { .. } => return Err(self.gone(digest)),
                error => return Err(error.into()),
            }
        }
    }

    /// A manifest or index by tag or digest, and its digest.
    fn document(&self, version: &str) -> Result<(Digest, Vec<u8>), SourceError> {
        let url = self.url("manifests", version);
        let ask = || {
            let headers = self.headers(Some(manifest::ACCEPTED));
            self.client.with_headers(headers).ask(&url, None, manifest::LARGEST)
        };
        let mut answer = ask()?;
        if answer.status == 401 {
            self.log_in(&answer)?;
            answer = ask()?;
        }
        match answer.status {
            200 => {}
            status @ (401 | 403) => return Err(self.denied(status, words(&answer))),
            404 => {
                let (reference, message) = (self.reference.clone(), words(&answer));
                return Err(SourceError::NotFound { reference: Box::new(reference), message });
            }
            status => return Err(download::Error::Status { url, status }.into()),
        }
        let got = Digest(Hash::of(&answer.body));
        let said = answer.headers.get("docker-content-digest").and_then(|it| it.to_str().ok());
        let wanted = if version.starts_with("sha256:") { Some(version) } else { said };
        match wanted.and_then(|digest| digest.strip_prefix("sha256:")).and_then(Hash::parse) {
            Some(expected) if expected != got.0 => Err(SourceError::WrongDigest {
                what: self.reference.to_string(),
                expected: Digest(expected),
                got,
            }),
            _ => Ok((got, answer.body)),
        }
    }

    /// Gets what the registry asks for with a 401, and keeps it for all that follows.
    fn log_in(&self, answer: &Answer) -> Result<(), SourceError> {
        let headers = answer.headers.get_all("www-authenticate");
        let headers: Vec<&str> = headers.iter().filter_map(|it| it.to_str().ok()).collect();
        let denied = || self.denied(401, words(answer));
        let authorization = match challenge::choose(&headers) {
            Some(challenge::Challenge::Basic) => match &self.credentials {
                Some(Credentials::Basic(secret)) => format!("Basic {secret}"),
                _ => return Err(denied()),
            },
            Some(challenge::Challenge::Bearer(parameters)) => {
                format!("Bearer {}", self.token(&parameters)?)
            }
            None => return Err(denied()),
        };
        let mut kept = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(authorization);
        Ok(())
    }

    /// A token to pull with: distribution's `spec/auth/token.md` and `oauth.md`.
    fn token(&self, parameters: &challenge::Bearer) -> Result<String, SourceError> {
        #[derive(Deserialize)]
        struct Token {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
        }
        let realm = &parameters.realm;
        let is_safe = realm.starts_with("https://")
            || (self.scheme == Scheme::Http && realm.starts_with("http://"));
        if !is_safe {
            return Err(self.odd(format!("that passwords go to `{}`", shortened(realm))));
        }
        let scope = match parameters.scope.as_str() {
            "" => format!("repository:{}:pull", self.path()),
            scope => scope.to_owned(),
        };
        let mut query = format!("scope={}", escaped(&scope));
        if !parameters.service.is_empty() {
            query += &format!("&service={}", escaped(&parameters.service));
        }
        let answer = match &self.credentials {
            Some(Credentials::Identity(token)) => {
                let token = escaped(token);
                let form = format!(
                    "grant_type=refresh_token&refresh_token={token}&client_id=rouse&{query}"
                );
                self.client.ask(realm, Some(&form), LONGEST_TOKEN)?
            }
            credentials => {
                let headers = match credentials {
                    Some(Credentials::Basic(secret)) => {
                        vec![("Authorization", format!("Basic {secret}"))]
                    }
                    _ => Vec::new(),
                };
                let separator = if realm.contains('?') { '&' } else { '?' };
                let url = format!("{realm}{separator}{query}");
                self.client.with_headers(headers).ask(&url, None, LONGEST_TOKEN)?
            }
        };
        if answer.status != 200 {
            return Err(self.denied(answer.status, words(&answer)));
        }
        let token: Token = manifest::parse("the registry's token", &answer.body)?;
        let token = if token.token.is_empty() { token.access_token } else { token.token };
        let is_plain = |byte: u8| byte.is_ascii_graphic();
        if token.is_empty() || !token.bytes().all(is_plain) {
            return Err(self.odd("no token"));
        }
        Ok(token)
    }

    fn headers(&self, accept: Option<&str>) -> Vec<(&'static str, String)> {
        let kept = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        let authorization = kept.iter().map(|value| ("Authorization", value.clone()));
        authorization.chain(accept.map(|value| ("Accept", value.to_owned()))).collect()
    }

    fn url(&self, kind: &str, version: &str) -> String {
        let host = match self.reference.host.as_str() {
            host if host == DOCKER_HUB.0 => DOCKER_HUB.1,
            host => host,
        };
        format!("{}://{host}/v2/{}/{kind}/{version}", self.scheme.name(), self.path())
    }

    /// Docker Hub's own images have a folder that nobody writes.
    fn path(&self) -> String {
        let path = &self.reference.path;
        match self.reference.host == DOCKER_HUB.0 && !path.contains('/') {
            true => format!("library/{path}"),
            false => path.clone(),
        }
    }

    fn denied(&self, status: u16, message: String) -> SourceError {
        let known = self.credentials.is_some();
        SourceError::Denied { reference: Box::new(self.reference.clone()), status, message, known }
    }

    fn gone(&self, digest: Digest) -> SourceError {
        SourceError::Gone { reference: Box::new(self.reference.clone()), digest }
    }

    fn odd(&self, what: impl Into<String>) -> SourceError {
        SourceError::Answer { reference: Box::new(self.reference.clone()), what: what.into() }
    }
}

/// The registry's own words about a refusal: they go to a terminal, so only what is harmless.
fn words(answer: &Answer) -> String {
    #[derive(Default, Deserialize)]
    struct Errors {
        #[serde(default)]
        errors: Vec<One>,
        #[serde(default)]
        details: String,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        message: String,
    }
    let errors: Errors = serde_json::from_slice(&answer.body).unwrap_or_default();
    let first = errors.errors.into_iter().map(|one| one.message).find(|text| !text.is_empty());
    shortened(&first.unwrap_or(errors.details))
}

fn shortened(text: &str) -> String {
    text.chars().filter(|at| !at.is_control()).take(LONGEST_WORDS).collect()
}

/// As in the query of an address.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
