//! The project that is loaded: what projects ordinarily have, in both forms of their values.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use deploykit_benches::Result;

/// Writes a project of that many services, with its files of variables, and returns its file.
pub(crate) fn write(folder: &Path, services: usize) -> Result<PathBuf> {
    let mut text = String::from(
        "name: bench
x-health: &health
  test: [CMD, curl, -f, http://localhost:8080/healthz]
  interval: 5s
  timeout: 2s
  retries: 3
x-labels: &labels
  team: backend
  tier: ${TIER:-one}
services:
",
    );
    for n in 0..services {
        let before = n.checked_sub(1).map(|before| {
            format!("    depends_on:\n      s{before}: {{condition: service_healthy}}\n")
        });
        write!(
            text,
            "  s{n}:
    image: registry.example/team/s{n}:${{TAG:-1.{n}}}
    command: serve --port 8080 --name \"s{n}\"
    environment:
      - LOG_LEVEL=${{LOG_LEVEL:-info}}
      - NAME=s{n}
    env_file: common.env
    labels: *labels
    ports: [\"{}:8080\", {{target: 9090, protocol: tcp}}]
    volumes: [\"data{n}:/var/lib/s{n}\", ./config:/etc/s{n}:ro]
    secrets: [token]
    networks: [front, back]
    healthcheck: *health
    restart: unless-stopped
    deploy:
      replicas: 2
      resources: {{limits: {{cpus: '0.50', memory: 64M}}}}
",
            10_000 + n
        )?;
        text.push_str(&before.unwrap_or_default());
    }
    text.push_str("volumes:\n");
    for n in 0..services {
        writeln!(text, "  data{n}: {{}}")?;
    }
    text.push_str(
        "networks: {front: {}, back: {internal: true}}\nsecrets: {token: {file: ./token}}\n",
    );
    std::fs::write(folder.join("common.env"), "A=1\nB=\"two words\"\nC=${A}${B}\n")?;
    let file = folder.join(format!("compose-{services}.yaml"));
    std::fs::write(&file, text)?;
    Ok(file)
}
