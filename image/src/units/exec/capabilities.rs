//! `CapabilityBoundingSet=`, `AmbientCapabilities=` and `SecureBits=`, capabilities(7).

use crate::units::keys::Keys;
use crate::units::quoting::Word;
use crate::units::value::{Expected, capability};

/// `CapabilityBoundingSet=` as a mask; None leaves all.
pub(super) fn bounding(keys: &mut Keys<'_>, section: &str) -> Option<u64> {
    let mask = mask(keys, section, "CapabilityBoundingSet", capability::ALL)?;
    (mask != capability::ALL).then_some(mask)
}

/// `AmbientCapabilities=` as a mask.
pub(super) fn ambient(keys: &mut Keys<'_>, section: &str) -> u64 {
    mask(keys, section, "AmbientCapabilities", 0).unwrap_or(0)
}

/// The lines one after the other, as systemd joins them: an empty one or a lone `~` begins anew,
/// and so does the first. `~` takes away.
fn mask(keys: &mut Keys<'_>, section: &str, key: &str, initial: u64) -> Option<u64> {
    let unit = keys.unit;
    let mut mask = None;
    for line in unit.all(section, key) {
        let Some(words) = keys.raw_words(line) else { continue };
        let (invert, words) = inverted(words.words);
        let mut sum = 0;
        for word in words {
            match capability::number(&word.text) {
                Some(number) => sum |= 1 << number,
                None if word.text.eq_ignore_ascii_case("all") => sum |= capability::ALL,
                None => keys.bad_word(line, &word, &Expected::Other("names such as `CAP_NET_RAW`")),
            }
        }
        let before = mask.unwrap_or(initial);
        mask = Some(match (invert, sum == 0 || before == initial) {
            (true, true) => capability::ALL & !sum,
            (false, true) => sum,
            (true, false) => before & !sum,
            (false, false) => before | sum,
        });
    }
    mask
}

/// Takes the `~` off the first word.
pub(super) fn inverted(mut words: Vec<Word>) -> (bool, Vec<Word>) {
    let Some(first) = words.first_mut() else { return (false, words) };
    let Some(rest) = first.text.strip_prefix('~') else { return (false, words) };
    first.text = rest.to_owned();
    if first.text.is_empty() {
        words.remove(0);
    }
    (true, words)
}

/// `SecureBits=`, prctl(2).
pub(super) fn secure_bits(keys: &mut Keys<'_>, section: &str) -> u32 {
    const NAMES: [(&str, u32); 6] = [
        ("noroot", 1),
        ("noroot-locked", 1 << 1),
        ("no-setuid-fixup", 1 << 2),
        ("no-setuid-fixup-locked", 1 << 3),
        ("keep-caps", 1 << 4),
        ("keep-caps-locked", 1 << 5),
    ];
    let mut bits = 0;
    for (line, word) in keys.list_words(section, "SecureBits") {
        match NAMES.iter().find(|(name, _)| *name == word.text) {
            Some((_, bit)) => bits |= bit,
            None => keys.bad_word(
                line,
                &word,
                &Expected::Other("keep-caps, no-setuid-fixup, noroot, each also with `-locked`"),
            ),
        }
    }
    bits
}
