//! `run`: everything put together, from a config file to a controller that runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use crate::adapters::clock::SystemClock;
use crate::adapters::ledger::{ReplayError, SqliteLedger, lock};
use crate::adapters::notify::Reach;
use crate::config::{self, Config};
use crate::controller::{Controller, Manifests, Ports};
use crate::http::{self, Doors, Limits, Shared};
use crate::ledger::verify::{ChainVerifier, Trust};
use crate::metrics::Metrics;
use crate::notices::{self, Told, cdevents::Source};
use crate::ports::Clock;
use crate::ports::inbox::{Message, Refusal};
use crate::ports::metrics::MetricSource;
use crate::ports::platform::Platform;
use crate::ports::view::View;
use crate::rules::{self, RuleSet};
use crate::signing::Signer;
use crate::telemetry::LogArgs;

use super::gate::Gate;
use super::wiring::{notifier, platform, source, verifiers};
use super::{access, checkpoint};

/// Messages that may wait for the controller; further ones are refused, and their senders told.
const INBOX_MESSAGES_MAX: usize = 4096;

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The config file.
    #[arg(short, long, default_value = "rollbackd.yml", value_name = "FILE")]
    config: PathBuf,
    /// Serve the ledger and the API, decide nothing: for a ledger that does not verify.
    #[arg(long)]
    read_only: bool,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

/// Reads the config and the rules, and prints all problems of both.
pub(super) fn load(path: &Path) -> anyhow::Result<(Config, RuleSet)> {
    let problems = |problems: Vec<crate::yaml::Problem>| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", lines.join("\n"))
    };
    let config = config::parse::load(path).map_err(problems)?;
    let rules = rules::parse::load(&config.rule_files, &config.fleet_traits());
    Ok((config, rules.map_err(problems)?))
}

pub(super) async fn serve(args: &RunArgs) -> anyhow::Result<()> {
    let (config, rules) = load(&args.config)?;
    let _lock = if args.read_only { None } else { Some(lock(&config.ledger)?) };
    let clock = Arc::new(SystemClock);
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), env!("ROLLBACKD_REVISION"))?
        .with_process(clock.now())?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("failed to listen on {}", config.listen))?;
    let (inbox, messages) = mpsc::channel(INBOX_MESSAGES_MAX);
    let (view, view_seen) = watch::channel(Arc::new(View::default()));
    let gate = Arc::new(Gate::open(&config)?);
    access::tell(&config, &gate.access().borrow(), gate.tls().borrow().is_some());
    let (manifests, manifests_seen) = watch::channel(Arc::new(Manifests::new()));
    let (ledger, signer) = open_ledger(&config, args.read_only).await?;
    let trust = Trust::EndingWith(signer.public_key().to_owned());
    let ledger = Arc::new(ledger);
    let limits = Limits::default();
    let (stopping, is_stopping) = watch::channel(false);
    let router = http::router(Shared {
        inbox: inbox.clone(),
        view: view_seen,
        manifests: manifests_seen,
        ledger: ledger.clone(),
        metrics: metrics.clone(),
        verifiers: verifiers(&config)?,
        clock: clock.clone(),
        limits,
        access: gate.access(),
        stopping: is_stopping,
    });
    info!(
        version = env!("CARGO_PKG_VERSION"),
        revision = env!("ROLLBACKD_REVISION"),
        "starting rollbackd"
    );
    info!(listen = %listener.local_addr()?, fleets = config.fleets.len(), "serving");
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        // A dropped sender stops the server too.
        drop(stopped.await);
    };
    let doors = Doors { tls: gate.tls(), limits, metrics: metrics.clone() };
    let server = tokio::spawn(http::serve(listener, router, doors, stopped));
    let follower = Arc::clone(&gate);
    tokio::spawn(async move { follower.follow().await });
    tokio::spawn(signals(inbox.clone()));
    let path = args.config.clone();
    let verified = metrics.clone();
    if !args.read_only {
        notices(&config, &ledger, &signer, &inbox, || Told {
            view: view.subscribe(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        })?;
    }
    let ports = Ports {
        source: Arc::new(source(&config.prometheus, metrics.clone())?),
        platform: Arc::new(platform(&config)?),
        ledger: ledger.clone(),
        clock,
        signer,
        metrics: Arc::new(metrics),
        view,
        manifests,
        load_rules: Box::new(move || match load(&path) {
            Ok((config, rules)) => match gate.reload(&config.auth) {
                Ok(()) => Ok(rules),
                Err(problem) => Err(format!("{problem:#}")),
            },
            Err(problems) => Err(problems.to_string()),
        }),
    };
    let result = if args.read_only {
        let last_seq = ledger.last_seq().await?;
        ports.view.send_replace(Arc::new(View { last_seq, ..View::default() }));
        drop(ports);
        read_only(messages).await;
        Ok(())
    } else {
        let controller = Controller::new(ports, config.fleets, rules);
        let mut controller = controller.with_breaker(config.breaker);
        replay(&ledger, &mut controller, trust.clone()).await?;
        if let Some(kept) = config.checkpoint {
            checkpoint::check(&kept.file, &ledger).await?;
            let (ledger, metrics) = (Arc::clone(&ledger), verified.clone());
            tokio::spawn(async move { checkpoint::keep(&kept, &ledger, &metrics).await });
        }
        tokio::select! {
            result = controller.run(messages) => result.context("stopped"),
            bad = bad_signature(&ledger, trust, &verified) => Err(bad),
        }
    };
    stopping.send_replace(true);
    // A server that has ended already needs no telling.
    let _already_ended = stop.send(());
    server.await?;
    ledger.close().await;
    result
}

/// Starts what tells people and other systems; each ends with the controller.
fn notices(
    config: &Config,
    ledger: &Arc<SqliteLedger>,
    signer: &Signer,
    inbox: &mpsc::Sender<Message>,
    told: impl Fn() -> Told,
) -> anyhow::Result<()> {
    if let Some(server) = &config.alertmanager {
        let notifier = notifier(server, Reach::Every).context("alertmanager")?;
        tokio::spawn(notices::tell_alertmanager(notifier, told()));
    }
    if let Some(cdevents) = &config.cdevents {
        let notifier = notifier(&cdevents.server, Reach::First).context("cdevents")?;
        let about = Source {
            source: cdevents.source.clone(),
            environment: cdevents.environment.clone(),
            artifact: cdevents.artifact.clone(),
        };
        let (ledger, signer, inbox) = (ledger.clone(), signer.clone(), inbox.clone());
        tokio::spawn(notices::tell_events(notifier, ledger, about, signer, inbox, told()));
    }
    Ok(())
}

/// Serves what there is; refuses everything that would need the controller.
async fn read_only(mut messages: mpsc::Receiver<Message>) {
    warn!("read-only: nothing is watched and nothing will be rolled back");
    while let Some(message) = messages.recv().await {
        match message {
            Message::Shutdown => return,
            Message::Reload(reply) => drop(reply.send(Err("read-only".to_owned()))),
            Message::Order(_, reply) => {
                drop(reply.send(Err(Refusal::Conflict("it runs read-only".to_owned()))));
            }
            Message::Told(_, reply) => drop(reply.send(false)),
            Message::Alerted(_) | Message::Heartbeat(_) | Message::WorkerRejected { .. } => {}
        }
    }
}

async fn open_ledger(config: &Config, read_only: bool) -> anyhow::Result<(SqliteLedger, Signer)> {
    let signer = Signer::load(&config.signing_key_file).with_context(|| {
        format!(
            "failed to load the signing key (`rollbackd keygen {}` makes one)",
            config.signing_key_file.display()
        )
    })?;
    let ledger = if read_only {
        SqliteLedger::open_read_only(&config.ledger).await?
    } else {
        SqliteLedger::open(&config.ledger, signer.clone()).await?
    };
    Ok((ledger, signer))
}

/// Tells the controller everything that was recorded, once all of it has been seen to hold.
async fn replay<S: MetricSource, P: Platform>(
    ledger: &SqliteLedger,
    controller: &mut Controller<S, P, SqliteLedger>,
    trust: Trust,
) -> anyhow::Result<()> {
    let mut told = Ok(());
    let take = |record| {
        if told.is_ok() {
            told = controller.replay(&record);
        }
    };
    match ledger.replay(trust, take).await {
        Ok(records) => info!(records, "ledger verified"),
        Err(broken) => return Err(unverified(&broken)),
    }
    told.context("stopped")
}

/// Checks what a start does not wait for, every signature in the ledger and the rest of its file;
/// returns only if a signature is not what it should be.
async fn bad_signature(ledger: &SqliteLedger, trust: Trust, metrics: &Metrics) -> anyhow::Error {
    let mut verifier = ChainVerifier::new(trust);
    match ledger.verify_each(&mut verifier, drop).await {
        Ok(()) => {
            info!(records = verifier.summary().records, "every signature verified");
            match ledger.examine_file().await {
                Ok(None) => metrics.set_ledger_verified(),
                // Every record that can be read holds: the fleet is not left alone for this.
                Ok(Some(flaw)) => {
                    error!(%flaw, "the ledger's file is damaged outside of its records");
                }
                Err(unread) => warn!(%unread, "the ledger's file could not be checked"),
            }
            std::future::pending().await
        }
        Err(ReplayError::Broken { path, broken }) => {
            unverified(&ReplayError::Broken { path, broken })
        }
        Err(ReplayError::Ledger(unread)) => {
            // The controller's own appends tell whether the file is in order.
            warn!(%unread, "the signatures could not be checked");
            std::future::pending().await
        }
    }
}

fn unverified(broken: &ReplayError) -> anyhow::Error {
    anyhow::anyhow!(
        "failed to verify the ledger: {broken}; nothing will be decided on it. \
         `--read-only` serves it as it is"
    )
}

/// SIGTERM and SIGINT end the process, SIGHUP reads the rules again.
async fn signals(inbox: mpsc::Sender<Message>) {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    let [Ok(mut term), Ok(mut int), Ok(mut hup)] = kinds.map(signal) else {
        error!("signals cannot be received");
        return;
    };
    loop {
        let message = tokio::select! {
            _ = term.recv() => Message::Shutdown,
            _ = int.recv() => Message::Shutdown,
            _ = hup.recv() => {
                let (reply, result) = oneshot::channel();
                tokio::spawn(async move {
                    // Reloaded, or stopped in between: both are logged where they happen.
                    if let Ok(Err(problems)) = result.await {
                        error!(problems, "rules not reloaded");
                    }
                });
                Message::Reload(reply)
            }
        };
        if inbox.send(message).await.is_err() {
            return;
        }
    }
}
