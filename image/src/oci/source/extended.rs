//! What a tar archive says in entries of their own before the one that they are about: pax's
//! extended headers (pax(1), POSIX) and GNU's long names.
//!
//! Read here and not by the tar crate, which ends a value at its first line feed: an extended
//! attribute is binary, and may have some in it.

use super::layer::LayerError;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use tar::EntryType;

/// The most that may stand before an entry, in bytes.
const LARGEST: u64 = 1 << 20;
/// How extended attributes are called in an archive.
const XATTR: &[u8] = b"SCHILY.xattr.";
/// XATTR_NAME_MAX
const LONGEST_NAME: usize = 255;

/// What is said before an entry, and holds instead of what its own header says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<u64>,
    /// By full name.
    pub(super) xattrs: BTreeMap<String, Arc<[u8]>>,
}

impl Extended {
    /// Takes in an entry that is about the next one. Whether it was one.
    pub(super) fn take(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
    ) -> Result<bool, LayerError> {
        let kind = entry.header().entry_type();
        let is_about_the_next = matches!(
            kind,
            EntryType::XHeader
                | EntryType::XGlobalHeader
                | EntryType::GNULongName
                | EntryType::GNULongLink
        );
        if !is_about_the_next {
            return Ok(false);
        }
        if entry.size() > LARGEST {
            let reason = "what is said about it is too long";
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            return Err(LayerError::Name { name, reason });
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        let text = || bytes.iter().copied().take_while(|byte| *byte != 0).collect();
        match kind {
            EntryType::GNULongName => self.path = Some(text()),
            EntryType::GNULongLink => self.link = Some(text()),
            EntryType::XHeader => self.read(&bytes)?,
            // Comments, such as git's.
            _ => {}
        }
        Ok(true)
    }

    /// Records of `LENGTH KEY=VALUE\n`, where LENGTH is that of the whole record.
    fn read(&mut self, mut rest: &[u8]) -> Result<(), LayerError> {
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed pax record");
        while !rest.is_empty() {
            let blank = rest.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
            let length = std::str::from_utf8(&rest[..blank]).ok().and_then(|it| it.parse().ok());
            let length: usize = length.ok_or_else(malformed)?;
            let record = rest.get(blank + 1..length).ok_or_else(malformed)?;
            let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
            self.set(&record[..equals], &record[equals + 1..])?;
            rest = &rest[length..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), LayerError> {
        // Times may have a fraction.
        let whole = value.split(|byte| *byte == b'.').next().unwrap_or_default();
        let number = || std::str::from_utf8(whole).ok().and_then(|text| text.parse().ok());
        match key {
            b"path" => self.path = Some(value.to_owned()),
            b"linkpath" => self.link = Some(value.to_owned()),
            b"uid" => self.uid = number(),
            b"gid" => self.gid = number(),
            b"mtime" => self.mtime = number(),
            key if key.starts_with(b"GNU.sparse.") => {
                let (name, reason) = (String::from_utf8_lossy(value).into(), SPARSE);
                return Err(LayerError::Name { name, reason });
            }
            key => {
                let name = key.strip_prefix(XATTR).filter(|name| name.len() <= LONGEST_NAME);
                let name = name.and_then(|name| std::str::from_utf8(name).ok());
                let name = name.filter(|name| !name.is_empty() && !name.contains('\0'));
                self.xattrs.extend(name.map(|name| (name.to_owned(), value.into())));
            }
        }
        Ok(())
    }
}

/// Why a sparse file is refused: no tool that makes layers writes them.
pub(super) const SPARSE: &str = "sparse files are not for layers";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Option<Extended> {
        let mut extended = Extended::default();
        extended.read(bytes).ok().map(|()| extended)
    }

    #[test]
    fn values_may_have_anything_in_them() {
        let found =
            read(b"12 path=a=b\n16 mtime=12.375\n24 SCHILY.xattr.u.x=1\n\n\n13 uid=70000\n");
        let found = found.unwrap();
        assert_eq!(found.path.as_deref(), Some(&b"a=b"[..]));
        assert_eq!((found.mtime, found.uid, found.gid), (Some(12), Some(70000), None));
        assert_eq!(found.xattrs["u.x"].as_ref(), b"1\n\n");
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for bytes in [
            &b"x"[..],
            b"9 path=a",
            b"99 path=a\n",
            b"0 path=a\n",
            b"3 \n",
            b" a=b\n",
            b"6 path\n",
            b"18446744073709551615 a=b\n",
            b"22 GNU.sparse.major=1\n",
        ] {
            assert_eq!(read(bytes), None, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
