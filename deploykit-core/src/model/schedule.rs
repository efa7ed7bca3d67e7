//! Times at which jobs run.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a job runs: the five fields of
/// [cron](https://pubs.opengroup.org/onlinepubs/9799919799/utilities/crontab.html) (minute, hour,
/// day of the month, month, day of the week from Sunday as 0), each `*`, a number, a range `1-5` or
/// a list `1,15`, and as most crons have it a step, `*/10`. Times are UTC.
///
/// ```
/// use deploykit_core::model::Schedule;
/// let nightly: Schedule = "30 3 * * *".parse()?;
/// assert!("30 25 * * *".parse::<Schedule>().is_err());
/// # Ok::<(), deploykit_core::model::ScheduleError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Schedule(String);

/// Why a text is not a schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a schedule: {why}; write minute, hour, day of the month, month and day of the week, like `30 3 * * *`"
)]
pub struct ScheduleError {
    text: String,
    why: String,
}

const FIELDS: [(&str, u8, u8); 5] = [
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 6),
];

impl Schedule {
    /// The five fields, with one space between them.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let fail = |why: String| ScheduleError { text: text.to_owned(), why };
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        if fields.len() != FIELDS.len() {
            return Err(fail(format!("it has {} fields, not 5", fields.len())));
        }
        for (field, (name, least, most)) in fields.iter().zip(FIELDS) {
            if !field.split(',').all(|part| is_part(part, least, most)) {
                let why = format!("`{field}` is no {name} ({least} to {most})");
                return Err(fail(why));
            }
        }
        Ok(Self(fields.join(" ")))
    }
}

/// Whether a text is `*`, `a` or `a-b`, the first and last of them with `/step`.
fn is_part(part: &str, least: u8, most: u8) -> bool {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u8>().ok().filter(|n| digits && (least..=most).contains(n))
    };
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (part, None),
    };
    let steps = |step: &str| step.parse::<u8>().is_ok_and(|n| n >= 1 && n <= most);
    if !step.is_none_or(steps) {
        return false;
    }
    match range.split_once('-') {
        Some((from, to)) => number(from).zip(number(to)).is_some_and(|(from, to)| from <= to),
        None => range == "*" || (step.is_none() && number(range).is_some()),
    }
}

impl TryFrom<String> for Schedule {
    type Error = ScheduleError;
    fn try_from(text: String) -> Result<Self, ScheduleError> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> Self {
        schedule.0
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_fields_within_their_ranges() {
        for good in ["* * * * *", "*/5 0-6 1,15 1-12/3 0", "0  3 * *\t6", "59 23 31 12 6"] {
            assert!(good.parse::<Schedule>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 7",
            "*/0 * * * *",
            "5-1 * * * *",
            "1, * * * *",
            "+1 * * * *",
            "5/2 * * * *",
            "@daily",
            "a * * * *",
            "1-2-3 * * * *",
            "*/99 * * * *",
        ] {
            assert!(bad.parse::<Schedule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_error_names_the_field() {
        let error = "30 25 * * *".parse::<Schedule>().map_err(|e| e.to_string());
        let expected = "`30 25 * * *` is not a schedule: `25` is no hour (0 to 23); write minute, \
                        hour, day of the month, month and day of the week, like `30 3 * * *`";
        assert_eq!(error, Err(expected.to_owned()));
    }
}
