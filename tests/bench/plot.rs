//! Plots: horizontal bars as SVG. A few lines of our own instead of a library of megabytes.

use crate::measure::Measure;
use crate::report::number;
use crate::statistics::Spread;
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const LABELS: f64 = 230.0;
const VALUES: f64 = 110.0;
const LINE: f64 = 24.0;
const TOP: f64 = 40.0;
/// From here on differences are drawn on a logarithmic scale, or nobody saw the small ones.
const FAR: f64 = 30.0;

/// One bar for each row: the median, with a line from the least to the most.
pub(crate) fn bars(measure: &Measure) -> String {
    let rows: Vec<(&str, Spread)> = measure
        .rows
        .iter()
        .filter_map(|row| Some((row.name.as_str(), Spread::of(&row.values)?)))
        .collect();
    let scale = Scale::of(rows.iter().map(|(_, spread)| spread));
    let height = TOP + LINE * rows.len() as f64 + 12.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"20\" font-weight=\"bold\">{}, {}{}</text>\n",
        escaped(&measure.title),
        escaped(&measure.unit),
        if scale.logarithmic { " (logarithmic)" } else { "" }
    );
    for (index, (name, spread)) in rows.iter().enumerate() {
        let y = TOP + LINE * index as f64;
        let color = match *name {
            name if name.starts_with("rouse") => "#c0392b",
            name if name.contains("floor") => "#7f8c8d",
            _ => "#5d8aa8",
        };
        let (middle, from, to) = (
            scale.place(spread.median),
            LABELS + scale.place(spread.least),
            LABELS + scale.place(spread.most),
        );
        let _ = write!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LABELS}\" y=\"{:.0}\" width=\"{middle:.1}\" height=\"14\" fill=\"{color}\"/>\n\
             <line x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{:.0}\" y2=\"{:.0}\" stroke=\"black\"/>\n\
             <text x=\"{:.0}\" y=\"{:.0}\">{}</text>\n",
            LABELS - 8.0,
            y + 12.0,
            escaped(name),
            y,
            y + 7.0,
            y + 7.0,
            to.max(LABELS + middle) + 6.0,
            y + 12.0,
            number(spread.median)
        );
    }
    svg + "</svg>\n"
}

struct Scale {
    logarithmic: bool,
    least: f64,
    most: f64,
}

impl Scale {
    fn of<'a>(spreads: impl Iterator<Item = &'a Spread> + Clone) -> Self {
        let most = spreads.clone().map(|it| it.most).fold(f64::MIN_POSITIVE, f64::max);
        let least = spreads.map(|it| it.least).filter(|it| *it > 0.0).fold(most, f64::min);
        Self { logarithmic: most / least > FAR, least: least / 1.5, most }
    }

    /// Length of a bar.
    fn place(&self, value: f64) -> f64 {
        let part = match self.logarithmic {
            true if value <= self.least => 0.0,
            true => (value / self.least).ln() / (self.most / self.least).ln(),
            false => value / self.most,
        };
        part.clamp(0.0, 1.0) * (WIDTH - LABELS - VALUES)
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
