//! One look through the processes of the machine serves everyone who waits for one.

use std::collections::BTreeSet;
use std::io;

use tokio::sync::{mpsc, oneshot};

use crate::process::scan;

type Wish = (String, oneshot::Sender<io::Result<()>>);

/// Ends what instances leave behind: processes that left their group, or whose leader was adopted.
#[derive(Clone, Debug)]
pub(crate) struct Sweeper(mpsc::UnboundedSender<Wish>);

impl Sweeper {
    /// A sweeper of the processes of one folder; it ends when it is dropped.
    pub(crate) fn new(folder_id: String) -> Self {
        let (sender, mut wishes) = mpsc::unbounded_channel::<Wish>();
        tokio::spawn(async move {
            while let Some(first) = wishes.recv().await {
                let mut all = vec![first];
                while let Ok(wish) = wishes.try_recv() {
                    all.push(wish);
                }
                let ids: BTreeSet<String> = all.iter().map(|(id, _)| id.clone()).collect();
                let folder_id = folder_id.clone();
                let swept = tokio::task::spawn_blocking(move || {
                    scan::sweep(|| scan::marked(&folder_id), |found| ids.contains(&found.instance))
                })
                .await
                .unwrap_or_else(|e| Err(io::Error::other(e)));
                for (_, answer) in all {
                    // Each gets the outcome; an `io::Error` cannot be cloned.
                    let _ = answer.send(match &swept {
                        Ok(_) => Ok(()),
                        Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
                    });
                }
            }
        });
        Self(sender)
    }

    /// Ends every process that carries the marker of `instance`, whose main process has ended.
    /// Cancel-safe: it goes on when dropped.
    pub(crate) async fn sweep(&self, instance: &str) -> io::Result<()> {
        let (sender, answer) = oneshot::channel();
        let gone = |_| io::Error::other("the sweeper has ended");
        self.0
            .send((instance.to_owned(), sender))
            .map_err(|_| io::Error::other("the sweeper has ended"))?;
        answer.await.map_err(gone)?
    }
}
