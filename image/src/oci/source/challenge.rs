//! `WWW-Authenticate:`, RFC 9110 section 11.6.1: what a registry wants to see.

use std::collections::BTreeMap;

/// What is to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password.
    Basic,
    /// A token from another server.
    Bearer(Bearer),
}

/// Where there are tokens, and for what; empty where the registry does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bearer {
    /// The server's address.
    pub(super) realm: String,
    /// What it knows the registry as.
    pub(super) service: String,
    /// What is to be allowed.
    pub(super) scope: String,
}

/// The best of what the headers offer: a token, if there is a choice.
pub(super) fn choose(headers: &[&str]) -> Option<Challenge> {
    let all: Vec<(String, BTreeMap<String, String>)> =
        headers.iter().flat_map(|header| parse(header)).collect();
    let bearer = all.iter().find(|(scheme, parameters)| {
        scheme == "bearer" && parameters.get("realm").is_some_and(|realm| !realm.is_empty())
    });
    if let Some((_, parameters)) = bearer {
        let of = |name: &str| parameters.get(name).cloned().unwrap_or_default();
        let (realm, service, scope) = (of("realm"), of("service"), of("scope"));
        return Some(Challenge::Bearer(Bearer { realm, service, scope }));
    }
    all.iter().any(|(scheme, _)| scheme == "basic").then_some(Challenge::Basic)
}

/// Schemes in lower case, each with its parameters. What makes no sense is skipped.
fn parse(header: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut all: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    for item in split(header) {
        let item = item.trim();
        let (name, value) = item.split_once('=').unwrap_or((item, ""));
        // `Bearer realm="x"`: a scheme stands before its first parameter.
        let name = match name.trim().rsplit_once(char::is_whitespace) {
            Some((scheme, name)) => {
                all.push((scheme.trim().to_ascii_lowercase(), BTreeMap::new()));
                name
            }
            None if item.contains('=') => name.trim(),
            None if item.is_empty() => continue,
            None => {
                all.push((item.to_ascii_lowercase(), BTreeMap::new()));
                continue;
            }
        };
        if let Some((_, parameters)) = all.last_mut() {
            parameters.insert(name.to_ascii_lowercase(), unquoted(value.trim()));
        }
    }
    all
}

/// At commas that are not in quotes.
fn split(header: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    header
        .split(|at: char| {
            match at {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                _ => {}
            }
            at == ',' && !quoted
        })
        .collect()
}

fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"') else { return value.to_owned() };
    let mut text = String::new();
    let mut characters = inner.chars();
    while let Some(at) = characters.next() {
        match at {
            '"' => break,
            '\\' => text.extend(characters.next()),
            at => text.push(at),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str, scope: &str) -> Option<Challenge> {
        let (realm, service, scope) = (realm.into(), service.into(), scope.into());
        Some(Challenge::Bearer(Bearer { realm, service, scope }))
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let realm = "https://auth.docker.io/token";
        let expected = bearer(realm, "registry.docker.io", "repository:a/b:pull,push");
        assert_eq!(choose(&[hub]), expected);
        assert_eq!(choose(&["Basic realm=\"x\"", hub]), expected);
        let odd = r#"Basic realm="a, Bearer b", bearer  REALM=https://x , scope="q\"q""#;
        assert_eq!(choose(&[odd]), bearer("https://x", "", "q\"q"));
        assert_eq!(choose(&["Basic"]), Some(Challenge::Basic));
        assert_eq!(choose(&[r#"Basic realm="Registry Realm""#]), Some(Challenge::Basic));
        for none in
            ["", ",,", "=", "Bearer", "Bearer realm=", "Negotiate abc=", "\"", "Bearer realm=\"\""]
        {
            assert_eq!(choose(&[none]), None, "{none}");
        }
    }
}
