//! Steps 1 to 3: the blog is deployed, used, scaled.

use std::collections::BTreeSet;
use std::time::Instant;

use deploykit::model::{SecretName, ServiceName};
use deploykit::{Change, SecretValue};
use hyper::StatusCode;

use super::Walkthrough;
use super::report::{Failure, Outcome, expect, until};
use super::site::{instance, read, status};
use crate::app::{SESSION_KEY, wanted};
use crate::services::{Comment, Credentials};

/// Who uses the blog in this walkthrough.
pub fn ada() -> Credentials {
    Credentials { name: "ada".into(), password: "countess of lovelace".into() }
}

/// A key that nobody knows.
pub fn random_key() -> Result<SecretValue, Failure> {
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| Failure::new("random numbers", "none"))?;
    Ok(SecretValue::new(key))
}

impl Walkthrough {
    /// Step 1: everything is deployed and ready.
    pub async fn deploy(&mut self) -> Outcome {
        let name = SecretName::new(SESSION_KEY)?;
        self.deployer.secrets(&self.app).ensure(&name, random_key()?).await?;
        let begun = Instant::now();
        let plan = self.plan(&self.release).await?;
        eprintln!("{plan}");
        self.apply(plan).await?;
        let seconds = begun.elapsed().as_secs_f64();

        let app = self.release.app()?;
        let observation = self.observe().await?;
        let ready = observation.instances.iter().filter(|instance| instance.ready).count();
        let all: u32 = wanted(&app).map(|(_, replicas)| replicas).sum();
        expect(ready == all as usize, format_args!("{all} ready instances"), ready)?;
        let migrations = observation.instances.iter().filter(|i| app.jobs.contains_key(&i.service));
        expect(
            migrations.filter_map(|run| run.exit()).all(|exit| exit.is_success()),
            "the migration to have succeeded",
            "a failed one",
        )?;
        let gateway = observation.endpoints.get(&ServiceName::new("gateway")?);
        let public = gateway.and_then(|endpoint| endpoint.ports.first()?.public.as_ref());
        let public = public.ok_or_else(|| Failure::new("a public address", "none"))?;
        self.site.address = public.to_string();
        let page = self.site.get("/").await?;
        status(&page, StatusCode::OK)?;
        let title = "<h1>A blog on DeployKit</h1>";
        let page = String::from_utf8_lossy(page.body());
        expect(page.contains(title), format_args!("a page with {title}"), &page)?;
        Ok(format!(
            "{} services with {ready} instances ready and a job completed in {seconds:.1} s, \
             at http://{public}/",
            app.services.len()
        ))
    }

    /// Step 2: somebody signs up, logs in, writes a post and comments, and reads them back.
    pub async fn sign_up_and_write(&mut self) -> Outcome {
        self.site.sign_up(&ada()).await?;
        self.site.may_not_write().await?;
        self.site.log_in(&ada()).await?;
        let mut comments = Vec::new();
        for (title, body) in [
            ("On engines", "The engine weaves algebraical patterns"),
            ("On notes", "Just as the loom weaves flowers and leaves"),
        ] {
            let post = self.site.write(title, body).await?;
            for remark in ["Well said.", "Is it?", "It is."] {
                comments.push((post.id, self.site.comment(post.id, remark).await?));
            }
            self.posts.push(post);
        }
        for post in &self.posts {
            let path = format!("/api/posts/{}", post.id);
            self.site.check(post).await?;
            let written: Vec<&Comment> =
                comments.iter().filter(|(id, _)| *id == post.id).map(|(_, c)| c).collect();
            let answer = self.site.get(&format!("{path}/comments")).await?;
            let told: Vec<Comment> = read(&answer, StatusCode::OK)?;
            expect(
                told.iter().eq(written.iter().copied()),
                format_args!("{written:?}"),
                format_args!("{told:?}"),
            )?;
        }
        Ok(format!("{} posts and {} comments read back", self.posts.len(), comments.len()))
    }

    /// Step 3: posts is scaled from 2 to 4 instances, and all four answer.
    pub async fn scale(&mut self) -> Outcome {
        let (app, service) = (self.app.clone(), ServiceName::new("posts")?);
        let begun = Instant::now();
        let change = Change::Scale { app, service, replicas: 4 };
        let plan = self.deployer.plan(change).await?;
        self.apply(plan).await?;
        let seconds = begun.elapsed().as_secs_f64();
        self.release.replicas = 4;

        let known: BTreeSet<String> =
            self.instances("posts").await?.into_iter().map(|instance| instance.id).collect();
        let mut answered = BTreeSet::new();
        let mut requests = 0;
        until("answers of four instances", async || {
            let answer = self.site.get("/api/posts").await?;
            status(&answer, StatusCode::OK)?;
            requests += 1;
            answered.insert(instance(&answer));
            Ok(if answered.len() == 4 { Ok(()) } else { Err(format!("{answered:?}")) })
        })
        .await?;
        expect(answered == known, format_args!("{known:?}"), format_args!("{answered:?}"))?;
        Ok(format!("from 2 to 4 in {seconds:.1} s, 4 instances answered {requests} requests"))
    }
}
