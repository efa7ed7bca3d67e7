//! What a watched instance takes of memory.

use std::process::Command;

use deploykit_benches::Result;
use etcd_client::{Txn, TxnOp};

use crate::servers::Servers;

const INSTANCES: usize = 100_000;

pub(crate) async fn run(servers: &Servers) -> Result<()> {
    let mut raw = servers.etcd().await?;
    let ids: Vec<_> = (0..INSTANCES).collect();
    for some in ids.chunks(100) {
        let put = |id: &usize| {
            let value = format!(
                r#"{{"Op":0,"Addr":"10.{}.{}.{}:8080","Metadata":null}}"#,
                id >> 16,
                id >> 8 & 255,
                id & 255
            );
            TxnOp::put(format!("memory/posts/posts-{id:06}"), value, None)
        };
        raw.txn(Txn::new().and_then(some.iter().map(put).collect::<Vec<_>>())).await?;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench-registry"));
    let output = command.arg(servers.etcd_url("memory")).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let said = String::from_utf8(output.stdout)?;
    println!("# memory_per_instance: {} bytes, of {INSTANCES} listed and watched", said.trim());
    Ok(())
}
