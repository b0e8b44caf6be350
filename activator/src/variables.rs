//! `$VARIABLES` in command lines (systemd.service(5), "Command lines"): one set of rules for the
//! host, which expands what it knows, and the guest, which expands the rest.
//!
//! `$NAME` as a word of its own becomes the words of its value, `${NAME}` anywhere becomes its
//! value, `$$` is one `$`. A variable that is not set is empty: no word, or nothing.

/// Expands one argument to any number of them. `lookup` knows the values, and hears of what is
/// not set.
pub fn expand(argument: &str, lookup: &mut dyn FnMut(&str) -> Option<String>) -> Vec<String> {
    if let Some(name) = argument.strip_prefix('$').filter(|name| is_name(name)) {
        return lookup(name).map(|value| split(&value)).unwrap_or_default();
    }
    let mut expanded = String::with_capacity(argument.len());
    let mut rest = argument;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = tail;
            continue;
        }
        let braced = rest.strip_prefix('{').and_then(|tail| tail.split_once('}'));
        match braced.filter(|(name, _)| is_name(name)) {
            Some((name, tail)) => {
                expanded.push_str(&lookup(name).unwrap_or_default());
                rest = tail;
            }
            None => expanded.push('$'),
        }
    }
    expanded.push_str(rest);
    vec![expanded]
}

/// Whether a text is the name of a variable.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The words of a value: blanks divide, quotes hold together and go, a backslash takes the
/// meaning from the next character.
fn split(value: &str) -> Vec<String> {
    let mut words = vec![];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => word.get_or_insert_default().extend(letters.next()),
            letter if quote == Some(letter) => quote = None,
            '"' | '\'' if quote.is_none() => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            letter if quote.is_none() && letter.is_ascii_whitespace() => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_braces_and_dollars() {
        let mut unset = vec![];
        let mut expand = |text: &str| {
            expand(text, &mut |name| match name {
                "A" => Some("one 'two three' \"\" f\\ our".into()),
                "E" => Some(String::new()),
                name => {
                    unset.push(name.to_owned());
                    None
                }
            })
        };
        assert_eq!(expand("$A"), ["one", "two three", "", "f our"]);
        assert_eq!(expand("x${E}y${A}"), ["xyone 'two three' \"\" f\\ our"]);
        assert_eq!(expand("$E"), Vec::<String>::new());
        assert_eq!(expand("${E}"), [""]);
        assert_eq!(expand("$$A"), ["$A"]);
        assert_eq!(expand("a$A ${"), ["a$A ${"]);
        assert_eq!(expand("$NONE"), Vec::<String>::new());
        assert_eq!(expand("-${OTHER}"), ["-"]);
        assert_eq!(unset, ["NONE", "OTHER"]);
    }
}
