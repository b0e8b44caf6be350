//! Puts what Podman's generator wrote into a fixed order: it walks over maps, whose order is
//! another at every run.

use crate::units::quoting::{self, Escapes, quote};

/// Options that come from maps, each of which is followed by a value unless it has a `=` or is one
/// of [`QUESTIONS`]. Those beside each other are sorted; the values of one option stay in order.
const FROM_MAPS: [&str; 26] = [
    "--add-host",
    "--all-tags",
    "--arch",
    "--authfile",
    "--cert-dir",
    "--creds",
    "--decryption-key",
    "--disable-dns",
    "--dns",
    "--dns-option",
    "--dns-search",
    "--driver",
    "--force-rm",
    "--group-add",
    "--internal",
    "--ip",
    "--ip6",
    "--ipam-driver",
    "--ipv6",
    "--network-alias",
    "--os",
    "--shm-size",
    "--tag",
    "--target",
    "--tls-verify",
    "--variant",
];
/// Of these, those without a value.
const QUESTIONS: [&str; 6] =
    ["--all-tags", "--disable-dns", "--force-rm", "--internal", "--ipv6", "--tls-verify"];

/// The service without its comments, and with the options of its commands in order.
pub(super) fn tidy(text: &str) -> String {
    let mut tidied = String::new();
    for line in text.lines() {
        if line.starts_with('#') || line.is_empty() && tidied.is_empty() {
            continue;
        }
        match line.split_once('=') {
            Some((key, command)) if key.starts_with("Exec") => {
                tidied.push_str(&format!("{key}={}\n", command_in_order(command)));
            }
            _ => tidied.push_str(&format!("{line}\n")),
        }
    }
    tidied
}

fn command_in_order(command: &str) -> String {
    let words = quoting::split(command, Escapes::Decode).words;
    let mut words = words.into_iter().map(|word| word.text).peekable();
    let mut ordered: Vec<Vec<String>> = vec![];
    let mut run: Vec<Vec<String>> = vec![];
    while let Some(word) = words.next() {
        let option = word.split('=').next().unwrap_or_default().to_owned();
        let from_map = FROM_MAPS.contains(&option.as_str());
        if !from_map {
            run.sort_by(|a, b| name(a).cmp(name(b)));
            ordered.append(&mut run);
            ordered.push(vec![word]);
            continue;
        }
        let alone = word.contains('=') || QUESTIONS.contains(&option.as_str());
        let value = if alone { None } else { words.next() };
        run.push(std::iter::once(word).chain(value).collect());
    }
    run.sort_by(|a, b| name(a).cmp(name(b)));
    ordered.append(&mut run);
    let words: Vec<String> = ordered.iter().flatten().map(|word| quote(word)).collect();
    words.join(" ")
}

/// The option's name.
fn name(option: &[String]) -> &str {
    option.first().and_then(|word| word.split('=').next()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_from_maps_are_sorted_and_others_stay() {
        let text = "# by a generator\n[Service]\nExecStart=/usr/bin/podman pod create --replace \
                    --ip6 ::1 --dns 9.9.9.9 --dns 1.1.1.1 --ip 10.0.0.1 --name \"a b\" --x y\n";
        let expected = "[Service]\nExecStart=/usr/bin/podman pod create --replace --dns 9.9.9.9 \
                        --dns 1.1.1.1 --ip 10.0.0.1 --ip6 ::1 --name \"a b\" --x y\n";
        assert_eq!(tidy(text), expected);
    }

    #[test]
    fn questions_take_no_value() {
        let one = "ExecStart=/p network create --ignore --ipv6 --internal=false --driver x name";
        let other = "ExecStart=/p network create --ignore --driver x --ipv6 --internal=false name";
        assert_eq!(tidy(one), tidy(other));
        assert!(tidy(one).ends_with("--driver x --internal=false --ipv6 name\n"));
    }
}
