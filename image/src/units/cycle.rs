//! A circle in the order of units, if there is one.

use activator::manifest::UnitId;

/// Depth first over "comes after", from the first unit on; a unit that is met again on the way
/// closes a circle. Returns its units, each before the one that it comes after.
pub(crate) fn find(after: &[Vec<UnitId>]) -> Option<Vec<UnitId>> {
    let mut done = vec![false; after.len()];
    for start in 0..after.len() {
        // The way from `start` on, and what is left to look at from each unit of it.
        let mut way: Vec<(usize, &[UnitId])> = vec![];
        let mut next = Some(start);
        while let Some(unit) = next {
            if let Some(at) = way.iter().position(|(met, _)| *met == unit) {
                let ids = way[at..].iter().map(|(met, _)| UnitId(*met as u16));
                return Some(ids.collect());
            }
            if !done[unit] {
                way.push((unit, after.get(unit).map_or(&[], Vec::as_slice)));
            }
            next = loop {
                let Some((unit, rest)) = way.last_mut() else { break None };
                match rest.split_first() {
                    Some((following, others)) => {
                        *rest = others;
                        break Some(following.index());
                    }
                    None => {
                        done[*unit] = true;
                        way.pop();
                    }
                }
            };
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circle(after: &[&[u16]]) -> Option<Vec<u16>> {
        let after: Vec<Vec<UnitId>> =
            after.iter().map(|ids| ids.iter().copied().map(UnitId).collect()).collect();
        find(&after).map(|ids| ids.into_iter().map(|id| id.0).collect())
    }

    #[test]
    fn circles_are_found_and_diamonds_are_none() {
        assert_eq!(circle(&[]), None);
        assert_eq!(circle(&[&[1, 2], &[3], &[3], &[]]), None);
        assert_eq!(circle(&[&[0]]), Some(vec![0]));
        assert_eq!(circle(&[&[1], &[2], &[1]]), Some(vec![1, 2]));
        assert_eq!(circle(&[&[1, 2], &[], &[3], &[0]]), Some(vec![0, 2, 3]));
    }
}
