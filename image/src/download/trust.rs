//! Whom TLS trusts, and whom it shows.
//!
//! Certificates are checked against those of the machine: the file or folder that `SSL_CERT_FILE`
//! or `SSL_CERT_DIR` names, else where distributions keep them. A machine that has none, as a bare
//! root file system, gets Mozilla's list, which is part of this program.
//!
//! A server may have more of its own, in the folder `certs.d/HOST[:PORT]` of
//! containers-certs.d(5): `*.crt` are authorities that are trusted as well, and a `*.cert` with its
//! `*.key` is who we are. The first of these folders that is there counts:
//! `~/.config/containers/certs.d`, `/etc/containers/certs.d`, `/etc/docker/certs.d`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// Why a server's own certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A folder or file cannot be read.
    #[error("read certificates from {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("read certificates from {}: expected {expected} in PEM", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
    /// Who we are is half there: containers-certs.d(5) wants both.
    #[error("read certificates from {}: {} is missing beside it", path.display(), lacks.display())]
    Half {
        /// The file that is there.
        path: PathBuf,
        /// The one that is not.
        lacks: PathBuf,
    },
}

/// For servers of which nothing is known.
pub(super) fn of_the_machine() -> TlsConfig {
    config(machine().to_vec(), None)
}

/// For a server with certificates of its own; None if it has none.
pub(super) fn of_host(host: &str) -> Result<Option<TlsConfig>, TrustError> {
    folders(host).iter().find(|folder| folder.is_dir()).map(|folder| of_folder(folder)).transpose()
}

fn folders(host: &str) -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let own = home.map(|home| Path::new(&home).join(".config/containers/certs.d"));
    let all = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    own.into_iter().chain(all).map(|folder| folder.join(host)).collect()
}

fn of_folder(folder: &Path) -> Result<TlsConfig, TrustError> {
    let unreadable = |source| TrustError::Read { path: folder.into(), source };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(unreadable)?;
    files.sort();
    let mut trusted = machine().to_vec();
    let mut own = None;
    for path in &files {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => trusted.extend(certificates(path)?),
            Some("cert") => {
                let chain = certificates(path)?;
                own = Some(ClientCert::new_with_certs(&chain, key(path)?));
            }
            Some("key") => {
                let lacks = path.with_extension("cert");
                if !lacks.is_file() {
                    return Err(TrustError::Half { path: path.clone(), lacks });
                }
            }
            _ => {}
        }
    }
    Ok(config(trusted, own))
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, TrustError> {
    let text = read(path)?;
    let found: Vec<_> = parse_pem(&text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    match found.is_empty() {
        true => Err(TrustError::Malformed { path: path.into(), expected: "a certificate" }),
        false => Ok(found),
    }
}

/// The key of a `*.cert`.
fn key(cert: &Path) -> Result<PrivateKey<'static>, TrustError> {
    let path = cert.with_extension("key");
    if !path.is_file() {
        return Err(TrustError::Half { path: cert.into(), lacks: path });
    }
    PrivateKey::from_pem(&read(&path)?)
        .map_err(|_| TrustError::Malformed { path, expected: "a private key" })
}

fn read(path: &Path) -> Result<Vec<u8>, TrustError> {
    std::fs::read(path).map_err(|source| TrustError::Read { path: path.into(), source })
}

fn config(trusted: Vec<Certificate<'static>>, own: Option<ClientCert>) -> TlsConfig {
    let roots = match trusted.is_empty() {
        true => RootCerts::WebPki,
        false => RootCerts::new_with_certs(&trusted),
    };
    TlsConfig::builder().root_certs(roots).client_cert(own).build()
}

/// What the machine trusts, read once. A file there that is not as it should be is passed over, as
/// every other program does.
fn machine() -> &'static [Certificate<'static>] {
    static MACHINE: OnceLock<Vec<Certificate<'static>>> = OnceLock::new();
    MACHINE.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs().certs;
        found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_who_we_are_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("client.key");
        std::fs::write(&key, "").unwrap();
        let error = of_folder(folder.path()).unwrap_err();
        assert!(error.to_string().contains("client.cert is missing"), "{error}");
        std::fs::remove_file(key).unwrap();
        assert!(of_folder(folder.path()).is_ok(), "an empty folder adds nothing");
    }

    #[test]
    fn a_file_that_is_no_certificate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), "hello").unwrap();
        let error = of_folder(folder.path()).unwrap_err();
        assert!(error.to_string().ends_with("ca.crt: expected a certificate in PEM"), "{error}");
    }
}
