//! Figures and the lines that tell them.

use std::fmt;

/// What a figure is wanted to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(value) => write!(f, "<= {value}"),
            Self::AtLeast(value) => write!(f, ">= {value}"),
        }
    }
}

/// Prints the one line of a figure.
pub fn ratio(name: &str, value: f64, goal: Goal) {
    println!("{}", line(name, value, goal));
}

fn line(name: &str, value: f64, goal: Goal) -> String {
    format!("RATIO {name} {value:.3} {goal}")
}

/// Prints a figure of several rounds, of our seconds and those of the baseline `over` each: the
/// median of the ratios, and what it is made of.
pub fn compare(name: &str, rounds: &[(f64, f64)], over: &str, goal: Goal) {
    let (ours, theirs) = (median(rounds.iter().map(|r| r.0)), median(rounds.iter().map(|r| r.1)));
    println!("# {name}: {:.0} ms, {over} {:.0} ms", ours * 1e3, theirs * 1e3);
    ratio(name, median(rounds.iter().map(|r| r.0 / r.1)), goal);
}

/// The middle value; of an even number the mean of both in the middle. Not a number where there
/// are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => f64::NAN,
        (n, middle) if n % 2 == 1 => values[middle],
        (_, middle) => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_bare_number_and_its_goal() {
        assert_eq!(line("x", 1.23456, Goal::AtMost(1.5)), "RATIO x 1.235 <= 1.5");
        assert_eq!(line("y", 2.0, Goal::AtLeast(0.95)), "RATIO y 2.000 >= 0.95");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }
}
