//! Load from another pod: on an update, and on an autoscaler.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use deploykit_core::memory::dial;
use deploykit_core::model::*;
use deploykit_core::{Change, LogQuery, Silent};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::reach::field;
use super::{Bed, image, kubectl, web};

/// The word that makes this program send requests to the service `web`.
pub(crate) const LOAD: &str = "load";
/// How many requests are on their way at once.
const CONNECTIONS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(180);

/// What became of the requests so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Told {
    failed: Vec<String>,
    /// How many were answered by each version.
    versions: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Facts {
    version: String,
}

fn request(address: &str) -> Result<String, String> {
    let answer = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = answer().map_err(|error: std::io::Error| error.to_string())?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    match serde_json::from_str::<Facts>(body) {
        Ok(facts) if answer.starts_with("HTTP/1.1 200 ") => Ok(facts.version),
        _ => Err(answer),
    }
}

/// Sends requests without an end, none twice, and prints what became of them.
pub(crate) fn load() -> ! {
    let variable = |what: &str| std::env::var(format!("WEB_SERVICE_{what}")).unwrap();
    let address = format!("{}:{}", variable("HOST"), variable("PORT"));
    let told = Arc::new(Mutex::new(Told::default()));
    for _ in 0..CONNECTIONS {
        let (told, address) = (Arc::clone(&told), address.clone());
        std::thread::spawn(move || {
            loop {
                let answer = request(&address);
                let mut told = told.lock().unwrap();
                match answer {
                    Ok(version) => *told.versions.entry(version).or_default() += 1,
                    Err(failure) => told.failed.push(failure),
                }
            }
        });
    }
    loop {
        std::thread::sleep(Duration::from_millis(200));
        println!("{}", serde_json::to_string(&*told.lock().unwrap()).unwrap());
    }
}

fn loader() -> ServiceBuilder {
    let loader = Service::build("loader", image()).arg(LOAD).connects_to("web");
    loader.depends_on("web", Condition::Healthy).stop_grace(Duration::from_secs(1))
}

impl Bed {
    /// What the loader has told last.
    async fn told(&self) -> Told {
        let service = Some(ServiceName::new("loader").unwrap());
        let query = LogQuery { service, tail: Some(1), ..LogQuery::default() };
        let mut lines = self.deployer.logs(&self.app, &query).await.unwrap();
        let mut last = Told::default();
        while let Some(line) = lines.next().await {
            last = serde_json::from_str(&line.unwrap().line).unwrap_or(last);
        }
        last
    }

    /// Waits until that many requests have been answered by a version.
    async fn until_answered(&self, version: &str, count: u64) -> Told {
        let begun = Instant::now();
        loop {
            let told = self.told().await;
            if told.versions.get(version).is_some_and(|answered| *answered >= count) {
                return told;
            }
            assert!(begun.elapsed() < PATIENCE, "{told:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

pub(crate) async fn an_update_fails_no_request_of_another_pod() {
    let bed = Bed::new().await;
    let app = |version: &str| {
        let web = web().replicas(4).env(dial::VERSION, version);
        let web = web.update(Update::rolling().surge(1).monitor(Duration::from_millis(200)));
        bed.build().service(web.stop_grace(Duration::from_secs(5))).service(loader())
    };
    bed.up(app("1").validate().unwrap()).await.unwrap();
    bed.until_answered("1", 500).await;
    bed.up(app("2").validate().unwrap()).await.unwrap();
    let after = bed.told().await.versions.get("2").copied().unwrap_or(0);
    let told = bed.until_answered("2", after + 500).await;
    assert!(told.failed.is_empty(), "{told:?}");
    bed.down().await;
}

pub(crate) async fn what_an_autoscaler_has_chosen_stays_when_something_is_applied() {
    let bed = Bed::new().await;
    let app = |version: &str| {
        let scale = Autoscale { min: 1, max: 3, target_cpu: Percent::new(20).unwrap() };
        let resources = Resources { cpu_request: "50m".parse().ok(), ..Resources::default() };
        let web = web().autoscale(scale).resources(resources).env(dial::VERSION, version);
        let web = web.update(Update::rolling().progress_deadline(Duration::from_secs(60)));
        bed.build().service(web).service(loader()).validate().unwrap()
    };
    bed.up(app("1")).await.unwrap();
    let deployment = format!("deployment/{}-web", bed.app);
    let begun = Instant::now();
    while field(&deployment, "{.spec.replicas}") != "3" {
        let seen =
            kubectl(&["describe", "horizontalpodautoscaler", &format!("{}-web", bed.app)], "");
        assert!(begun.elapsed() < PATIENCE, "{seen}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    bed.up(app("2")).await.unwrap();
    assert_eq!(field(&deployment, "{.spec.replicas}"), "3");
    let change =
        Change::Restart { app: bed.app.clone(), service: ServiceName::new("web").unwrap() };
    let plan = bed.deployer.plan(change).await.unwrap();
    bed.deployer.apply(plan, &mut Silent).await.unwrap();
    assert_eq!(field(&deployment, "{.spec.replicas}"), "3");
    bed.down().await;
}
