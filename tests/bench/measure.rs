//! What a measure is, and what came out of it.

use crate::statistics::Spread;
use serde::{Deserialize, Serialize};

/// One table, and one plot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Measure {
    /// Names the files of its plot.
    pub(crate) id: String,
    /// One line.
    pub(crate) title: String,
    /// Of the values: `us`, `MB/s`.
    pub(crate) unit: String,
    /// How it was measured: a sentence or two.
    pub(crate) how: String,
    /// What rouse is to reach.
    pub(crate) goals: Vec<Goal>,
    /// The name of the row that is 1.00, if there is one.
    pub(crate) floor: Option<String>,
    /// In the order in which they were measured within a round.
    pub(crate) rows: Vec<Row>,
    /// Who was not measured, and why.
    pub(crate) absent: Vec<(String, String)>,
}

/// One peer's values.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Whose.
    pub(crate) name: String,
    /// One for each round; a round that failed is missing in all rows.
    pub(crate) values: Vec<f64>,
    /// What has to be known beside it.
    pub(crate) note: String,
}

/// A promise about one row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Goal {
    /// Whose value is looked at.
    pub(crate) row: String,
    /// Over whose; None is the value itself.
    pub(crate) over: Option<String>,
    /// Which way.
    pub(crate) bound: Bound,
}

/// Which values are good.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Bound {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

impl Measure {
    /// Without rows so far.
    pub(crate) fn new(id: &str, title: &str, unit: &str, how: &str) -> Self {
        Self {
            id: id.into(),
            title: title.into(),
            unit: unit.into(),
            how: how.into(),
            goals: vec![],
            floor: None,
            rows: vec![],
            absent: vec![],
        }
    }

    /// Names the row that is 1.00.
    pub(crate) fn floor(mut self, row: &str) -> Self {
        self.floor = Some(row.into());
        self
    }

    /// Adds a promise about a ratio of two rows.
    pub(crate) fn goal(mut self, row: &str, over: &str, bound: Bound) -> Self {
        self.goals.push(Goal { row: row.into(), over: Some(over.into()), bound });
        self
    }

    /// Adds a promise about a row's own value.
    pub(crate) fn limit(mut self, row: &str, bound: Bound) -> Self {
        self.goals.push(Goal { row: row.into(), over: None, bound });
        self
    }

    /// A row by its name.
    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// Adds a value to a row, which is made if it is not there.
    pub(crate) fn add(&mut self, name: &str, value: f64) {
        match self.rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.values.push(value),
            None => {
                self.rows.push(Row { name: name.into(), values: vec![value], note: String::new() })
            }
        }
    }

    /// Says something beside a row that is there.
    pub(crate) fn note(&mut self, name: &str, note: &str) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.name == name) {
            row.note = note.into();
        }
    }

    /// Loudly: a peer that was not measured.
    pub(crate) fn leave_out(&mut self, name: &str, why: &str) {
        eprintln!("NOT RUN: {}: {name}: {why}", self.id);
        self.absent.push((name.into(), why.into()));
    }

    /// A row's values over those of another, or of the floor.
    pub(crate) fn ratio(&self, row: &str, over: Option<&str>) -> Option<Spread> {
        let over = self.row(over.or(self.floor.as_deref())?)?;
        Spread::of_ratios(&self.row(row)?.values, &over.values)
    }

    /// A goal in words, and whether it was reached; None if that was not measured.
    pub(crate) fn verdict(&self, goal: &Goal) -> (String, Option<bool>) {
        let value = match &goal.over {
            Some(over) => self.ratio(&goal.row, Some(over)),
            None => self.row(&goal.row).and_then(|row| Spread::of(&row.values)),
        };
        let reached = value.map(|value| match goal.bound {
            Bound::AtMost(limit) => value.median <= limit,
            Bound::AtLeast(limit) => value.median >= limit,
        });
        let of = match &goal.over {
            Some(over) => format!("times {over}"),
            None => self.unit.clone(),
        };
        let bound = match goal.bound {
            Bound::AtMost(limit) => format!("at most {limit}"),
            Bound::AtLeast(limit) => format!("at least {limit}"),
        };
        let value = value.map_or("not measured".into(), |it| crate::report::number(it.median));
        (format!("{}: {bound} {of}, and is {value}", goal.row), reached)
    }
}
