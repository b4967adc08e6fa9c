//! The `rollbackd` command.

use std::process::ExitCode;

use clap::Parser;
use rollbackd::app::{Cli, run};

/// A look at a thousand fleets makes and drops hundreds of thousands of small strings.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let serves = cli.log().is_some();
    if let Some(Err(error)) = cli.log().map(rollbackd::telemetry::init) {
        eprintln!("rollbackd: {error}");
        return ExitCode::from(2);
    }
    match run(cli).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // What runs unattended is read from its log; a command's error is for who typed it.
            if serves {
                // A config's problems are a line each.
                for problem in format!("{error:#}").lines() {
                    tracing::error!("{problem}");
                }
            } else {
                eprintln!("rollbackd: {error:#}");
            }
            ExitCode::from(2)
        }
    }
}
