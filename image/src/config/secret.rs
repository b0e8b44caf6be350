//! `[secret.NAME]`: where the content of a `Secret=` comes from.

use serde::Deserialize;
use std::path::PathBuf;

/// One secret, by exactly one of these keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Secret {
    /// A file beside appliance.toml: it is put into the image, for root alone to read.
    File(PathBuf),
    /// An absolute path of the guest, read whenever a container that wants it starts.
    Path(String),
    /// A credential that the host gives the machine when it starts it, by QEMU's
    /// `-fw_cfg name=opt/io.systemd.credentials/NAME,...`: it is in no image.
    Credential(String),
}

impl Secret {
    /// Where the files of images lie in the guest.
    pub const FOLDER: &str = "/usr/lib/rouse/secrets";
    /// Where the kernel shows credentials.
    pub const CREDENTIALS: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/io.systemd.credentials";
}
