//! `Packages`: what a suite has, and what each package needs.
//!
//! Trixie's index is 57 MB of text for 69,000 packages, of which the solver needs a quarter. It is
//! read once, line by line, into a shorter text that the cache keeps; a package is then a handful
//! of ranges in that text. Crates that read this format make a map of strings of each package,
//! which takes several times as long.

use super::Archive;
use super::package::Package;
use crate::cache::Hash;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;

/// Why an index cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not what its compression or its encoding says.
    #[error("read the index {url}: {reason}")]
    Malformed {
        /// Where it came from.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The signed release names no such index.
    #[error("find packages for {architecture} in {url}")]
    Missing {
        /// The release.
        url: String,
        /// The architecture.
        architecture: &'static str,
    },
}

/// The fields that are kept, in the order of [`Stanza`]'s ranges.
const FIELDS: [&str; 13] = [
    "Package",
    "Version",
    "Architecture",
    "Source",
    "Priority",
    "Depends",
    "Pre-Depends",
    "Provides",
    "Conflicts",
    "Breaks",
    "Filename",
    "Size",
    "SHA256",
];

/// An index in memory.
#[derive(Debug)]
pub struct Index {
    archive: Archive,
    text: String,
    stanzas: Vec<Stanza>,
}

/// Where the fields of one package are in the text; empty if it has no such field.
#[derive(Debug, Default, Clone)]
struct Stanza([Range<u32>; FIELDS.len()]);

/// One package of an index.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    index: &'a Index,
    stanza: &'a Stanza,
}

/// Keeps of an index, as it comes out of its compression, the fields that are needed.
pub fn condense(url: &str, index: impl Read) -> Result<String, Error> {
    let malformed =
        |error: std::io::Error| Error::Malformed { url: url.to_owned(), reason: error.to_string() };
    let mut reader = BufReader::with_capacity(1 << 18, index);
    let mut text = String::with_capacity(1 << 24);
    let mut line = Vec::new();
    let mut keeps = false;
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(malformed)? == 0 {
            return Ok(text);
        }
        let continues = matches!(line.first(), Some(b' ' | b'\t'));
        if !continues {
            let name = line.split(|at| *at == b':').next().unwrap_or_default();
            keeps = line == b"\n" || FIELDS.iter().any(|field| field.as_bytes() == name);
        }
        if keeps {
            let line = std::str::from_utf8(&line).map_err(|error| Error::Malformed {
                url: url.to_owned(),
                reason: error.to_string(),
            })?;
            if continues && text.ends_with('\n') {
                // A folded field becomes one line.
                text.pop();
            }
            text.push_str(line);
        }
    }
}

impl Index {
    /// Reads a condensed index.
    pub fn read(archive: Archive, text: String) -> Self {
        let mut stanzas = Vec::new();
        let mut stanza = Stanza::default();
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let begin = at;
            at += line.len();
            let line = line.trim_end();
            if line.is_empty() {
                stanza.close(&mut stanzas);
                continue;
            }
            let Some((name, value)) = line.split_once(':') else { continue };
            let Some(field) = FIELDS.iter().position(|field| *field == name) else { continue };
            let skipped = line.len() - value.trim_start().len();
            let range = (begin + skipped, begin + line.len());
            if let (Ok(from), Ok(to)) = (u32::try_from(range.0), u32::try_from(range.1)) {
                stanza.0[field] = from..to;
            }
        }
        stanza.close(&mut stanzas);
        Self { archive, text, stanzas }
    }

    /// Its packages, in the order of the index.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.stanzas.iter().map(|stanza| Record { index: self, stanza })
    }
}

impl Stanza {
    fn close(&mut self, stanzas: &mut Vec<Self>) {
        let stanza = std::mem::take(self);
        if !stanza.0[0].is_empty() {
            stanzas.push(stanza);
        }
    }
}

impl<'a> Record<'a> {
    fn field(self, field: usize) -> &'a str {
        let Range { start, end } = self.stanza.0[field];
        self.index.text.get(start as usize..end as usize).unwrap_or_default()
    }

    /// `Package`.
    pub fn name(self) -> &'a str {
        self.field(0)
    }

    /// `Version`.
    pub fn version(self) -> &'a str {
        self.field(1)
    }

    /// How much Debian wants it on a system: 0, required, to 4, extra or not said.
    pub fn priority(self) -> u8 {
        match self.field(4) {
            "required" => 0,
            "important" => 1,
            "standard" => 2,
            "optional" => 3,
            _ => 4,
        }
    }

    /// `Pre-Depends` and `Depends`: what must be there for it to work.
    pub fn depends(self) -> [&'a str; 2] {
        [self.field(6), self.field(5)]
    }

    /// `Provides`.
    pub fn provides(self) -> &'a str {
        self.field(7)
    }

    /// `Conflicts` and `Breaks`: what must not be there beside it.
    pub fn conflicts(self) -> [&'a str; 2] {
        [self.field(8), self.field(9)]
    }

    /// What the lock says about it; None if the index says too little.
    pub fn package(self) -> Option<Package> {
        Some(Package {
            name: self.name().to_owned(),
            version: self.version().to_owned(),
            architecture: self.field(2).to_owned(),
            archive: self.index.archive,
            path: self.field(10).to_owned(),
            size: self.field(11).parse().ok()?,
            sha256: Hash::parse(self.field(12))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Package: a\nVersion: 1:2-3\nArchitecture: amd64\nDescription: a: b\n more\n\
        Tag: x,\n y\nDepends: b (>= 1),\n c\nPriority: required\nFilename: pool/a.deb\nSize: 12\n\
        SHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n\n\
        Package: b\nVersion: 1\nPre-Depends: c\nBreaks: d\n";

    #[test]
    fn an_index_is_condensed_and_read() {
        let text = condense("URL", TEXT.as_bytes()).unwrap();
        assert!(!text.contains("more") && !text.contains("Tag"), "{text}");
        let index = Index::read(Archive::Debian, text);
        let records: Vec<_> = index.records().collect();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].depends(), ["", "b (>= 1), c"]);
        assert_eq!(records[0].priority(), 0);
        let package = records[0].package().unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("a", "1:2-3"));
        assert_eq!((package.path.as_str(), package.size), ("pool/a.deb", 12));
        assert_eq!(records[1].depends(), ["c", ""]);
        assert_eq!(records[1].conflicts(), ["", "d"]);
        assert_eq!(records[1].package(), None);
    }

    #[test]
    fn an_index_that_is_no_text_is_refused() {
        let error = condense("URL", &b"Package: \xff\n"[..]).unwrap_err();
        assert!(matches!(error, Error::Malformed { url, .. } if url == "URL"));
    }
}
