//! Checks recorded cases: `vectors KIND PATH` prints `N passed, M failed`; the exit code is 0
//! where all passed, 1 where one failed, 2 where the cases could not be read.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use deploykit_conformance::vectors::KINDS;

/// Checks recorded cases of one kind.
#[derive(Parser)]
struct Arguments {
    /// The kind of the cases, like image-reference.
    kind: String,
    /// The file of the cases, or the folder of them.
    path: PathBuf,
    /// List the failing cases, and why.
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let Arguments { kind, path, verbose } = Arguments::parse();
    let Some(known) = KINDS.iter().find(|known| known.name == kind) else {
        let names: Vec<&str> = KINDS.iter().map(|known| known.name).collect();
        eprintln!("vectors: {kind} is no kind of cases; known: {}", names.join(", "));
        return ExitCode::from(2);
    };
    let outcomes = match known.run(&path) {
        Ok(outcomes) => outcomes,
        Err(error) => {
            eprintln!("vectors: {}: {error}", path.display());
            return ExitCode::from(2);
        }
    };
    let mut failed = 0;
    for outcome in &outcomes {
        if let Err(why) = &outcome.result {
            failed += 1;
            if verbose {
                println!("{}: {why}", outcome.id);
            }
        }
    }
    println!("{} passed, {failed} failed", outcomes.len() - failed);
    if failed > 0 || outcomes.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
