//! Bringing one service to a revision.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, try_join_all};
use tokio::time::Instant;

use super::Work;
use super::diagnose::is_hopeless;
use super::strategy::{Counts, rolling};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, InstanceChange};
use crate::hash::SpecHash;
use crate::model::{CanaryStep, Publish, Replicas, Rolling, Strategy, Update, VolumeScope};
use crate::observation::{Instance, InstanceState, Observation};
use crate::resolved::{EndpointSpec, Template};
use crate::runtime::{InstanceSpec, Runtime};

/// Brings a service to its revision by its update policy.
pub(super) async fn run<R: Runtime>(
    work: &Work<'_, R>,
    replicas: Replicas,
    update: &Update,
) -> Result<()> {
    let (template, hash) = work.template()?;
    let wanted = match replicas {
        Replicas::Fixed(n) => n,
        // Hosts without a controller are one node, and have nothing that scales by load.
        Replicas::Global => 1,
        Replicas::Autoscale(autoscale) => autoscale.min,
    };
    let seen = work.view.refresh().await?;
    let is_first = wanted > 0 && seen.of(work.name).next().is_none();
    let can_wait = |endpoint: &EndpointSpec| {
        is_first
            && endpoint.service == *work.name
            && !seen.endpoints.contains_key(work.name)
            && !template.peers.contains_key(work.name)
            // Where a port may be taken, nothing is started before that is known.
            && endpoint.ports.iter().all(|port| port.publish == Publish::Internal)
    };
    let missing = work.missing_endpoints(&seen, &template);
    let (endpoint, first) = missing.into_iter().partition::<Vec<_>, _>(can_wait);
    work.make_endpoints(&first).await?;
    let mut rollout = Rollout {
        work,
        wanted,
        update,
        monitor: update.monitor,
        seen,
        hash,
        template,
        endpoint,
        ready_since: HashMap::new(),
        mine: BTreeSet::new(),
        announced: false,
        ready: None,
        deadline: Instant::now() + update.progress_deadline,
    };
    rollout.clear_ended().await?;
    match &update.strategy {
        Strategy::Rolling(policy) => rollout.stage(wanted, 0, *policy).await?,
        Strategy::Recreate => rollout.recreate().await?,
        Strategy::BlueGreen => rollout.blue_green().await?,
        Strategy::Canary(steps) => rollout.canary(steps).await?,
    }
    rollout.settle().await
}

struct Rollout<'a, R> {
    work: &'a Work<'a, R>,
    wanted: u32,
    update: &'a Update,
    /// How long an instance has to stay ready before it counts.
    monitor: Duration,
    seen: Arc<Observation>,
    hash: SpecHash,
    template: Template,
    /// The service's own endpoint, where that is made while its first instances start.
    endpoint: Vec<EndpointSpec>,
    /// Since when each instance has been seen ready without a break.
    ready_since: HashMap<String, (u32, Instant)>,
    /// The instances that this rollout has started.
    mine: BTreeSet<String>,
    announced: bool,
    /// How many were last told to be ready.
    ready: Option<u32>,
    deadline: Instant,
}

impl<R: Runtime> Rollout<'_, R> {
    fn instances(&self) -> impl Iterator<Item = &Instance> {
        let live = |i: &&Instance| i.exit().is_none() && i.state != InstanceState::Stopping;
        self.seen.of(self.work.name).filter(live)
    }

    fn is_new(&self, instance: &Instance) -> bool {
        instance.hash == self.hash
            || (!instance.hash.is_newest() && instance.hash.matches(&self.template))
    }

    fn new_ones(&self) -> Vec<&Instance> {
        self.instances().filter(|i| self.is_new(i)).collect()
    }

    fn old_ones(&self) -> Vec<&Instance> {
        self.instances().filter(|i| !self.is_new(i)).collect()
    }

    /// Whether a new instance has been ready for long enough.
    fn counts_as_ready(&self, instance: &Instance) -> bool {
        let since = self.ready_since.get(&instance.id);
        instance.ready
            && (!self.mine.contains(&instance.id)
                || since.is_some_and(|(_, since)| since.elapsed() >= self.monitor))
    }

    /// Takes in what is there now.
    async fn look(&mut self) -> Result<()> {
        let seen = self.work.view.refresh().await?;
        self.take(seen);
        Ok(())
    }

    fn take(&mut self, seen: Arc<Observation>) {
        self.seen = seen;
        let now = Instant::now();
        let ready: Vec<(String, u32)> =
            self.instances().filter(|i| i.ready).map(|i| (i.id.clone(), i.restarts)).collect();
        let known = std::mem::take(&mut self.ready_since);
        for (id, restarts) in ready {
            let since = known.get(&id).filter(|(r, _)| *r == restarts).map(|(_, since)| *since);
            if since.is_none() && self.mine.contains(&id) {
                self.work.report(&id, InstanceChange::Ready);
            }
            self.ready_since.insert(id, (restarts, since.unwrap_or(now)));
        }
        self.announce();
    }

    /// Reports progress, and moves the deadline when there is some.
    fn announce(&mut self) {
        let new = self.new_ones();
        let running = new.iter().filter(|i| i.state == InstanceState::Running).count() as u32;
        let ready = new.iter().filter(|i| self.counts_as_ready(i)).count() as u32;
        let service = self.work.name.clone();
        if !self.announced && running >= self.wanted {
            self.announced = true;
            self.work.context.events.send(Event::Started { service: service.clone() });
        }
        if self.ready != Some(ready) {
            if self.ready.is_none_or(|before| ready > before) {
                self.deadline = Instant::now() + self.update.progress_deadline;
            }
            self.ready = Some(ready);
            let progress = Event::Progress { service, ready, wanted: self.wanted };
            self.work.context.events.send(progress);
        }
    }

    /// Removes instances that have ended for good, or that a killed deployer left half stopped.
    async fn clear_ended(&mut self) -> Result<()> {
        let ended = |i: &&Instance| i.exit().is_some() || i.state == InstanceState::Stopping;
        let ended: Vec<&Instance> = self.seen.of(self.work.name).filter(ended).collect();
        if ended.is_empty() {
            self.take(Arc::clone(&self.seen));
            return Ok(());
        }
        self.work.retire(&ended, false).await?;
        self.look().await
    }

    /// Moves, by a rolling policy, to so many new instances and at most so many old ones.
    async fn stage(&mut self, new: u32, old: u32, policy: Rolling) -> Result<()> {
        loop {
            self.check().await?;
            let (news, olds) = (self.new_ones(), self.old_ones());
            let counts = Counts {
                new_wanted: new,
                old_wanted: old,
                new: news.len() as u32,
                new_ready: news.iter().filter(|i| self.counts_as_ready(i)).count() as u32,
                old: olds.len() as u32,
                old_ready: olds.iter().filter(|i| i.ready).count() as u32,
            };
            let moves = rolling(counts, policy);
            let ending = choose(olds, moves.end_old, false).into_iter().chain(choose(
                news,
                moves.end_new,
                self.has_own_volumes(),
            ));
            let ending: Vec<Instance> = ending.cloned().collect();
            if moves.start == 0 && ending.is_empty() {
                if counts.new == new && counts.new_ready == new && counts.old <= old {
                    return Ok(());
                }
                self.wait(None).await?;
                continue;
            }
            if !ending.is_empty() {
                self.end(&ending).await?;
            }
            self.start(moves.start, true).await?;
        }
    }

    /// Stops every old instance, then starts the new ones; meanwhile the old ones are removed.
    async fn recreate(&mut self) -> Result<()> {
        let old: Vec<Instance> = self.old_ones().into_iter().cloned().collect();
        let work = self.work;
        if !old.is_empty() {
            let drain = self.seen.endpoints.contains_key(work.name);
            self.withdraw(&old).await?;
            try_join_all(old.iter().map(|instance| work.stop(instance, drain))).await?;
            let mut seen = Observation::clone(&self.seen);
            seen.instances.retain(|instance| !old.contains(instance));
            self.take(Arc::new(seen));
        }
        let removed = try_join_all(old.iter().map(|instance| work.remove(instance)));
        let policy = Rolling { surge: 0, unavailable: self.wanted.max(1) };
        let (staged, removed) = join(self.stage(self.wanted, 0, policy), removed).await;
        staged.and(removed.map(drop))
    }

    /// Starts every new instance beside the old ones, then moves all requests at once.
    async fn blue_green(&mut self) -> Result<()> {
        if self.old_ones().is_empty() {
            return self.stage(self.wanted, 0, Rolling { surge: 1, unavailable: 0 }).await;
        }
        loop {
            let missing = self.wanted.saturating_sub(self.new_ones().len() as u32);
            self.start(missing, false).await?;
            self.check().await?;
            let ready = self.new_ones().into_iter().filter(|i| self.counts_as_ready(i)).count();
            if ready as u32 >= self.wanted {
                break;
            }
            self.wait(None).await?;
        }
        let old: Vec<Instance> = self.old_ones().into_iter().cloned().collect();
        self.end(&old).await?;
        self.stage(self.wanted, 0, Rolling { surge: 1, unavailable: 0 }).await
    }

    /// Moves to growing shares of new instances, and watches each share for a while.
    async fn canary(&mut self, steps: &[CanaryStep]) -> Result<()> {
        let policy = Rolling { surge: 1, unavailable: 0 };
        if !self.old_ones().is_empty() {
            for step in steps {
                let share = step.share.of(self.wanted).ok_or_else(|| {
                    let message =
                        format!("{} of {} instances is no whole number", step.share, self.wanted);
                    Error::new(ErrorKind::Invalid, "roll out", message)
                        .with("service", self.work.name)
                })?;
                self.stage(share, self.wanted - share, policy).await?;
                self.hold(step.hold).await?;
            }
        }
        self.stage(self.wanted, 0, policy).await
    }

    /// Watches that the new instances stay ready for `time`.
    async fn hold(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.wait(Some(until)).await?;
            let lost: Vec<&Instance> = self.new_ones().into_iter().filter(|i| !i.ready).collect();
            if !lost.is_empty() {
                let message = "a canary instance did not stay ready".to_owned();
                return Err(self.work.failure(message, &lost).await);
            }
        }
        Ok(())
    }

    /// Starts `count` new instances, and lets them take requests when they are ready if `route`.
    async fn start(&mut self, count: u32, route: bool) -> Result<()> {
        let specs = self.specs(count);
        let endpoint = std::mem::take(&mut self.endpoint);
        let fence = &self.work.context.fence;
        let started = try_join_all(specs.iter().map(|spec| async {
            self.work.runtime.start(fence, spec).await?;
            self.work.report(&spec.id, InstanceChange::Started);
            Ok::<_, Error>(())
        }));
        let (made, started) = join(self.work.make_endpoints(&endpoint), started).await;
        made.and(started)?;
        let started: Vec<String> = specs.into_iter().map(|spec| spec.id).collect();
        let routed = route && self.route(&started, &[]).await?;
        if !started.is_empty() || routed {
            self.mine.extend(started);
            self.look().await?;
        }
        Ok(())
    }

    fn has_own_volumes(&self) -> bool {
        self.template.volumes.values().any(|v| *v == VolumeScope::PerReplica)
    }

    fn specs(&self, count: u32) -> Vec<InstanceSpec> {
        // A volume of one replica passes to the instance that takes its place, so that place has
        // to be empty; otherwise an old and a new instance may share a number for a while.
        let exclusive = self.has_own_volumes();
        let holders = self.instances().filter(|i| exclusive || self.is_new(i));
        let taken: BTreeSet<u32> = holders.map(|i| i.slot).collect();
        (0..)
            .filter(|slot| !taken.contains(slot))
            .take(count as usize)
            .map(|slot| InstanceSpec {
                id: format!("{}-{}", self.work.name, random_suffix()),
                service: self.work.name.clone(),
                revision: self.work.context.revision,
                hash: self.hash.clone(),
                slot,
                job: false,
                depends_on: self.work.depends_on(),
                template: self.template.clone(),
            })
            .collect()
    }

    /// Takes instances out of the route, lets their requests end, and removes them.
    async fn end(&mut self, instances: &[Instance]) -> Result<()> {
        self.withdraw(instances).await?;
        let refs: Vec<&Instance> = instances.iter().collect();
        self.work.retire(&refs, self.seen.endpoints.contains_key(self.work.name)).await?;
        self.look().await
    }

    /// Takes instances out of the route.
    async fn withdraw(&self, instances: &[Instance]) -> Result<()> {
        let ids: Vec<&str> = instances.iter().map(|i| i.id.as_str()).collect();
        self.route(&[], &ids).await.map(drop)
    }

    /// Lets every instance take requests, and those that were just `started`, but those `without`.
    /// Returns whether that changes anything.
    async fn route(&self, started: &[String], without: &[&str]) -> Result<bool> {
        let endpoint = self.seen.endpoints.get(self.work.name);
        // One that was made just now is not seen yet.
        if endpoint.is_none() && self.work.context.target.endpoint(self.work.name).is_none() {
            return Ok(false);
        }
        let seen = self.instances().map(|i| &i.id);
        let ids: BTreeSet<String> =
            seen.chain(started).filter(|id| !without.contains(&id.as_str())).cloned().collect();
        if endpoint.map_or(ids.is_empty(), |endpoint| endpoint.routed == ids) {
            return Ok(false);
        }
        let ids: Vec<String> = ids.into_iter().collect();
        self.work.runtime.route(&self.work.context.fence, self.work.name, &ids).await?;
        Ok(true)
    }

    /// Fails where it is clear that an instance will not get ready.
    async fn check(&self) -> Result<()> {
        let of_mine = |i: &&Instance| self.mine.contains(&i.id) && is_hopeless(i);
        let hopeless: Vec<&Instance> = self.seen.of(self.work.name).filter(of_mine).collect();
        if hopeless.is_empty() {
            return Ok(());
        }
        let message = format!("{} of its new instances cannot get ready", hopeless.len());
        Err(self.work.failure(message, &hopeless).await)
    }

    /// Waits for a change, for `until`, or for a ready instance's time to have come.
    async fn wait(&mut self, until: Option<Instant>) -> Result<()> {
        let counting = self.ready_since.iter().filter(|(id, _)| self.mine.contains(*id));
        let ripe = counting
            .map(|(_, (_, since))| *since + self.monitor)
            .filter(|ripe| *ripe > Instant::now())
            .min();
        let wake = until.into_iter().chain(ripe).chain([self.deadline]).min();
        let wake = wake.unwrap_or(self.deadline);
        match tokio::time::timeout_at(wake, self.work.view.changed(&self.seen, self.work.name))
            .await
        {
            Ok(seen) => self.take(seen?),
            Err(_) => self.announce(),
        }
        if until.is_none() && Instant::now() >= self.deadline {
            let waiting: Vec<&Instance> =
                self.new_ones().into_iter().filter(|i| !self.counts_as_ready(i)).collect();
            let message = format!(
                "{} of {} instances ready, and no progress for {}",
                self.ready.unwrap_or(0),
                self.wanted,
                humantime::format_duration(self.update.progress_deadline)
            );
            return Err(self.work.failure(message, &waiting).await);
        }
        self.check().await
    }

    /// The last touches: every instance routed, and no endpoint where none is wanted.
    async fn settle(&mut self) -> Result<()> {
        self.route(&[], &[]).await?;
        let unwanted = self.work.context.target.endpoint(self.work.name).is_none();
        if unwanted && self.seen.endpoints.contains_key(self.work.name) {
            self.work.runtime.remove_endpoint(&self.work.context.fence, self.work.name).await?;
        }
        Ok(())
    }
}

/// The instances to end first: those that are not ready, then those of the highest number; by
/// number alone where each has a volume of its own, so that the lowest numbers stay.
fn choose(mut instances: Vec<&Instance>, count: u32, by_number: bool) -> Vec<&Instance> {
    instances.sort_by_key(|i| (i.ready && !by_number, std::cmp::Reverse(i.slot)));
    instances.truncate(count as usize);
    instances
}

/// Six letters and digits: a name's chance to be taken is one in two thousand million.
fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    (0..6).map(|_| char::from(ALPHABET[fastrand::usize(..ALPHABET.len())])).collect()
}
