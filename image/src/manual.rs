//! The manual: what help and the man page say beside the table of what can be typed.
//!
//! `rouse --help` ends with it, and `rouse man` is one page with all of it and every command.

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use std::io;

/// What somebody does first.
const EXAMPLES: [(&str, &str); 6] = [
    ("rouse check echo", "say what is wrong in the folder echo"),
    ("rouse run echo", "build and boot it; Ctrl-C powers it off"),
    (
        "rouse run -d --publish 8080=3000 echo",
        "the same, left running, with a port of this machine",
    ),
    ("rouse connect echo 3000", "talk to its vsock port 3000"),
    ("rouse logs -f echo echo.service", "see what its service writes"),
    ("rouse poweroff echo", "stop it"),
];

/// Exit codes, see [`crate::exit`].
const EXIT_CODES: [(&str, &str); 7] = [
    ("0", "done"),
    ("1", "findings, or what was asked for did not work"),
    ("2", "the command line makes no sense"),
    ("65", "a file of the appliance is wrong, or is not there"),
    ("69", "something is missing on the host, or cannot be reached"),
    ("70", "a bug in rouse"),
    ("75", "the same may work later"),
];

/// Variables that are read; README.md has the same.
const ENVIRONMENT: [(&str, &str); 12] = [
    (
        "ROUSE_CACHE_DIR",
        "cache of packages, tools and images; else $XDG_CACHE_HOME/rouse, else ~/.cache/rouse",
    ),
    (
        "ROUSE_DATA_DIR",
        "folder of disks that are kept; else $XDG_DATA_HOME/rouse, else ~/.local/share/rouse",
    ),
    (
        "ROUSE_RUNTIME_DIR",
        "folder of running VMs; else $XDG_RUNTIME_DIR/rouse, else /tmp/rouse-UID",
    ),
    ("ROUSE_DEBIAN_MIRROR", "the mirror, before apt's"),
    ("ROUSE_SNAPSHOT_MIRROR", "where packages are looked for that the mirror has dropped"),
    ("ROUSE_DEBIAN_CHECK_VALID_UNTIL", "no: accept a mirror whose signed index has expired"),
    ("REGISTRY_AUTH_FILE", "the file with passwords of registries, instead of the usual ones"),
    ("ROUSE_QEMU", "the QEMU to use"),
    ("ROUSE_ACCEL", "kvm or tcg, instead of what works"),
    ("ROUSE_VSOCK", "vhost (the kernel's) or device (ours), instead of what is there"),
    ("ROUSE_RUSTC", "the rustc that compiles static programs for guests, instead of cargo's own"),
    ("NO_COLOR", "no colour"),
];

const SEE_ALSO: &str =
    "systemd.socket(5), systemd.service(5), podman-systemd.unit(5), crun(1), socat(1)";

/// Of help, in columns; what is wider stands in two lines.
const WIDTH: usize = 96;

/// The end of `rouse --help`.
pub fn after_help() -> String {
    let section = |title: &str, entries: &[(&str, &str)]| {
        let width = entries.iter().map(|(word, _)| word.len()).max().unwrap_or_default();
        let longest = entries.iter().map(|(_, text)| text.len()).max().unwrap_or_default();
        let line = |(word, text): &(&str, &str)| match width + longest < WIDTH {
            true => format!("  {word:width$}  {text}\n"),
            false => format!("  {word}\n          {text}\n"),
        };
        format!("{title}:\n{}", entries.iter().map(line).collect::<String>())
    };
    let sections = [
        section("Examples", &EXAMPLES),
        section("Exit codes", &EXIT_CODES),
        section("Environment", &ENVIRONMENT),
    ];
    sections.join("\n").trim_end().to_owned()
}

/// The man page, all commands in one.
pub fn page(mut command: Command) -> io::Result<Vec<u8>> {
    command.build();
    let mut text = Vec::new();
    let whole = Man::new(command.clone());
    whole.render_title(&mut text)?;
    whole.render_name_section(&mut text)?;
    whole.render_synopsis_section(&mut text)?;
    whole.render_description_section(&mut text)?;
    let mut roff = Roff::new();
    roff.control("SH", ["COMMANDS"]);
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        describe(&mut roff, verb);
    }
    roff.control("SH", ["OPTIONS OF ALL COMMANDS"]);
    for option in command.get_arguments().filter(|option| option.is_global_set()) {
        describe_argument(&mut roff, option);
    }
    list(&mut roff, "EXAMPLES", &EXAMPLES);
    list(&mut roff, "EXIT STATUS", &EXIT_CODES);
    list(&mut roff, "ENVIRONMENT", &ENVIRONMENT);
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(SEE_ALSO)]);
    roff.to_writer(&mut text)?;
    Ok(text)
}

/// One command with its arguments.
fn describe(roff: &mut Roff, verb: &Command) {
    let mut verb = verb.clone();
    let usage = verb.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    // What is not escaped here becomes a hyphen that cannot be typed.
    roff.control("SS", [usage.replace('-', "\\-").as_str()]);
    if let Some(about) = verb.get_about() {
        roff.text([roman(format!("{about}."))]);
    }
    let own = |argument: &&clap::Arg| !argument.is_global_set() && argument.get_id() != "help";
    for argument in verb.get_arguments().filter(own) {
        describe_argument(roff, argument);
    }
}

fn describe_argument(roff: &mut Roff, argument: &clap::Arg) {
    let names = argument.get_value_names().unwrap_or_default();
    let value: Vec<String> = names.iter().map(ToString::to_string).collect();
    let short = argument.get_short().map(|short| format!("-{short}"));
    let long = argument.get_long().map(|long| format!("--{long}"));
    let flags: Vec<String> = [short, long].into_iter().flatten().collect();
    let mut head = vec![bold(flags.join(", "))];
    // Those that take nothing have names of values all the same.
    if argument.get_action().takes_values() {
        let gap = if flags.is_empty() { "" } else { " " };
        head.extend([roman(gap), italic(value.join(" "))]);
    }
    let mut text: Vec<Inline> = Vec::new();
    if let Some(help) = argument.get_help() {
        text.push(roman(format!("{help}.")));
    }
    let is_named = |value: &clap::builder::PossibleValue| !value.is_hide_set();
    let values: Vec<String> = argument
        .get_possible_values()
        .iter()
        .filter(|value| is_named(value) && argument.get_action().takes_values())
        .map(|value| value.get_name().to_owned())
        .collect();
    if !values.is_empty() {
        text.push(roman(format!(" One of {}.", values.join(", "))));
    }
    roff.control("TP", []);
    roff.text(head);
    roff.text(text);
}

fn list(roff: &mut Roff, title: &str, entries: &[(&str, &str)]) {
    roff.control("SH", [title]);
    for (word, text) in entries {
        roff.control("TP", []);
        roff.text([bold(*word)]);
        roff.text([roman(*text)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_line::CommandLine;
    use crate::exit;
    use clap::CommandFactory;
    use std::ffi::OsString;

    #[test]
    fn the_examples_can_be_typed() {
        for (line, _) in EXAMPLES {
            use clap::Parser;
            let words = line.split(' ').map(OsString::from);
            CommandLine::try_parse_from(words).unwrap();
        }
    }

    #[test]
    fn the_codes_are_those_that_are_used() {
        let used = [
            exit::DONE,
            exit::FAILED,
            exit::USAGE,
            exit::BAD_INPUT,
            exit::UNAVAILABLE,
            exit::BUG,
            exit::TRY_AGAIN,
        ];
        assert_eq!(EXIT_CODES.map(|(code, _)| code.parse::<u8>().unwrap()), used);
    }

    #[test]
    fn the_readme_has_the_same_variables() {
        let readme = include_str!("../../README.md");
        let (_, table) = readme.split_once("| environment | meaning |\n").unwrap();
        let mut rows: Vec<&str> = table
            .lines()
            .skip(1)
            .map_while(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        let mut known = ENVIRONMENT.map(|(name, _)| name).to_vec();
        rows.sort_unstable();
        known.sort_unstable();
        assert_eq!(rows, known);
    }

    #[test]
    fn the_page_has_every_command_and_flag() {
        let page = String::from_utf8(page(CommandLine::command()).unwrap()).unwrap();
        let mut command = CommandLine::command();
        command.build();
        for verb in command.get_subcommands() {
            let head = format!("rouse {}", verb.get_name().replace('-', "\\-"));
            assert_eq!(page.contains(&head), !verb.is_hide_set(), "{head}");
            for argument in verb.get_arguments().filter(|_| !verb.is_hide_set()) {
                if let Some(long) = argument.get_long() {
                    assert!(page.contains(&long.replace('-', "\\-")), "{long}");
                }
            }
        }
    }
}
