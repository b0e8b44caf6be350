//! The one module that owns the terminal: stderr is talk, stdout is data.
//!
//! Progress is a bar on a terminal and a line now and then elsewhere. Colour follows NO_COLOR,
//! CLICOLOR and whether stderr is a terminal (anstream).

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two lines of progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

static QUIET: AtomicBool = AtomicBool::new(false);

/// Drops progress and notes; warnings and errors stay.
pub fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Whether progress and notes are dropped.
pub fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Whether findings and labels on stderr are coloured.
pub fn colour() -> bool {
    anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never
}

/// A line about what happens.
pub fn note(text: impl AsRef<str>) {
    if !is_quiet() {
        say("note", anstyle::AnsiColor::Cyan, text.as_ref());
    }
}

/// Something that probably is not as it was meant.
pub fn warn(text: impl AsRef<str>) {
    say("warning", anstyle::AnsiColor::Yellow, text.as_ref());
}

/// What went wrong.
pub fn error(text: impl AsRef<str>) {
    say("error", anstyle::AnsiColor::Red, text.as_ref());
}

/// One next step.
pub fn hint(text: impl AsRef<str>) {
    say("hint", anstyle::AnsiColor::Green, text.as_ref());
}

fn say(label: &str, colour: anstyle::AnsiColor, text: &str) {
    let style = anstyle::Style::new().bold().fg_color(Some(colour.into()));
    line(&format!("{style}{label}{style:#}: {text}"));
}

/// Writes one line above a bar that is being drawn. A closed stderr is nobody's error.
pub fn line(text: &str) {
    let bar = BAR.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let write = || {
        let _ = writeln!(anstream::stderr().lock(), "{text}");
    };
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Shows what the libraries of this house log: warnings and worse. In a VM's process they go to
/// its vmm.log.
pub fn show_log() {
    struct Logger;
    impl log::Log for Logger {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.level() <= log::Level::Warn && metadata.target().starts_with("rouse")
        }
        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                warn(record.args().to_string());
            }
        }
        fn flush(&self) {}
    }
    // It fails only where there is one already, which is as good.
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
}

/// What a task counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Bytes.
    Bytes,
    /// Things.
    Items,
    /// Nothing: it just takes a while.
    None,
}

/// Something that takes more than a moment. One at a time is drawn; dropping it ends it.
pub struct Task {
    label: String,
    measure: Measure,
    bar: ProgressBar,
    drawn: bool,
    begun: Instant,
    last_line: Mutex<Instant>,
}

impl Task {
    /// Begins a task; a `total` of 0 is not known.
    pub fn begin(label: impl Into<String>, measure: Measure, total: u64) -> Self {
        let label = label.into();
        let quiet = is_quiet();
        let drawn = !quiet && std::io::stderr().is_terminal();
        let bar = if total == 0 { ProgressBar::no_length() } else { ProgressBar::new(total) };
        if drawn {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.set_style(style(measure, total));
            bar.set_message(label.clone());
            bar.enable_steady_tick(Duration::from_millis(200));
            *BAR.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(bar.clone());
        } else {
            bar.set_draw_target(ProgressDrawTarget::hidden());
            if !quiet {
                line(&label);
            }
        }
        let now = Instant::now();
        Self { label, measure, bar, drawn, begun: now, last_line: Mutex::new(now) }
    }

    /// So much more is done.
    pub fn advance(&self, by: u64) {
        self.bar.inc(by);
        if self.drawn || is_quiet() {
            return;
        }
        let Ok(mut last) = self.last_line.try_lock() else { return };
        if last.elapsed() >= LINE_EVERY {
            *last = Instant::now();
            line(&format!("{}: {}", self.label, self.so_far()));
        }
    }

    fn so_far(&self) -> String {
        let position = self.bar.position();
        let total = self.bar.length();
        match (self.measure, total) {
            (Measure::Bytes, Some(total)) => {
                format!("{} of {} MiB", position >> 20, total >> 20)
            }
            (Measure::Bytes, None) => format!("{} MiB", position >> 20),
            (Measure::Items, Some(total)) => format!("{position} of {total}"),
            (Measure::Items, None) => format!("{position}"),
            (Measure::None, _) => format!("{} s", self.begun.elapsed().as_secs()),
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.drawn {
            *BAR.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
        }
        self.bar.finish_and_clear();
    }
}

fn style(measure: Measure, total: u64) -> ProgressStyle {
    let template = match (measure, total) {
        (Measure::Bytes, 1..) => "{spinner} {msg} [{bar:24}] {bytes}/{total_bytes} {bytes_per_sec}",
        (Measure::Bytes, 0) => "{spinner} {msg} {bytes} {bytes_per_sec}",
        (Measure::Items, 1..) => "{spinner} {msg} [{bar:24}] {pos}/{len}",
        _ => "{spinner} {msg} {elapsed}",
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
