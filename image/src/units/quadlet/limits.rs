//! `PidsLimit=`, `Sysctl=`, `Ulimit=`.

use super::reader::Reader;
use crate::container::PIDS_LIMIT;
use crate::units::quoting::Escapes;
use crate::units::value::{self, Expected};
use std::collections::BTreeMap;

impl Reader<'_, '_> {
    pub(super) fn pids_limit(&mut self) -> Option<i64> {
        let limit = self.typed("PidsLimit", |text| value::number(text, -1, i64::MAX));
        // Podman: 0 and -1 are unlimited.
        Some(limit.unwrap_or(PIDS_LIMIT)).filter(|limit| *limit > 0)
    }

    pub(super) fn sysctls(&mut self) -> Vec<(String, String)> {
        let mut sysctls = BTreeMap::new();
        for (line, words) in self.words("Sysctl", Escapes::Literal) {
            for word in words {
                match word.split_once('=').filter(|(name, _)| !name.is_empty()) {
                    Some((name, value)) => {
                        sysctls.insert(name.to_owned(), value.to_owned());
                    }
                    None => self.keys.bad(line, &Expected::Other("`name=value`")),
                }
            }
        }
        sysctls.into_iter().collect()
    }

    /// `name=soft[:hard]`, -1 is unlimited.
    pub(super) fn ulimits(&mut self) -> Vec<(String, u64, u64)> {
        const NAMES: [&str; 15] = [
            "core",
            "cpu",
            "data",
            "fsize",
            "locks",
            "memlock",
            "msgqueue",
            "nice",
            "nofile",
            "nproc",
            "rss",
            "rtprio",
            "rttime",
            "sigpending",
            "stack",
        ];
        let number = |text: &str| match text {
            "-1" => Some(u64::MAX),
            number => number.parse().ok(),
        };
        let mut limits = BTreeMap::new();
        for text in self.values("Ulimit") {
            if text.text == "host" {
                continue;
            }
            let parsed = text.text.split_once('=').and_then(|(name, values)| {
                let (soft, hard) = values.split_once(':').unwrap_or((values, values));
                let (soft, hard) = (number(soft)?, number(hard)?);
                (NAMES.contains(&name) && soft <= hard).then(|| (name.to_owned(), (soft, hard)))
            });
            match parsed {
                Some((name, limit)) => {
                    limits.insert(name, limit);
                }
                None => {
                    let expected = Expected::Other("`name=soft:hard`, such as `nofile=1024:4096`");
                    self.keys.bad(text.assignment, &expected);
                }
            }
        }
        limits.into_iter().map(|(name, (soft, hard))| (name, soft, hard)).collect()
    }
}
