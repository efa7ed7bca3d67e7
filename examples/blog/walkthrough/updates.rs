//! Steps 4, 5, 7 and 8: the blog is updated, wrongly updated, given another key, rolled back.

use std::collections::BTreeSet;

use deploykit::model::SecretName;
use deploykit::{Change, ErrorKind, Goal, Outcome as Ended, Reason};

use super::Walkthrough;
use super::first::{ada, random_key};
use super::load::Mix;
use super::report::{Failure, Outcome, expect};
use crate::app::{Release, SESSION_KEY};

impl Walkthrough {
    /// Step 4: posts is updated to version 2 while people read and write.
    pub async fn update(&mut self) -> Outcome {
        let release = Release { version: 2, ..self.release.clone() };
        let load = self.load(Mix::ReadsAndWrites);
        let applied = match self.plan(&release).await {
            Ok(plan) => self.apply(plan).await.map_err(Failure::from),
            Err(failure) => Err(failure),
        };
        let tally = load.finish().await?;
        applied?;
        self.release = release;
        let figure = tally.faultless()?;
        self.check_data(&tally).await?;
        self.check_posts(4, 2).await?;
        Ok(format!("{figure}, {} posts written meanwhile are all there", tally.written.len()))
    }

    /// Step 5: version 3 is never ready; it is refused with the reason, and version 2 goes on.
    pub async fn failing_update(&mut self) -> Outcome {
        let why = "version 3 cannot read its posts";
        let release = Release { version: 3, unhealthy: Some(why.into()), ..self.release.clone() };
        let load = self.load(Mix::Reads);
        let applied = match self.plan(&release).await {
            Ok(plan) => Ok(self.apply(plan).await),
            Err(failure) => Err(failure),
        };
        let tally = load.finish().await?;
        let error = match applied? {
            Err(error) => error,
            Ok(applied) => return Err(Failure::new("an error", format!("{applied:?}"))),
        };
        expect(error.kind() == ErrorKind::Failed, "an update that failed", &error)?;
        let probe = error.diagnoses().iter().find_map(|diagnosis| match &diagnosis.reason {
            Reason::ProbeFailing { answer, .. } if diagnosis.service == "posts" => Some(answer),
            _ => None,
        });
        let answer = probe.ok_or_else(|| Failure::new("a probe of posts that fails", &error))?;
        expect(answer.contains("503"), "a probe answered with status 503", answer)?;
        let history = self.deployer.history(&self.app).await?;
        let kept = history.iter().any(|revision| {
            matches!(&revision.outcome, Ended::Failed { diagnoses, .. } if !diagnoses.is_empty())
        });
        expect(kept, "the failed revision to be kept with its reason", "no such revision")?;
        let figure = tally.faultless()?;
        let by_3 = tally.versions.contains_key(&3);
        expect(!by_3, "no answer of version 3", format_args!("{:?}", tally.versions))?;
        self.check_posts(4, 2).await?;
        Ok(format!("refused (readiness probe: {answer}) and rolled back, {figure}"))
    }

    /// Step 7: the key is rotated; who uses it is rolled, nobody else, and the new key is in use.
    pub async fn rotate_the_secret(&mut self) -> Outcome {
        let name = SecretName::new(SESSION_KEY)?;
        let rotated = self.deployer.secrets(&self.app).put(&name, random_key()?).await?;
        let before = self.observe().await?;
        let plan = self.plan(&self.release).await?;
        let rolled: BTreeSet<String> = plan
            .steps()
            .iter()
            .filter_map(|step| match &step.goal {
                Goal::Service(service) => Some(service.to_string()),
                _ => None,
            })
            .collect();
        let users = ["comments", "posts", "users"];
        expect(
            rolled.iter().eq(users),
            format_args!("a plan that rolls {}", users.join(", ")),
            format_args!("{plan}"),
        )?;
        let load = self.load(Mix::Reads);
        let applied = self.apply(plan).await;
        let tally = load.finish().await?;
        applied?;
        let figure = tally.faultless()?;
        let after = self.observe().await?;
        for old in &before.instances {
            let stays = after.instance(&old.id).is_some();
            let shall_stay = !users.contains(&old.service.as_str());
            expect(
                stays == shall_stay,
                format_args!(
                    "{} {}",
                    old.id,
                    if shall_stay { "to stay" } else { "to be replaced" }
                ),
                format_args!("{:?}", after.instance(&old.id)),
            )?;
        }
        // Still with the token of the old key.
        self.site.may_not_write().await?;
        self.site.log_in(&ada()).await?;
        let post = self.site.write("On keys", "Signed with a new one").await?;
        self.posts.push(post);
        Ok(format!("version {rotated} rolled {}, new tokens valid, {figure}", users.join(", ")))
    }

    /// Step 8: the whole app goes back to revision 1: version, number of instances, key.
    pub async fn roll_back(&mut self) -> Outcome {
        let change = Change::Rollback { app: self.app.clone(), to: Some(1) };
        let plan = self.deployer.plan(change).await?;
        let load = self.load(Mix::Reads);
        let applied = self.apply(plan).await;
        let tally = load.finish().await?;
        let applied = applied?;
        self.release = Release::first();
        let figure = tally.faultless()?;
        let status = self.deployer.status(&self.app).await?;
        let history = self.deployer.history(&self.app).await?;
        let (first, now) = (history.first(), status.revision);
        expect(
            first.map(|r| &r.app) == now.as_ref().map(|r| &r.app),
            format_args!("the content of revision 1: {:?}", first.map(|r| &r.app.secrets)),
            format_args!("{:?}", now.as_ref().map(|r| &r.app.secrets)),
        )?;
        self.check_posts(2, 1).await?;
        self.check_data(&tally).await?;
        self.site.log_in(&ada()).await?;
        let revision = applied.revision.unwrap_or_default();
        Ok(format!(
            "revision {revision} is revision 1 again, {} posts are still there, {figure}",
            self.posts.len()
        ))
    }
}
