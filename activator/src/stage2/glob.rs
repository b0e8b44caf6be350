//! Paths with `*`, `?` and `[...]` in their components (glob(7)).

/// All paths that exist and match, sorted. A path without wildcards is there if it exists.
pub fn find(pattern: &str) -> Vec<String> {
    let mut found = vec![if pattern.starts_with('/') { "/".to_owned() } else { String::new() }];
    for component in pattern.split('/').filter(|component| !component.is_empty()) {
        found = found.iter().flat_map(|directory| step(directory, component)).collect();
    }
    found.retain(|path| std::fs::symlink_metadata(path).is_ok());
    found
}

fn step(directory: &str, component: &str) -> Vec<String> {
    let join = |name: &str| match directory {
        "" | "/" => format!("{directory}{name}"),
        directory => format!("{directory}/{name}"),
    };
    if !component.contains(['*', '?', '[', '\\']) {
        return vec![join(component)];
    }
    let place = if directory.is_empty() { "." } else { directory };
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| matches(component, name)).collect();
    names.sort_unstable();
    names.iter().map(|name| join(name)).collect()
}

/// Whether a name matches; a leading dot only by a dot.
pub fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    // Where to go on behind the last star, if what comes after it does not fit.
    let (mut p, mut n, mut retry) = (0, 0, None);
    while n < name.len() || p < pattern.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p, n + 1));
                p += 1;
                continue;
            }
            Some(_) if n < name.len() => {
                let (length, fits) = one(&pattern[p..], name[n]);
                if fits {
                    (p, n) = (p + length, n + 1);
                    continue;
                }
            }
            _ => {}
        }
        match retry {
            Some((star, next)) if next <= name.len() => (p, n) = (star, next),
            _ => return false,
        }
    }
    true
}

/// Length of the pattern's first element, and whether it fits the letter.
fn one(pattern: &[char], letter: char) -> (usize, bool) {
    match pattern {
        ['?', ..] => (1, true),
        ['\\', escaped, ..] => (2, *escaped == letter),
        ['[', set @ ..] => match class(set, letter) {
            Some((length, fits)) => (length + 1, fits),
            None => (1, letter == '['),
        },
        [first, ..] => (1, *first == letter),
        [] => (0, false),
    }
}

/// The same for what stands behind a `[`; None if there is no `]`.
fn class(set: &[char], letter: char) -> Option<(usize, bool)> {
    let negated = usize::from(matches!(set.first(), Some('!' | '^')));
    let body = set.get(negated..)?;
    // A bracket that comes first is one of the set.
    let end = body.iter().skip(1).position(|it| *it == ']')? + 1;
    let mut rest = &body[..end];
    let mut found = false;
    while let [first, tail @ ..] = rest {
        rest = match tail {
            ['-', last, tail @ ..] => {
                found |= (*first..=*last).contains(&letter);
                tail
            }
            tail => {
                found |= *first == letter;
                tail
            }
        };
    }
    Some((negated + end + 1, found != (negated == 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name) in [
            ("*", "abc"),
            ("a*c", "abbc"),
            ("*.conf", "a.b.conf"),
            ("?b*", "abc"),
            ("[a-c]x", "bx"),
            ("[!a-c]x", "dx"),
            ("[]-]", "-"),
            ("[]a]", "]"),
            (r"\*", "*"),
            ("a**", "a"),
            (".*", ".a"),
            ("[x", "[x"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*", ".a"),
            ("a", "b"),
            ("a?", "a"),
            ("*.conf", "a.conf~"),
            ("[a-c]x", "dx"),
            ("[!a]", "a"),
            (r"\*", "a"),
            ("", "a"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_tree() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_str().unwrap();
        for path in ["b/x.conf", "a/x.conf", "a/y.conf", "c/z"] {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let expected = ["a/x.conf", "a/y.conf", "b/x.conf"].map(|path| format!("{root}/{path}"));
        assert_eq!(find(&format!("{root}/*/*.conf")), expected);
        assert_eq!(find(&format!("{root}//a/y.conf")), [expected[1].clone()]);
        assert_eq!(find(&format!("{root}/*/none")), Vec::<String>::new());
        assert_eq!(find("/"), ["/"]);
    }
}
