//! Progress for people: bars on a terminal, lines elsewhere.

#[cfg(feature = "oci")]
mod transfers;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use deploykit_core::model::ServiceName;
use deploykit_core::{Event, InstanceChange, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
#[cfg(feature = "oci")]
pub use transfers::{describe_transfer, transfers};

/// Bars on standard error where that is a terminal, lines there where it is not.
pub fn terminal() -> Box<dyn Progress> {
    let stderr = std::io::stderr();
    if stderr.is_terminal() { Box::new(Bars::default()) } else { Box::new(lines(stderr)) }
}

/// A line for each event that matters to a person. What cannot be written is lost.
pub fn lines(writer: impl Write + Send) -> impl Progress {
    let mut writer = writer;
    move |event: &Event| {
        if let Some(line) = describe(event) {
            let _ = writeln!(writer, "{line}");
        }
    }
}

/// An event in words; nothing for those that only matter to programs.
pub fn describe(event: &Event) -> Option<String> {
    Some(match event {
        Event::Image { image, message } => format!("{image}: {message}"),
        Event::RevisionStarted { revision, steps } => {
            format!("revision {revision}: {steps} steps")
        }
        Event::Instance { service, instance, change } => {
            let change = match change {
                InstanceChange::Started => "started",
                InstanceChange::Ready => "ready",
                InstanceChange::Draining => "draining",
                InstanceChange::Removed => "removed",
                _ => return None,
            };
            format!("{service}: {instance} {change}")
        }
        Event::Progress { service, ready, wanted } => format!("{service}: {ready}/{wanted} ready"),
        Event::StepFinished { goal, .. } => format!("done: {goal}"),
        Event::StepFailed { message, diagnoses, .. } => {
            let reasons: Vec<String> = diagnoses.iter().map(ToString::to_string).collect();
            format!("failed: {message}: {}", reasons.join("; "))
        }
        Event::RollingBack { from, to } => {
            format!("revision {from} failed: rolling back to revision {to}")
        }
        Event::RevisionFinished { revision, outcome } => format!("revision {revision}: {outcome}"),
        _ => return None,
    })
}

/// How often a line moves of which nothing new is known.
const TICK: Duration = Duration::from_millis(120);

#[derive(Default)]
struct Bars {
    all: MultiProgress,
    images: BTreeMap<String, ProgressBar>,
    services: BTreeMap<ServiceName, ProgressBar>,
}

impl Drop for Bars {
    fn drop(&mut self) {
        for line in self.images.values() {
            line.finish_and_clear();
        }
    }
}

impl Progress for Bars {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Image { image, message } => {
                let line = self.images.entry(image.clone()).or_insert_with(|| {
                    let line = self.all.add(ProgressBar::new_spinner());
                    line.set_prefix(image.clone());
                    // As below.
                    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {msg}") {
                        line.set_style(style);
                    }
                    line.enable_steady_tick(TICK);
                    line
                });
                line.set_message(message.clone());
            }
            Event::Progress { service, ready, wanted } => {
                let bar = self.services.entry(service.clone()).or_insert_with(|| {
                    let bar = self.all.add(ProgressBar::new(u64::from(*wanted)));
                    // A template of constants parses; were it not so, the default style serves.
                    if let Ok(style) = ProgressStyle::with_template(
                        "{prefix:20} [{bar:30}] {pos}/{len} ready {msg}",
                    ) {
                        bar.set_style(style.progress_chars("=> "));
                    }
                    bar.set_prefix(service.to_string());
                    bar
                });
                bar.set_length(u64::from(*wanted));
                bar.set_position(u64::from(*ready));
            }
            Event::Instance { service, instance, change } => {
                if let Some(bar) = self.services.get(service) {
                    bar.set_message(format!("{instance} {}", format!("{change:?}").to_lowercase()));
                }
            }
            Event::RevisionFinished { .. } => {
                for bar in std::mem::take(&mut self.services).into_values() {
                    bar.finish_with_message("");
                }
                self.say(event);
            }
            Event::RollingBack { .. }
            | Event::StepFailed { .. }
            | Event::RevisionStarted { .. } => {
                self.say(event);
            }
            _ => {}
        }
    }
}

impl Bars {
    fn say(&self, event: &Event) {
        if let Some(line) = describe(event) {
            // A terminal that cannot be written to shows nothing either way.
            let _ = self.all.println(line);
        }
    }
}
