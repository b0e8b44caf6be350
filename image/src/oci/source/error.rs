//! Why an image cannot be had.

use super::auth::AuthError;
use super::layer::LayerError;
use super::manifest::Digest;
use super::reference::Reference;
use crate::cache;
use crate::debian::Architecture;
use crate::download;
use std::io;
use std::path::PathBuf;

/// Why an image cannot be had, in words that complete "failed to ...".
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A transfer failed.
    #[error(transparent)]
    Download(#[from] download::Error),
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// The file with the passwords cannot be used.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The registry's own certificates cannot be used.
    #[error(transparent)]
    Trust(#[from] download::TrustError),
    /// A registry wants to know who asks, or does not let this one in.
    #[error("pull {reference}: the registry refuses ({status}{})", said(.message))]
    Denied {
        /// What was asked for.
        reference: Box<Reference>,
        /// 401 or 403.
        status: u16,
        /// The registry's own words.
        message: String,
        /// Whether somebody's password was sent.
        known: bool,
    },
    /// The registry has no such image.
    #[error("pull {reference}: the registry does not have it{}", said(.message))]
    NotFound {
        /// What was asked for.
        reference: Box<Reference>,
        /// The registry's own words.
        message: String,
    },
    /// What is locked is there no more.
    #[error("pull {reference}: the registry no longer has {digest}, which is locked")]
    Gone {
        /// What was asked for.
        reference: Box<Reference>,
        /// The lock's digest, or that of a part of the image.
        digest: Digest,
    },
    /// A local image is another one than the lock says.
    #[error("take image {what}: it is {got} now, and {locked} in the lock")]
    Changed {
        /// Where it lies.
        what: String,
        /// What it is.
        got: Digest,
        /// What is locked.
        locked: Digest,
    },
    /// The registry's answer makes no sense.
    #[error("pull {reference}: the registry answered {what}")]
    Answer {
        /// What was asked for.
        reference: Box<Reference>,
        /// What is wrong.
        what: String,
    },
    /// The content is not what its name says.
    #[error("take {what}: expected {expected}, got {got}")]
    WrongDigest {
        /// What was read.
        what: String,
        /// What it should be.
        expected: Digest,
        /// What it is.
        got: Digest,
    },
    /// A document that cannot be read.
    #[error("read {what}: {message}")]
    Malformed {
        /// Which.
        what: String,
        /// What is wrong.
        message: String,
    },
    /// An image from before 2016.
    #[error("read {what}: it has Docker's schema 1, which nobody writes any more")]
    OldSchema {
        /// Which.
        what: String,
    },
    /// The image is not for the guest's machine.
    #[error("take {what}: it is for {}, not for linux/{wanted}", .has.join(", "))]
    NoArchitecture {
        /// Which.
        what: String,
        /// The guest's.
        wanted: Architecture,
        /// What there is.
        has: Vec<String>,
    },
    /// A layout or archive with several images, or none of that name.
    #[error("take an image from {what}: it has {}", list(.has))]
    Which {
        /// Where.
        what: String,
        /// The names in it.
        has: Vec<String>,
    },
    /// A file that is not there or cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A layout or archive lacks a part.
    #[error("read {what}: it has no {part}")]
    Missing {
        /// Where.
        what: String,
        /// The part.
        part: String,
    },
    /// A layer makes no sense.
    #[error("unpack image {reference}")]
    Layer {
        /// Of which image.
        reference: String,
        /// Why.
        source: LayerError,
    },
    /// None of the programs is there that could do it.
    #[error("{what}: this machine has neither {}", .programs.join(" nor "))]
    NoProgram {
        /// What was to be done.
        what: String,
        /// Any of which would do.
        programs: &'static [&'static str],
    },
    /// A program could not be run, or failed; it has said why on stderr.
    #[error("{what}: {program} {how}")]
    Program {
        /// What was to be done.
        what: String,
        /// The program.
        program: String,
        /// How it ended.
        how: String,
    },
}

impl SourceError {
    /// Whether the same may work a little later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Download(error) => error.is_temporary(),
            Self::Cache(error) => error.is_temporary(),
            _ => false,
        }
    }

    /// Whether it is for the person to change something in the appliance.
    pub fn is_input(&self) -> bool {
        !matches!(
            self,
            Self::Download(_)
                | Self::Cache(_)
                | Self::NoProgram { .. }
                | Self::Gone { .. }
                | Self::Denied { .. }
        )
    }

    /// One next step, if there is one to name.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Gone { .. } | Self::Changed { .. } => {
                "`rouse lock` pins what is there today".into()
            }
            Self::Denied { known: false, reference, .. } => {
                format!(
                    "`podman login {}` or `docker login` writes a password down",
                    reference.host
                )
            }
            Self::Denied { reference, .. } => {
                format!("the password for {} is not good for it", reference.host)
            }
            Self::Download(download::Error::Unreachable { url, .. })
                if url.starts_with("https://") =>
            {
                "a registry without TLS needs `plain-http = true` in [registry.\"HOST\"], one with a \
                 certificate of its own authority that in /etc/containers/certs.d/HOST/ca.crt"
                    .into()
            }
            Self::NotFound { .. } => "a reference is `registry.example/name:tag`".into(),
            Self::Which { .. } => "name one behind a colon: `from = \"oci:DIR:NAME\"`".into(),
            Self::NoProgram { programs, .. } => {
                format!("install {}, or take the image from elsewhere", programs.join(" or "))
            }
            Self::NoArchitecture { .. } => "--arch says which machine the guest is".into(),
            Self::OldSchema { .. } => "push the image again with a tool of today".into(),
            _ => return None,
        })
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "no image of that name".into() } else { names.join(", ") }
}
