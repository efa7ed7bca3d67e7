//! What the walkthrough prints on standard output: a line for each step, and one for all.

use std::fmt;
use std::time::{Duration, Instant};

/// How long something may take that happens by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a step ends with: its figure, or what went wrong.
pub type Outcome = Result<String, Failure>;

/// What was expected of a step and what was found.
#[derive(Debug)]
pub struct Failure {
    expected: String,
    found: String,
}

impl Failure {
    pub fn new(expected: impl ToString, found: impl ToString) -> Self {
        Self { expected: expected.to_string(), found: found.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}; found: {}", self.expected, self.found)
    }
}

/// Any error where none was expected.
impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new("no error", error.into())
    }
}

/// Fails a step where `holds` is false.
pub fn expect(
    holds: bool,
    expected: impl fmt::Display,
    found: impl fmt::Display,
) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::new(expected, found)) }
}

/// Asks again and again until there is an answer; fails with the last reason why there is none.
pub async fn until<T>(
    expected: &str,
    mut ask: impl AsyncFnMut() -> Result<Result<T, String>, Failure>,
) -> Result<T, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await? {
            Ok(answer) => return Ok(answer),
            Err(found) if Instant::now() > deadline => {
                let expected = format!("{expected} within {} s", PATIENCE.as_secs());
                return Err(Failure::new(expected, found));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Counts and prints.
#[derive(Debug, Default)]
pub struct Report {
    passed: u32,
    failed: u32,
}

impl Report {
    /// Prints the line of the next step.
    pub fn step(&mut self, name: &str, outcome: Outcome) {
        let number = self.passed + self.failed + 1;
        match outcome {
            Ok(figure) => {
                self.passed += 1;
                println!("ok {number} {name}: {figure}");
            }
            Err(failure) => {
                self.failed += 1;
                println!("not ok {number} {name}: {failure}");
            }
        }
    }

    /// Whether every step so far has passed.
    pub fn is_good(&self) -> bool {
        self.failed == 0
    }

    /// Prints the last line, and says whether all was well.
    pub fn close(self) -> bool {
        println!("{} passed, {} failed", self.passed, self.failed);
        self.is_good()
    }
}
