//! Whether a rollout is through, from what a controller says of it: the conditions of
//! [kubectl rollout status](https://kubernetes.io/docs/reference/kubectl/generated/kubectl_rollout/kubectl_rollout_status/).

/// How far a rollout is, in kubectl's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Whether it is through.
    pub done: bool,
    /// What it waits for, or that it is through.
    pub message: String,
}

fn waiting(message: String) -> Progress {
    Progress { done: false, message }
}

fn done(message: String) -> Progress {
    Progress { done: true, message }
}

/// What a Deployment says of itself. Absent numbers are 0.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the fields are those of the API")]
pub struct Deployment {
    pub name: String,
    pub generation: i64,
    pub observed_generation: i64,
    /// How many are wanted; 1 where the spec says nothing.
    pub wanted: i32,
    pub replicas: i32,
    pub updated: i32,
    pub available: i32,
    /// Whether its condition `Progressing` has the reason `ProgressDeadlineExceeded`.
    pub deadline_exceeded: bool,
}

impl Deployment {
    /// How far it is.
    ///
    /// # Errors
    /// Where it has made no progress for longer than it may.
    pub fn progress(&self) -> Result<Progress, String> {
        let Self { name, wanted, replicas, updated, available, .. } = self;
        if self.generation > self.observed_generation {
            return Ok(waiting("Waiting for deployment spec update to be observed...\n".into()));
        }
        if self.deadline_exceeded {
            return Err(format!("deployment {name:?} exceeded its progress deadline"));
        }
        let begin = format!("Waiting for deployment {name:?} rollout to finish:");
        Ok(if updated < wanted {
            waiting(format!(
                "{begin} {updated} out of {wanted} new replicas have been updated...\n"
            ))
        } else if replicas > updated {
            let old = replicas - updated;
            waiting(format!("{begin} {old} old replicas are pending termination...\n"))
        } else if available < updated {
            waiting(format!("{begin} {available} of {updated} updated replicas are available...\n"))
        } else {
            done(format!("deployment {name:?} successfully rolled out\n"))
        })
    }
}

/// What a DaemonSet says of itself. Absent numbers are 0.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the fields are those of the API")]
pub struct DaemonSet {
    pub name: String,
    pub generation: i64,
    pub observed_generation: i64,
    pub desired: i32,
    pub updated: i32,
    pub available: i32,
    /// Whether its pods are replaced by its controller (and not only when somebody deletes them).
    pub rolling: bool,
}

impl DaemonSet {
    /// How far it is.
    ///
    /// # Errors
    /// Where its pods are not replaced by its controller.
    pub fn progress(&self) -> Result<Progress, String> {
        let Self { name, desired, updated, available, .. } = self;
        if !self.rolling {
            return Err("rollout status is only available for RollingUpdate strategy type".into());
        }
        if self.generation > self.observed_generation {
            return Ok(waiting("Waiting for daemon set spec update to be observed...\n".into()));
        }
        let begin = format!("Waiting for daemon set {name:?} rollout to finish:");
        Ok(if updated < desired {
            waiting(format!("{begin} {updated} out of {desired} new pods have been updated...\n"))
        } else if available < desired {
            waiting(format!("{begin} {available} of {desired} updated pods are available...\n"))
        } else {
            done(format!("daemon set {name:?} successfully rolled out\n"))
        })
    }
}

/// What a StatefulSet says of itself. Absent numbers are 0.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the fields are those of the API")]
pub struct StatefulSet {
    pub generation: i64,
    pub observed_generation: i64,
    /// How many are wanted; nothing where the spec does not say.
    pub wanted: Option<i32>,
    pub ready: i32,
    pub current: i32,
    pub updated: i32,
    pub current_revision: String,
    pub update_revision: String,
    /// Whether its pods are replaced by its controller (and not only when somebody deletes them).
    pub rolling: bool,
    /// The partition of its rolling update, where it has settings of one.
    pub partition: Option<Option<i32>>,
}

impl StatefulSet {
    /// How far it is.
    ///
    /// # Errors
    /// Where its pods are not replaced by its controller.
    pub fn progress(&self) -> Result<Progress, String> {
        if !self.rolling {
            return Err("rollout status is only available for RollingUpdate strategy type".into());
        }
        if self.observed_generation == 0 || self.generation > self.observed_generation {
            return Ok(waiting("Waiting for statefulset spec update to be observed...\n".into()));
        }
        if let Some(missing) = self.wanted.map(|wanted| wanted - self.ready)
            && missing > 0
        {
            return Ok(waiting(format!("Waiting for {missing} pods to be ready...\n")));
        }
        if let Some(partition) = self.partition {
            let updated = self.updated;
            let above = self.wanted.zip(partition).map(|(wanted, partition)| wanted - partition);
            return Ok(match above {
                Some(above) if updated < above => waiting(format!(
                    "Waiting for partitioned roll out to finish: {updated} out of {above} new pods have been updated...\n"
                )),
                _ => done(format!(
                    "partitioned roll out complete: {updated} new pods have been updated...\n"
                )),
            });
        }
        Ok(if self.update_revision == self.current_revision {
            done(format!(
                "statefulset rolling update complete {} pods at revision {}...\n",
                self.current, self.current_revision
            ))
        } else {
            waiting(format!(
                "waiting for statefulset rolling update to complete {} pods at revision {}...\n",
                self.updated, self.update_revision
            ))
        })
    }
}
