//! The mounts of this namespace, from /proc/self/mountinfo (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    pub(super) id: u64,
    pub(super) path: PathBuf,
}

/// Line by line; others may lie over one.
pub(super) fn parse(text: &[u8]) -> Vec<Mounted> {
    let mut mounts = vec![];
    for line in text.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let id = fields.next().and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
        // Parent, device and root are between.
        if let (Some(id), Some(path)) = (id, fields.nth(3)) {
            mounts.push(Mounted { id, path: unescape(path) });
        }
    }
    mounts
}

/// Blanks, tabs, newlines and backslashes are written as three octal digits.
fn unescape(text: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] if *first == b'\\' => {
                path.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                tail
            }
            tail => {
                path.push(*first);
                tail
            }
        };
    }
    PathBuf::from(OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_paths() {
        let text = b"36 35 98:0 /mnt1 / rw,noatime master:1 - ext3 /dev/root rw\n\
                     101 36 0:5 / /a\\040b\\134\\377 rw - tmpfs none rw\n\nnonsense\n";
        let mounted = |id, path: &[u8]| Mounted {
            id,
            path: PathBuf::from(OsString::from_vec(path.to_vec())),
        };
        assert_eq!(parse(text), [mounted(36, b"/"), mounted(101, b"/a b\\\xff")]);
    }
}
