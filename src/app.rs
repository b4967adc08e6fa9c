//! The only wiring: from arguments to a command, and from a config file to a controller that runs.

use clap::{CommandFactory, Parser, Subcommand};

use crate::adapters::clock::SystemClock;
use crate::cli::{
    audit, backtest, check, explain, judge, keygen, operate, packaging, simulate, test,
};
use crate::config::ServerConfig;
use crate::ports::Clock;
use crate::telemetry::LogArgs;

mod access;
mod checkpoint;
mod gate;
mod serve;
mod wiring;

use serve::{RunArgs, serve};

/// Takes a fleet back to its last good version when the new one fails its sessions.
#[derive(Debug, Parser)]
#[command(name = "rollbackd", version, long_version = LONG_VERSION, about, long_about = None)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What `--version` says: also the revision, the compiler and the platform it was built for.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\n  revision: ",
    env!("ROLLBACKD_REVISION"),
    "\n  built by: ",
    env!("ROLLBACKD_RUSTC"),
    "\n  platform: ",
    env!("ROLLBACKD_TARGET"),
);

impl Cli {
    /// What is logged, and how; `None` for a command whose errors are for who typed it.
    #[must_use]
    pub fn log(&self) -> Option<&LogArgs> {
        if let Command::Run(args) = &self.command { Some(&args.log) } else { None }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch the fleets of a config file, and roll back what fails.
    Run(RunArgs),
    Check(check::Args),
    Test(test::TestArgs),
    Judge(judge::JudgeArgs),
    Simulate(simulate::SimulateArgs),
    Backtest(backtest::BacktestArgs),
    /// Make a signing key.
    Keygen(keygen::KeygenArgs),
    /// Show the fleets of a running rollbackd.
    Status(operate::StatusArgs),
    /// Say why a running rollbackd acted, or why it has not yet.
    Explain(explain::ExplainArgs),
    /// Roll back a version by hand, whatever the evidence says.
    Rollback(operate::RollbackArgs),
    /// Roll back a candidate that waits for a person's word (`mode: approve`).
    Approve(operate::VersionArgs),
    /// Have a fleet left alone: nothing is promoted or rolled back by itself.
    Pause(operate::PauseArgs),
    /// End a pause.
    Resume(operate::ActArgs),
    /// Lift the denial of a version; it is observed as a new candidate.
    Allow(operate::AllowArgs),
    /// End the rollback under way as it stands; its bad version stays denied.
    Abandon(operate::ActArgs),
    /// Verify or export the ledger.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Print a shell's completions.
    Completions(packaging::CompletionsArgs),
    /// Write the man pages.
    Man(packaging::ManArgs),
}

/// Runs one command and gives the process's exit code.
///
/// # Errors
/// Why the command could not do its work.
pub async fn run(cli: Cli) -> anyhow::Result<u8> {
    let mut out = std::io::stdout().lock();
    match cli.command {
        Command::Run(args) => {
            drop(out);
            serve(&args).await.map(|()| 0)
        }
        Command::Check(args) => {
            let now = SystemClock.now();
            let server = |config: &ServerConfig| {
                wiring::patient_source(config).map_err(|error| format!("{error:#}"))
            };
            Ok(check::run(&args, server, now, &mut out).await?)
        }
        Command::Test(args) => Ok(test::run(&args, &mut out)?),
        Command::Judge(args) => Ok(judge::run(&args, &mut out)?),
        Command::Simulate(args) => Ok(simulate::run(&args, &mut out)?),
        Command::Backtest(args) => {
            let (config, rules) = serve::load(&args.config)?;
            let source = wiring::patient_source(&config.prometheus)?;
            let now = SystemClock.now();
            Ok(backtest::run(&args, &config, &rules, &source, now, &mut out).await?)
        }
        Command::Keygen(args) => Ok(keygen::run(&args, &mut out)?),
        Command::Status(args) => Ok(operate::status(&args, &mut out).await?),
        Command::Explain(args) => Ok(explain::run(&args, &mut out).await?),
        Command::Rollback(args) => Ok(operate::rollback(&args, &mut out).await?),
        Command::Approve(args) => Ok(operate::approve(&args, &mut out).await?),
        Command::Pause(args) => Ok(operate::pause(&args, &mut out).await?),
        Command::Resume(args) => Ok(operate::plain("resume", &args, &mut out).await?),
        Command::Allow(args) => Ok(operate::allow(&args, &mut out).await?),
        Command::Abandon(args) => Ok(operate::plain("abandon", &args, &mut out).await?),
        Command::Audit(command) => Ok(audit::run(&command, &mut out).await?),
        Command::Completions(args) => Ok(packaging::completions(Cli::command(), &args, &mut out)?),
        Command::Man(args) => Ok(packaging::man(Cli::command(), &args, &mut out)?),
    }
}
