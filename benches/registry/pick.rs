//! Picking an instance, against tower's and pingora's balancers.

use std::convert::Infallible;
use std::future::{Ready, poll_fn, ready};
use std::hint::black_box;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use deploykit::memory;
use deploykit::model::{Address, ServiceName};
use deploykit::{Registered, ServiceRegistry};
use deploykit_benches::{Goal, Result, median, ratio};
use deploykit_registry::{Balancer, Policy};
use futures_util::FutureExt;
use pingora_load_balancing::LoadBalancer;
use pingora_load_balancing::selection::{BackendIter, BackendSelection, Consistent, RoundRobin};
use tower::Service;
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, Load, PeakEwma, PendingRequests};

const ENDPOINTS: usize = 100;

/// How often a figure is taken, ours and theirs by turns; its median counts.
const ROUNDS: usize = 9;

const PICKS: usize = 200_000;

/// Nanoseconds for one call.
fn nanoseconds(mut call: impl FnMut(usize)) -> f64 {
    let started = Instant::now();
    for number in 0..PICKS {
        call(number);
    }
    started.elapsed().as_secs_f64() * 1e9 / PICKS as f64
}

/// What takes each call and answers at once: only the balancer costs.
struct Answer;

impl Service<()> for Answer {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<std::result::Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}

fn balance<L>(load: impl Fn() -> L) -> Balance<ServiceList<Vec<L>>, ()>
where
    L: Service<(), Response = (), Error = Infallible> + Load,
    L::Metric: std::fmt::Debug,
{
    Balance::new(ServiceList::new((0..ENDPOINTS).map(|_| load()).collect::<Vec<_>>()))
}

/// One call of tower's from its readiness to its answer.
fn call<S: Service<(), Response = ()>>(service: &mut S) {
    let ready = poll_fn(|context| service.poll_ready(context)).now_or_never();
    let answer = ready.map(|_| service.call(()).now_or_never());
    assert!(matches!(black_box(answer), Some(Some(Ok(())))), "it answers at once");
}

fn keys() -> Vec<[u8; 16]> {
    let mut random = fastrand::Rng::with_seed(7);
    let key = || {
        let mut key = [0; 16];
        random.fill(&mut key);
        key
    };
    std::iter::repeat_with(key).take(4096).collect()
}

/// A balancer that follows a registry with so many instances.
async fn ours(endpoints: usize, policy: Policy) -> Result<Balancer> {
    let registry = memory::Registry::default();
    let service = ServiceName::new("posts")?;
    for id in 0..endpoints {
        let host = format!("10.0.{}.{}", id / 250, id % 250 + 1);
        let address = Address { host, port: 80 };
        let instance = Registered::new(service.clone(), format!("posts-{id:05}"), address);
        std::mem::forget(registry.register(instance, Duration::from_secs(10)).await?);
    }
    let balancer = Balancer::watch(&registry, &service, policy).await?;
    // What is to be measured is the picking, not what the first pick prepares.
    balancer.pick_for(b"first")?;
    Ok(balancer)
}

/// A pick and its outcome.
fn pick(balancer: &Balancer) {
    if let Ok(picked) = balancer.pick() {
        black_box(picked).succeeded();
    }
}

fn pick_for(balancer: &Balancer, key: &[u8]) {
    if let Ok(picked) = balancer.pick_for(key) {
        black_box(picked).succeeded();
    }
}

fn compare(name: &str, peer: &str, mut ours: impl FnMut(usize), mut theirs: impl FnMut(usize)) {
    let mut all = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (one, other) = (nanoseconds(&mut ours), nanoseconds(&mut theirs));
        all.0.push(one);
        all.1.push(other);
        all.2.push(one / other);
    }
    let (one, other) = (median(all.0), median(all.1));
    println!("# {name}: ours {one:.1} ns (aim: 40 ns), {peer} {other:.1} ns");
    ratio(name, median(all.2), Goal::AtMost(0.25));
}

pub(crate) async fn run() -> Result<()> {
    let balancer = ours(ENDPOINTS, Policy::PowerOfTwo).await?;
    let mut peer = balance(|| PendingRequests::new(Answer, CompleteOnResponse::default()));
    compare("pick_p2c", "tower", |_| pick(&balancer), |_| call(&mut peer));

    let balancer = ours(ENDPOINTS, Policy::PeakEwma).await?;
    let (rtt, decay) = (Duration::from_millis(1), 10e9);
    let mut peer = balance(|| PeakEwma::new(Answer, rtt, decay, CompleteOnResponse::default()));
    compare("pick_ewma", "tower", |_| pick(&balancer), |_| call(&mut peer));

    let addresses: Vec<_> = (1..=ENDPOINTS).map(|id| format!("10.0.0.{id}:80")).collect();
    let balancer = ours(ENDPOINTS, Policy::RoundRobin).await?;
    let peer = LoadBalancer::<RoundRobin>::try_from_iter(&addresses)?;
    compare("pick_round_robin", "pingora", |_| pick(&balancer), |_| select(&peer, b""));

    let keys = keys();
    let key = |number: usize| &keys[number % keys.len()];
    let balancer = ours(ENDPOINTS, Policy::Maglev).await?;
    let peer = LoadBalancer::<Consistent>::try_from_iter(&addresses)?;
    let theirs = |number| select(&peer, key(number));
    compare("pick_maglev", "pingora", |number| pick_for(&balancer, key(number)), theirs);

    for endpoints in [ENDPOINTS, 10_000] {
        let mut line = format!("# {endpoints} endpoints, ns:");
        for policy in [
            Policy::RoundRobin,
            Policy::Weighted,
            Policy::LeastRequests,
            Policy::PowerOfTwo,
            Policy::PeakEwma,
            Policy::Rendezvous,
            Policy::Maglev,
            Policy::BoundedLoad,
        ] {
            let linear = [Policy::LeastRequests, Policy::Rendezvous, Policy::BoundedLoad];
            // Those look at every endpoint.
            let picks = if linear.contains(&policy) { 20_000_000 / endpoints / 100 } else { PICKS };
            let balancer = ours(endpoints, policy).await?;
            let started = Instant::now();
            for number in 0..picks {
                match policy {
                    Policy::Rendezvous | Policy::Maglev | Policy::BoundedLoad => {
                        pick_for(&balancer, key(number));
                    }
                    _ => pick(&balancer),
                }
            }
            let nanoseconds = started.elapsed().as_secs_f64() * 1e9 / picks as f64;
            line += &format!(" {policy:?} {nanoseconds:.1}");
        }
        println!("{line}");
    }
    Ok(())
}

fn select<S>(peer: &LoadBalancer<S>, key: &[u8])
where
    S: BackendSelection + 'static,
    S::Iter: BackendIter,
{
    black_box(peer.select(key, 256));
}
