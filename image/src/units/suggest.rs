//! Did you mean: the known word that is nearest to an unknown one.

/// The nearest of `known`, if it is near enough to be meant. Upper and lower case do not count.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer words are no typing mistake, and the distance takes quadratic time.
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The nearest unit of the same type. Names of one or two letters are near to anything.
pub(crate) fn nearest_unit<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let (stem, kind) = name.rsplit_once('.')?;
    let stems: Vec<(&str, &str)> = known
        .into_iter()
        .filter(|known| *known != name)
        .filter_map(|known| Some((known.rsplit_once('.').filter(|(_, of)| *of == kind)?.0, known)))
        .filter(|(known, _)| stem.len() > 2 && known.len() > 2)
        .collect();
    let near = nearest(stem, stems.iter().map(|(stem, _)| *stem))?;
    stems.iter().find(|(stem, _)| *stem == near).map(|(_, known)| *known)
}

/// Levenshtein's distance, with two neighbours swapped as one step.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_are_near_and_other_words_are_not() {
        let known = ["ListenStream", "ListenDatagram", "Backlog", "Accept"];
        assert_eq!(nearest("ListenStraem", known), Some("ListenStream"));
        assert_eq!(nearest("listenstream", known), Some("ListenStream"));
        assert_eq!(nearest("Backlogs", known), Some("Backlog"));
        assert_eq!(nearest("Colour", known), None);
        let units = ["echo.socket", "echo.service", "b.service"];
        assert_eq!(nearest_unit("ehco.service", units), Some("echo.service"));
        assert_eq!(nearest_unit("dbus.service", units), None);
        assert_eq!(nearest_unit("a.service", units), None);
    }
}
