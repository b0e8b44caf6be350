//! Who we are to a registry: the files that `podman login` and `docker login` write,
//! containers-auth.json(5).
//!
//! `REGISTRY_AUTH_FILE` alone, if it is set; else the first of these that knows the registry:
//! `$XDG_RUNTIME_DIR/containers/auth.json` (`/run/containers/UID/auth.json` where that is not
//! set), `$XDG_CONFIG_HOME/containers/auth.json`, `$DOCKER_CONFIG/config.json`, with
//! `~/.config` and `~/.docker` for the latter two. Of the entries in a file, the one goes first
//! that fits more of the reference.

use super::reference::Reference;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Docker Hub's name in these files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Why such a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// It cannot be read.
    #[error("read passwords from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not as `podman login` writes it.
    #[error("read passwords from {}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The program that keeps passwords has none, or fails.
    #[error("ask docker-credential-{helper} for the password of {host}: {message}")]
    Helper {
        /// The program's last name.
        helper: String,
        /// The registry.
        host: String,
        /// What it says.
        message: String,
    },
}

/// What a registry is shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// `user:password`, in base64.
    Basic(String),
    /// A token with which others are got.
    Identity(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

#[derive(Default, Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
struct Auth {
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

/// What the person's files know about a registry.
pub(super) fn find(reference: &Reference) -> Result<Option<Credentials>, AuthError> {
    for path in files() {
        if let Some(found) = find_in(&path, reference)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn files() -> Vec<PathBuf> {
    let variable =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = variable("REGISTRY_AUTH_FILE") {
        return vec![path];
    }
    let home = |below: &str| variable("HOME").map(|home| home.join(below));
    let uid = rustix::process::geteuid().as_raw();
    let runtime = variable("XDG_RUNTIME_DIR").map(|folder| folder.join("containers"));
    let runtime = runtime.unwrap_or_else(|| format!("/run/containers/{uid}").into());
    let config = variable("XDG_CONFIG_HOME").or_else(|| home(".config"));
    let docker = variable("DOCKER_CONFIG").or_else(|| home(".docker"));
    let files = [
        Some(runtime.join("auth.json")),
        config.map(|folder| folder.join("containers/auth.json")),
        docker.map(|folder| folder.join("config.json")),
    ];
    files.into_iter().flatten().collect()
}

/// A file that is not there knows nothing.
fn find_in(path: &Path, reference: &Reference) -> Result<Option<Credentials>, AuthError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(AuthError::Read { path: path.into(), source }),
    };
    let malformed = |message: String| AuthError::Malformed { path: path.into(), message };
    let file: AuthFile =
        serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
    let host = registry(&reference.host);
    if let Some((_, helper)) = file.helpers.iter().find(|(name, _)| registry(name) == host) {
        return ask(helper, host);
    }
    let entries: BTreeMap<&str, &Auth> =
        file.auths.iter().map(|(name, auth)| (registry(name), auth)).collect();
    let whole = format!("{host}/{}", reference.path);
    let mut scope = whole.as_str();
    loop {
        if let Some(auth) = entries.get(scope) {
            if !auth.identity_token.is_empty() {
                return Ok(Some(Credentials::Identity(auth.identity_token.clone())));
            }
            if !auth.auth.is_empty() {
                let decoded = STANDARD.decode(&auth.auth).ok();
                if !decoded.is_some_and(|text| text.contains(&b':')) {
                    return Err(malformed(format!("`auth` of {scope} is no USER:PASSWORD")));
                }
                return Ok(Some(Credentials::Basic(auth.auth.clone())));
            }
        }
        match scope.rsplit_once('/') {
            Some((shorter, _)) => scope = shorter,
            None => break,
        }
    }
    match &file.store {
        Some(helper) => ask(helper, host),
        None => Ok(None),
    }
}

/// Names of registries are also written as addresses: `https://registry.example/v2/`.
fn registry(name: &str) -> &str {
    let plain = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://"));
    let host = match plain {
        Some(address) => address.split('/').next().unwrap_or_default(),
        None => name.trim_end_matches('/'),
    };
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// The protocol of Docker's credential helpers: the registry on stdin, JSON on stdout.
fn ask(helper: &str, host: &str) -> Result<Option<Credentials>, AuthError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let failed =
        |message: String| AuthError::Helper { helper: helper.into(), host: host.into(), message };
    if helper.is_empty() || helper.contains('/') {
        return Err(failed("that is no name of a program".into()));
    }
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        let name = if host == "docker.io" { DOCKER_HUB } else { host };
        // One that does not read it says what it has to say on stdout.
        let _ = stdin.write_all(name.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        // "credentials not found in native keychain", in all of them.
        return match text.contains("not found") {
            true => Ok(None),
            false => Err(failed(text.trim().into())),
        };
    }
    let answer: Answer =
        serde_json::from_str(&text).map_err(|_| failed("its answer makes no sense".into()))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credentials::Identity(answer.secret),
        user => Credentials::Basic(STANDARD.encode(format!("{user}:{}", answer.secret))),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, reference: &str) -> Result<Option<Credentials>, AuthError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.json");
        std::fs::write(&path, text).unwrap();
        find_in(&path, &Reference::parse(reference).unwrap())
    }

    #[test]
    fn the_entry_that_fits_most_is_taken() {
        let encode = |text: &str| STANDARD.encode(text);
        let (host, path, hub) = (encode("a:host"), encode("a:path"), encode("a:hub"));
        let text = format!(
            r#"{{"auths": {{"quay.io": {{"auth": "{host}"}}, "quay.io/me": {{"auth": "{path}"}},
            "{DOCKER_HUB}": {{"auth": "{hub}"}}, "http://127.0.0.1:5000/v2/":
            {{"identitytoken": "t"}}, "empty.example": {{}}}}}}"#
        );
        let basic = |text: &str| Some(Credentials::Basic(text.to_owned()));
        let cases = [
            ("quay.io/you/x", basic(&host)),
            ("quay.io/me/x:1", basic(&path)),
            ("quay.io/meandyou/x", basic(&host)),
            ("docker.io/library/x", basic(&hub)),
            ("127.0.0.1:5000/x", Some(Credentials::Identity("t".into()))),
            ("empty.example/x", None),
            ("other.example/x", None),
        ];
        for (reference, expected) in cases {
            assert_eq!(found(&text, reference).unwrap(), expected, "{reference}");
        }
        assert_eq!(
            find_in(Path::new("/nonexistent"), &Reference::parse("a.b/c").unwrap()).unwrap(),
            None
        );
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        for text in
            ["{", r#"{"auths": {"a.b": {"auth": "?"}}}"#, r#"{"auths": {"a.b": {"auth": "YQ=="}}}"#]
        {
            let error = found(text, "a.b/c").unwrap_err();
            assert!(matches!(error, AuthError::Malformed { .. }), "{error}");
        }
        let helper = r#"{"credHelpers": {"a.b": "rouse-test-that-is-not-there"}}"#;
        let error = found(helper, "a.b/c").unwrap_err();
        assert!(error.to_string().contains("docker-credential-rouse-test"), "{error}");
        let helper = r#"{"credsStore": "../x"}"#;
        assert!(matches!(found(helper, "a.b/c"), Err(AuthError::Helper { .. })));
    }
}
