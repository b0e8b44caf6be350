//! Samples of rounds: medians, spreads, and ratios that are formed within each round.

use serde::{Deserialize, Serialize};

/// The middle one of some values and the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// The smallest.
    pub(crate) least: f64,
    /// The middle one; of an even number the upper of the two.
    pub(crate) median: f64,
    /// The largest.
    pub(crate) most: f64,
}

impl Spread {
    /// None of no values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        Some(Self { least, median: sorted[sorted.len() / 2], most })
    }

    /// Of the values over those of the same round beside them. A machine that is busy with other
    /// things slows down both.
    pub(crate) fn of_ratios(values: &[f64], floor: &[f64]) -> Option<Self> {
        let ratios: Vec<f64> =
            values.iter().zip(floor).map(|(value, floor)| value / floor).collect();
        Self::of(&ratios)
    }
}

/// The value below which that part of all lie, 0 to 1; NaN of no values.
pub(crate) fn quantile(values: &[f64], part: f64) -> f64 {
    let sorted = sorted(values);
    let at = ((sorted.len() as f64 * part) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}
