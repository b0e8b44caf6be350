//! The syntax of an `EnvironmentFile=` (systemd.exec(5)): lines of `NAME=value`, much like a
//! shell's. Comments begin with `#` or `;`, only at the start of a line. A value may be quoted:
//! in `'...'` all is as it stands, over lines, too; in `"..."` a backslash stands before `"`, `\`,
//! `` ` `` and `$`. Quoted pieces side by side are joined. Outside quotes a backslash takes the
//! meaning from the next character, and joins lines.

use std::iter::Peekable;
use std::str::Chars;

/// All assignments in their order; a line without `=` is none.
pub fn parse(text: &str) -> Vec<(String, String)> {
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable();
    let mut found = vec![];
    while let Some(letter) = rest.peek() {
        match letter {
            '#' | ';' => skip_line(&mut rest),
            letter if letter.is_ascii_whitespace() => {
                rest.next();
            }
            _ => {
                if let Some(name) = name(&mut rest) {
                    found.push((name, value(&mut rest)));
                }
            }
        }
    }
    found
}

type Rest<'a> = Peekable<Chars<'a>>;

fn skip_line(rest: &mut Rest<'_>) {
    rest.by_ref().find(|letter| *letter == '\n');
}

/// Up to the `=`, which is taken; None where the line ends first.
fn name(rest: &mut Rest<'_>) -> Option<String> {
    let mut name = String::new();
    for letter in rest.by_ref() {
        match letter {
            '=' => return Some(name.trim_end().to_owned()),
            '\n' | '\r' => return None,
            letter => name.push(letter),
        }
    }
    None
}

fn value(rest: &mut Rest<'_>) -> String {
    let mut value = String::new();
    // Behind a quoted piece another may follow, after blanks that do not count.
    while let Some(letter) = rest.next() {
        match letter {
            '\n' | '\r' => break,
            '\'' => value.extend(rest.by_ref().take_while(|letter| *letter != '\'')),
            '"' => double_quoted(rest, &mut value),
            ' ' | '\t' => {}
            letter => {
                unquoted(letter, rest, &mut value);
                break;
            }
        }
    }
    value
}

fn double_quoted(rest: &mut Rest<'_>, value: &mut String) {
    while let Some(letter) = rest.next() {
        match letter {
            '"' => return,
            '\\' => match rest.next() {
                Some(escaped @ ('"' | '\\' | '`' | '$')) => value.push(escaped),
                Some('\n') | None => {}
                Some(other) => value.extend(['\\', other]),
            },
            letter => value.push(letter),
        }
    }
}

/// To the end of the line, from its first character on; blanks at the end do not count.
fn unquoted(first: char, rest: &mut Rest<'_>, value: &mut String) {
    let mut letter = Some(first);
    // Up to here nothing is taken off the end.
    let mut kept = value.len();
    while let Some(next) = letter {
        match next {
            '\n' | '\r' => break,
            '\\' => match rest.next() {
                Some('\n') | None => {}
                Some(escaped) => {
                    value.push(escaped);
                    kept = value.len();
                }
            },
            letter => {
                value.push(letter);
                if !letter.is_ascii_whitespace() {
                    kept = value.len();
                }
            }
        }
        letter = rest.next();
    }
    value.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str)]) {
        let found = parse(text);
        let found: Vec<_> = found.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn names_values_and_comments() {
        check("", &[]);
        check("A=1\nB=2", &[("A", "1"), ("B", "2")]);
        check("# A=1\n ; B=2\n\n  C = 3 # 4  \r\n", &[("C", "3 # 4")]);
        check("no assignment\nA=\nB= \n=x\n", &[("A", ""), ("B", ""), ("", "x")]);
        check("A=b=c", &[("A", "b=c")]);
        check("# comment \\\nA=1", &[("A", "1")]);
    }

    #[test]
    fn quotes_and_escapes() {
        check(r#"A="b c" 'd e'"#, &[("A", "b cd e")]);
        check("A='b\n#c\\n'\nD=\"e\nf\"", &[("A", "b\n#c\\n"), ("D", "e\nf")]);
        check(r#"A="\"\\\`\$\n""#, &[("A", r#""\`$\n"#)]);
        check(r#"A=b"c"'d'"#, &[("A", r#"b"c"'d'"#)]);
        check(r#"A="b"c d "#, &[("A", "bc d")]);
        check("A=b\\\nc\nD=\"e\\\nf\"", &[("A", "bc"), ("D", "ef")]);
        check(r"A=b\ \ ", &[("A", "b  ")]);
        check(r"A=\#b\\c\", &[("A", r"#b\c")]);
        check("A='open\nB=1", &[("A", "open\nB=1")]);
    }
}
