//! What is written: a table for people, JSON for programs, and plots.

use crate::measure::Measure;
use crate::plot;
use crate::statistics::Spread;
use std::fmt::Write;
use std::path::Path;

/// The table's file.
pub(crate) const TABLE: &str = "README.md";
/// Everything, to read by programs.
pub(crate) const DATA: &str = "results.json";

/// What was run, where.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Report {
    /// The command that makes it again.
    pub(crate) command: String,
    /// Kernel and processor of the machine.
    pub(crate) machine: String,
    /// In the order of the table.
    pub(crate) measures: Vec<Measure>,
}

impl Report {
    /// Writes all files into a folder; those of measures that were not run now stay.
    pub(crate) fn write(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        for measure in self.measures.iter().filter(|measure| !measure.rows.is_empty()) {
            std::fs::write(folder.join(format!("{}.svg", measure.id)), plot::bars(measure))?;
        }
        std::fs::write(folder.join(DATA), serde_json::to_vec_pretty(self)?)?;
        std::fs::write(folder.join(TABLE), self.markdown())
    }

    /// The table.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!(
            "# Benchmark\n\nWritten by `{}` on {}. Medians of rounds that took turns; beside them the \
             least and the most of the rounds. Ratios are formed within each round. How each is \
             measured, and what was learned, is in [../README.md](../README.md).\n",
            self.command, self.machine
        );
        for measure in &self.measures {
            text += &section(measure);
        }
        text
    }
}

fn section(measure: &Measure) -> String {
    let mut text = format!("\n## {}\n\n{}\n", measure.title, measure.how);
    for goal in &measure.goals {
        let (words, reached) = measure.verdict(goal);
        let word = match reached {
            Some(true) => "reached",
            Some(false) => "**missed**",
            None => "open",
        };
        let _ = write!(text, "\nGoal {word}: {words}.\n");
    }
    if !measure.rows.is_empty() {
        let against =
            measure.floor.as_deref().map_or(String::new(), |floor| format!(" of {floor} |"));
        let rule = if measure.floor.is_some() { "---|" } else { "" };
        let unit = &measure.unit;
        let _ =
            write!(text, "\n| | {unit} | least to most |{against} |\n|---|---|---|{rule}---|\n");
    }
    for row in &measure.rows {
        let Some(spread) = Spread::of(&row.values) else { continue };
        let ends = format!("{} to {}", number(spread.least), number(spread.most));
        let ratio = match (&measure.floor, measure.ratio(&row.name, None)) {
            (None, _) => String::new(),
            (Some(_), None) => " |".into(),
            (Some(_), Some(it)) => {
                format!(" {:.2} ({:.2} to {:.2}) |", it.median, it.least, it.most)
            }
        };
        let (name, median, note) = (&row.name, number(spread.median), &row.note);
        let _ = writeln!(text, "| {name} | {median} | {ends} |{ratio} {note} |");
    }
    if !measure.rows.is_empty() {
        let _ = write!(text, "\n![{}]({}.svg)\n", measure.title, measure.id);
    }
    for (name, why) in &measure.absent {
        let _ = write!(text, "\nNot run: {name}: {why}.\n");
    }
    text
}

/// Three digits or so.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
