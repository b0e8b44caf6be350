//! Guests of either architecture, and their programs.

/// Both.
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// Most that PID 1's binary is meant to have, in bytes.
const LIMIT: usize = 300_000;

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

/// A Markdown table of the binaries that `rouse` carries for guests: PID 1, which is the one that
/// stays in memory, and what it executes.
pub fn sizes() -> String {
    let mut table = String::from(
        "| guest binaries | init, bytes | of the limit | activator, bytes | sum |\n|---|---|---|---|---|\n",
    );
    for architecture in ARCHITECTURES {
        let row = match rouse::guest::programs(architecture) {
            Ok(programs) => {
                let [init, activator] = programs.into_array().map(<[u8]>::len);
                format!("{init} | {} % | {activator} | {}", init * 100 / LIMIT, init + activator)
            }
            Err(_) => "not built | | | ".into(),
        };
        table += &format!("| {architecture} | {row} |\n");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_architecture() {
        let table = sizes();
        assert_eq!(table.lines().count(), 2 + ARCHITECTURES.len());
        for architecture in ARCHITECTURES {
            assert!(table.contains(&format!("| {architecture} | ")), "{table}");
        }
    }
}
