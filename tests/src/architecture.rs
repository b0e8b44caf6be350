//! Guests of either architecture, and their programs.

/// Both.
pub const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// Most that PID 1's binary may have with musl, in bytes. With glibc an empty program has a million.
pub const INIT_LIMIT: usize = 300_000;

/// The architecture that this machine is not of. None, and a line that says so, where `rouse` was
/// built without an activator for it: continuous integration has one (`.ci/run`).
pub fn foreign() -> Option<&'static str> {
    let foreign = ARCHITECTURES.into_iter().find(|name| *name != std::env::consts::ARCH)?;
    match rouse::guest::programs(foreign) {
        Ok(_) => Some(foreign),
        Err(error) => {
            crate::skipped(format_args!("no guests of {foreign}: failed to {error}"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rouse::static_build::Libc;

    #[test]
    fn pid_1_is_small_with_musl() {
        for architecture in ARCHITECTURES {
            let skip = |why: &dyn std::fmt::Display| {
                crate::skipped(format_args!("the size of init of {architecture}: {why}"));
            };
            match rouse::guest::programs(architecture).map(|programs| programs.init) {
                Err(error) => skip(&error),
                Ok(init) if Libc::of(init) != Some(Libc::Musl) => skip(&"it is not of musl"),
                Ok(init) => assert!(
                    init.len() <= INIT_LIMIT,
                    "init of {architecture} has {} bytes",
                    init.len()
                ),
            }
        }
    }
}
