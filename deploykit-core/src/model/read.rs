//! Reading an app from a file.

use super::App;
use crate::error::{Error, Problem, Result};

impl App {
    /// Reads an app from YAML, or JSON, which is YAML too, and validates it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with every problem.
    pub fn from_yaml(text: &str) -> Result<Self> {
        let app: Self = serde_saphyr::from_str(text).map_err(|e| {
            Error::invalid("read the app", vec![Problem::new("", e.to_string(), "")])
        })?;
        app.validate()?;
        Ok(app)
    }
}
