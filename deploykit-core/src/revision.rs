//! Revisions: what an app was, and how it went.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::diagnosis::Diagnosis;
use crate::resolved::ResolvedApp;

/// One state of an app that was applied, or tried. Volumes' contents are no part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Revision {
    /// 1, 2, 3…: never given out twice.
    pub number: u64,
    /// What the app is in this revision.
    pub app: ResolvedApp,
    /// Why it came about, like `deploy` or `rollback to 3`.
    pub cause: String,
    /// Who applied it.
    pub by: String,
    /// How it went.
    pub outcome: Outcome,
    /// When its apply began.
    pub started_at: SystemTime,
    /// When its apply ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<SystemTime>,
}

/// How a revision's apply went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// It runs, or its deployer died.
    Applying,
    /// Its deployer died; a later apply took over.
    Interrupted,
    /// Everything was ready.
    Succeeded,
    /// It failed.
    Failed {
        /// What happened.
        message: String,
        /// Why, captured before anything was rolled back.
        diagnoses: Vec<Diagnosis>,
    },
}

impl Outcome {
    /// One word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Applying => "applying",
            Self::Interrupted => "interrupted",
            Self::Succeeded => "succeeded",
            Self::Failed { .. } => "failed",
        }
    }
}
