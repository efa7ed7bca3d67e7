//! The walkthrough: the blog's life from its first deploy to its removal, each step checked.

mod failures;
mod first;
mod host;
mod last;
mod load;
mod report;
mod rival;
mod shards;
mod site;
mod updates;

use std::sync::Arc;
use std::time::Duration;

use deploykit::model::{AppName, ServiceName};
use deploykit::{Applied, Change, Deployer, Instance, Observation, Plan, ServiceRegistry};
use futures_util::StreamExt;

use crate::app::{APP, Release};
use crate::services::Post;
use crate::{Result, registry};
use host::Host;
use load::{Load, Mix, Tally};
use report::{Failure, Report, expect};
use site::Site;

/// Another deployer's lock is free 30 s after its death.
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// The blog, and what is known of it so far.
struct Walkthrough {
    url: String,
    app: AppName,
    deployer: Deployer,
    host: Host,
    /// Where the services find each other, where that is not the backend's matter.
    registry: Option<Arc<dyn ServiceRegistry>>,
    /// What is deployed, or was last.
    release: Release,
    site: Site,
    /// Posts that have been written, and must be told as they were written.
    posts: Vec<Post>,
}

/// Walks through the blog's life on the backend at `url`. Returns whether every step has passed.
pub async fn run(url: String, keep: bool) -> Result<bool> {
    let mut blog = Walkthrough::new(url).await?;
    let mut report = Report::default();
    report.step("deploy", blog.deploy().await);
    if report.is_good() {
        report.step("use", blog.sign_up_and_write().await);
        report.step("scale", blog.scale().await);
        report.step("update under load", blog.update().await);
        report.step("failing update", blog.failing_update().await);
        report.step("kill -9 under load", blog.kill_an_instance().await);
        report.step("rotate a secret", blog.rotate_the_secret().await);
        report.step("roll back", blog.roll_back().await);
        report.step("two deployers", blog.second_deployer().await);
        report.step("killed deployer", blog.killed_deployer().await);
        report.step("nothing changed", blog.same_again().await);
        if blog.registry.is_some() {
            report.step("kill a store under load", blog.move_shards().await);
        }
    }
    if keep {
        blog.say_how_to_look();
    } else {
        report.step("remove", blog.remove().await);
    }
    Ok(report.close())
}

/// Removes the blog with all its data, whatever state it is in.
pub async fn clean_up(url: &str) -> Result<()> {
    let deployer = deploykit::open(url).await?.with_lock_wait(LOCK_WAIT);
    let plan = deployer.plan(Change::Remove { app: AppName::new(APP)?, volumes: true }).await?;
    deployer.apply(plan, &mut deploykit::progress::terminal()).await?;
    Ok(())
}

impl Walkthrough {
    async fn new(url: String) -> Result<Self> {
        let deployer = deploykit::open(&url).await?.with_lock_wait(LOCK_WAIT);
        if !deployer.apps().await?.is_empty() {
            return Err(format!(
                "something is deployed on {url} already, and the walkthrough wants a place of its \
                 own: remove it with `deployctl --on {url} down APP --volumes`, or choose another \
                 place by --on URL"
            )
            .into());
        }
        Ok(Self {
            app: AppName::new(APP)?,
            host: Host::of(&**deployer.backend(), &url).await?,
            deployer,
            url,
            registry: registry::open().await?,
            release: Release::first(),
            site: Site { address: String::new(), token: None },
            posts: Vec::new(),
        })
    }

    /// What a release would change.
    async fn plan(&self, release: &Release) -> Result<Plan, Failure> {
        let prepared = self.deployer.prepare(release.app()?).await?;
        Ok(self.deployer.plan(Change::Deploy(Box::new(prepared))).await?)
    }

    /// Applies a plan, with its progress on standard error.
    async fn apply(&self, plan: Plan) -> deploykit::Result<Applied> {
        self.deployer.apply(plan, &mut deploykit::progress::terminal()).await
    }

    async fn observe(&self) -> Result<Observation, Failure> {
        Ok(self.deployer.status(&self.app).await?.observation)
    }

    /// The instances of a service.
    async fn instances(&self, service: &str) -> Result<Vec<Instance>, Failure> {
        let service = ServiceName::new(service)?;
        let mut instances = self.observe().await?.instances;
        instances.retain(|instance| instance.service == service);
        Ok(instances)
    }

    /// Checks that posts runs as the release says, and that whoever answers says so too.
    async fn check_posts(&self, instances: usize, version: u32) -> Result<(), Failure> {
        let posts = self.instances("posts").await?;
        let ready = posts.iter().filter(|instance| instance.ready).count();
        expect(
            (posts.len(), ready) == (instances, instances),
            format_args!("{instances} instances of posts, all ready"),
            format_args!("{} instances, {ready} ready", posts.len()),
        )?;
        let answered = self.load(Mix::Reads).finish().await?;
        answered.faultless()?;
        expect(
            answered.versions.keys().eq([&version]),
            format_args!("answers of version {version} alone"),
            format_args!("answers by version: {:?}", answered.versions),
        )
    }

    fn load(&self, mix: Mix) -> Load {
        Load::start(&self.site, &self.posts, mix)
    }

    /// Takes note of what a load has written, and reads every post that was ever acknowledged:
    /// each is there once, word by word.
    async fn check_data(&mut self, tally: &Tally) -> Result<(), Failure> {
        self.posts.extend(tally.written.iter().cloned());
        let total = self.site.list().await?.total;
        let known = self.posts.len();
        expect(total as usize == known, format_args!("{known} posts"), total)?;
        let reads = self.posts.iter().map(|post| self.site.check(post));
        let mut reads = futures_util::stream::iter(reads).buffer_unordered(8);
        while let Some(read) = reads.next().await {
            read?;
        }
        Ok(())
    }

    fn say_how_to_look(&self) {
        let url = &self.url;
        eprintln!(
            "\nThe blog is left running at http://{}/\n\
             look at it:  cargo run --example deployctl -- --on {url} status {APP}\n\
             its output:  cargo run --example deployctl -- --on {url} logs {APP} -f\n\
             remove it:   cargo run --example deployctl -- --on {url} down {APP} --volumes\n",
            self.site.address
        );
    }
}
