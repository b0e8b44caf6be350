//! The token that tells the owner of a VM from the other users of its host.

use crate::control::TOKEN_FW_CFG;
use std::path::Path;

/// What `rouse run` handed over through fw_cfg.
#[derive(Debug)]
pub struct Token(Vec<u8>);

impl Token {
    /// The token of this guest; None if there is none: then nobody gets in over vsock.
    pub fn read() -> Option<Self> {
        let path = format!("/sys/firmware/qemu_fw_cfg/by_name/{TOKEN_FW_CFG}/raw");
        Self::read_from(Path::new(&path))
    }

    /// The token in a file; an empty one is none.
    pub fn read_from(path: &Path) -> Option<Self> {
        let bytes = std::fs::read(path).ok()?;
        // A file that a person wrote ends in a newline, one from QEMU's `string=` in nothing.
        let bytes = bytes.trim_ascii();
        (!bytes.is_empty()).then(|| Self(bytes.to_vec()))
    }

    /// Compares in a time that depends on the given text's length only.
    pub fn matches(&self, given: &str) -> bool {
        let own = self.0.iter().chain(std::iter::repeat(&0));
        let differs = given.bytes().zip(own).fold(0, |sum, (given, own)| sum | (given ^ own));
        std::hint::black_box(differs) == 0 && given.len() == self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_matches() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("raw");
        assert!(Token::read_from(&path).is_none());
        std::fs::write(&path, " \n").unwrap();
        assert!(Token::read_from(&path).is_none());
        std::fs::write(&path, "c0ffee\n").unwrap();
        let token = Token::read_from(&path).unwrap();
        assert!(token.matches("c0ffee"));
        for wrong in ["", "c0ffe", "c0ffeee", "C0ffee", "c0ffee\0", "c0ffee\n"] {
            assert!(!token.matches(wrong), "{wrong:?}");
        }
    }
}
