//! What must hold across fields.

use super::App;
use crate::error::{Error, Problem, Result};

impl App {
    /// Checks what must hold across fields.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with every problem.
    pub fn validate(&self) -> Result<()> {
        let problems = self.problems();
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid("validate the app", problems)) }
    }

    /// Every problem across fields.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }
}
