//! Entrypoints that break activation, found by reading them.
//!
//! An activated container gets its sockets from fd 3 on, meant for process 1 of its pid namespace
//! (`LISTEN_PID=1`). A shell script as entrypoint can spoil that in two ways:
//! * it runs the program as a child instead of by `exec`: the program is not process 1, and takes
//!   the sockets for somebody else's;
//! * it uses fd 3 itself, as the entrypoint of docker-nginx did (its issue 702).
//!
//! Only scripts for a Bourne shell, and `sh -c`, are looked at, and only for what their text shows:
//! a program that does the same is not recognised, and a script that nothing is said about may
//! still be wrong. So this is a warning.

use crate::container::Container;
use crate::finding::Finding;
use crate::tree::Tree;
use serde_json::Value;

/// Interpreters whose language this reads.
const SHELLS: [&str; 6] = ["sh", "dash", "bash", "ash", "ksh", "busybox"];
/// Longer files are no entrypoints that people wrote.
const LONGEST: usize = 256 * 1024;

/// How a script spoils it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nothing in it is executed in its place.
    Forks,
    /// It opens, copies or closes fd 3.
    UsesFd3,
}

/// Looks at what a container with sockets runs, by its config.json.
pub fn check(container: &Container, specification: &Value, image: &Tree) -> Option<Finding> {
    let texts = |value: &Value| -> Vec<String> {
        let items = value.as_array().into_iter().flatten();
        items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let process = specification.get("process")?;
    let mut arguments = texts(process.get("args")?);
    // An init names the process that it starts in LISTEN_PID, and so that one has to be the program.
    if arguments.first().is_some_and(|program| program == super::INIT_IN_CONTAINER) {
        arguments.drain(..arguments.len().min(2));
    }
    let environment = texts(process.get("env")?);
    let (what, fault) = inspect(&arguments, &environment, image)?;
    let message = match fault {
        Fault::Forks => {
            format!("{what} runs its program as a child, which will not take the sockets")
        }
        Fault::UsesFd3 => format!("{what} uses fd 3, which is the first of the sockets"),
    };
    let label = match fault {
        Fault::Forks => "LISTEN_PID is the shell's: no `exec` in it",
        Fault::UsesFd3 => "the program would find the socket closed, or another file",
    };
    Some(Finding::warning(container.image_span.clone(), message).label(label).help(
        "set `Entrypoint=` to the program itself; or write `X-RelayTo=127.0.0.1:PORT` into the \
             socket unit, and the container needs no sockets",
    ))
}

/// What the first fault is in, and which it is.
fn inspect(arguments: &[String], environment: &[String], image: &Tree) -> Option<(String, Fault)> {
    let program = arguments.first()?;
    if is_shell(program) {
        return match arguments.get(1).map(String::as_str) {
            Some("-c") => {
                let text = arguments.get(2)?;
                // A shell executes a single simple command in its place.
                let single = !text.contains([';', '&', '|', '\n']);
                let fault = fault(text).filter(|fault| !single || *fault != Fault::Forks)?;
                Some((format!("`{program} -c`"), fault))
            }
            Some(script) if !script.starts_with('-') => script_fault(script, environment, image),
            _ => None,
        };
    }
    script_fault(program, environment, image)
}

fn script_fault(program: &str, environment: &[String], image: &Tree) -> Option<(String, Fault)> {
    let path = find(program, environment, image)?;
    let content = image.content(&path).filter(|content| content.len() <= LONGEST)?;
    let text = std::str::from_utf8(content).ok()?;
    let interpreter = text.strip_prefix("#!")?.lines().next()?;
    let mut words = interpreter.split_ascii_whitespace();
    let first = words.next()?;
    // `#!/usr/bin/env bash`
    let shell = if first.ends_with("/env") { words.next()? } else { first };
    let fault = fault(text).filter(|_| is_shell(shell))?;
    Some((format!("the entrypoint {path}"), fault))
}

fn is_shell(program: &str) -> bool {
    SHELLS.contains(&program.rsplit('/').next().unwrap_or(program))
}

/// The file of a program in the image, by PATH; links are followed as far as they stay in it.
fn find(program: &str, environment: &[String], image: &Tree) -> Option<String> {
    let follow = |path: &str| image.trace(path)?.pop().filter(|path| image.content(path).is_some());
    if program.contains('/') {
        return follow(program);
    }
    let path = environment.iter().find_map(|variable| variable.strip_prefix("PATH="));
    path.unwrap_or_default().split(':').find_map(|folder| follow(&format!("{folder}/{program}")))
}

/// What is wrong with a script.
fn fault(text: &str) -> Option<Fault> {
    let lines = || text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    if lines().any(uses_fd_3) {
        return Some(Fault::UsesFd3);
    }
    (!lines().any(executes)).then_some(Fault::Forks)
}

/// `3>`, `3<`, `>&3`, `<&3`.
fn uses_fd_3(line: &str) -> bool {
    let bytes = line.as_bytes();
    let at = |index: Option<usize>| index.and_then(|index| bytes.get(index)).copied();
    let in_word =
        |byte: Option<u8>| byte.is_some_and(|it| it.is_ascii_alphanumeric() || it == b'_');
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'3').any(|(index, _)| {
        let before = at(index.checked_sub(1));
        let opened = !in_word(before)
            && !matches!(before, Some(b'$' | b'-' | b'.' | b'"' | b'\'' | b'&'))
            && matches!(at(index.checked_add(1)), Some(b'>' | b'<'));
        let sign = at(index.checked_sub(2));
        let copied = before == Some(b'&')
            && matches!(sign, Some(b'>' | b'<'))
            && !in_word(at(index.checked_add(1)));
        opened || copied
    })
}

/// `exec PROGRAM`, at the start of a command; `exec >file` is none.
fn executes(line: &str) -> bool {
    let starts = |(at, _): &(usize, &str)| {
        let before = line.get(..*at).unwrap_or_default().trim_end();
        let word =
            before.rsplit([' ', '\t', ';', '&', '|', '(', ')', '{']).next().unwrap_or_default();
        before.is_empty()
            || before.ends_with([';', '&', '|', '(', ')', '{'])
            || ["then", "else", "do", "!"].contains(&word)
            // Variables before it.
            || word.contains('=')
    };
    let runs = |(at, _): (usize, &str)| {
        let behind = line.get(at + "exec".len()..).unwrap_or_default();
        let argument = behind.trim_start();
        let first = argument.trim_start_matches(|c: char| c.is_ascii_digit());
        behind.starts_with([' ', '\t']) && !argument.is_empty() && !first.starts_with(['<', '>'])
    };
    line.match_indices("exec").filter(starts).any(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    fn of_script(text: &str) -> Option<Fault> {
        let mut image = Tree::plain();
        image.insert("/usr/bin/start", Node::file(text.as_bytes(), 0o755, "test")).unwrap();
        let environment = ["PATH=/usr/local/bin:/usr/bin".to_owned()];
        inspect(&["start".into()], &environment, &image).map(|(_, fault)| fault)
    }

    #[test]
    fn scripts_that_execute_their_program() {
        for text in [
            "#!/bin/sh\nset -e\nexec \"$@\"\n",
            "#!/bin/bash\nif true; then exec nginx -g 'daemon off;'; fi\n",
            "#!/usr/bin/env bash\nA=1 exec gosu www \"$0\" \"$@\"\n",
            "#!/bin/sh\ntest -f /x && exec /x\n",
            // Not of a shell.
            "#!/usr/bin/python3\nimport os\n",
            "no script",
        ] {
            assert_eq!(of_script(text), None, "{text}");
        }
    }

    #[test]
    fn scripts_that_fork() {
        for text in [
            "#!/bin/sh\nnginx -g 'daemon off;'\n",
            "#!/bin/sh\n# exec nginx\nserver & wait\n",
            "#!/bin/sh\nexec >/var/log/start 2>&1\nserver\n",
            "#!/bin/sh\nexecute server\n",
        ] {
            assert_eq!(of_script(text), Some(Fault::Forks), "{text}");
        }
    }

    #[test]
    fn scripts_that_use_fd_3() {
        for text in [
            // As docker-nginx 1.19 had it.
            "#!/bin/sh\nif [ -z \"$QUIET\" ]; then\n    exec 3>&1\nelse\n    exec 3>/dev/null\nfi\n\
             exec \"$@\"\n",
            "#!/bin/sh\necho hello >&3\nexec \"$@\"\n",
            "#!/bin/sh\nexec 3<&-\nexec \"$@\"\n",
        ] {
            assert_eq!(of_script(text), Some(Fault::UsesFd3), "{text}");
        }
        for text in ["echo 3 >x", "a3>x", "test $3>x", "echo $x >&30", "sleep 0.3>x", "2>&1"] {
            assert!(!uses_fd_3(text), "{text}");
        }
    }

    #[test]
    fn a_command_line_for_a_shell() {
        let of = |text: &str| {
            let line = ["/bin/sh".to_owned(), "-c".into(), text.into()];
            inspect(&line, &[], &Tree::plain()).map(|(_, fault)| fault)
        };
        assert_eq!(of("nginx -g off"), None);
        assert_eq!(of("cd /srv && exec httpd"), None);
        assert_eq!(of("cd /srv && httpd"), Some(Fault::Forks));
        assert_eq!(of("httpd 3>&-"), Some(Fault::UsesFd3));
    }
}
