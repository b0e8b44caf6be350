//! Patterns of paths, as Podman takes them (Go's filepath.Match, without classes).

/// Whether a pattern names that path: `*` is any text and `?` any character, but no slash.
pub(super) fn is_match(pattern: &str, path: &str) -> bool {
    let rest = |text: &str| text.chars().next().map_or(0, char::len_utf8);
    match (pattern.chars().next(), path.chars().next()) {
        (None, None) => true,
        (Some('*'), _) if is_match(&pattern[1..], path) => true,
        (Some('*'), Some(letter)) => letter != '/' && is_match(pattern, &path[rest(path)..]),
        (Some('?'), Some(letter)) => letter != '/' && is_match(&pattern[1..], &path[rest(path)..]),
        (Some(one), Some(other)) => {
            one == other && is_match(&pattern[rest(pattern)..], &path[rest(path)..])
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stop_at_slashes() {
        for (pattern, path, expected) in [
            ("*", "a", true),
            ("a*c", "abc", true),
            ("a*c", "abd", false),
            ("a*c", "a/c", false),
            ("/proc/*", "/proc/acpi", true),
            ("/sys/*", "/sys/devices/virtual/powercap", false),
            ("/sys/*/*/powercap", "/sys/devices/virtual/powercap", true),
            ("?", "ä", true),
            ("?", "ab", false),
            ("?", "/", false),
            ("", "", true),
        ] {
            assert_eq!(is_match(pattern, path), expected, "{pattern}");
        }
    }
}
