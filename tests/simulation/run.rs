//! One run: the world goes on, the controller dies and comes back, and the end is judged.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rollbackd::config::FleetConfig;
use rollbackd::controller::{Controller, Manifests, Ports, Stop};
use rollbackd::domain::membership::Heartbeat;
use rollbackd::ledger::verify::{ChainVerifier, Trust};
use rollbackd::metrics::Metrics;
use rollbackd::ports::inbox::Message;
use rollbackd::ports::ledger::LedgerError;
use rollbackd::ports::view::View;
use rollbackd::rules::RuleSet;
use rollbackd::rules::query::FleetQueries;
use rollbackd::signing::Signer;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::book::Book;
use crate::ports::{Disk, Orchestrator, Scraper, Shared, Sim, WallClock};
use crate::random::Random;
use crate::rules::{Scenario, config, rules};
use crate::world::World;

/// Seconds after the last fault in which everything must come to its end: a start that is asked
/// for again, a drain past its deadline, and some looks.
const CALM_SECONDS: i64 = 420;

/// What came of runs.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) broken: Vec<(u64, String)>,
    pub(crate) heads: Vec<String>,
    pub(crate) crashes: u64,
    pub(crate) faults: u64,
    pub(crate) clean: u64,
    pub(crate) stuck: u64,
    pub(crate) told: u64,
    pub(crate) without_fault_of_version: u64,
    pub(crate) records: u64,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: Self) {
        self.broken.extend(other.broken);
        self.crashes += other.crashes;
        self.faults += other.faults;
        self.clean += other.clean;
        self.stuck += other.stuck;
        self.told += other.told;
        self.without_fault_of_version += other.without_fault_of_version;
        self.records += other.records;
    }

    /// The row of RELIABILITY.md.
    pub(crate) fn row(&self, runs: u64) -> String {
        format!(
            "| simulated runs, with faults, no invariant broken | 100,000 | {runs}, {} broken; {} \
             crashes and {} other faults in them |",
            self.broken.len(),
            self.crashes,
            self.faults,
        )
    }

    pub(crate) fn summary(&self) -> String {
        format!(
            "{} broke a promise; {} crashes, {} other faults, {} records; {} rolled back to the \
             end, {} stuck with people told, {} held with people told; {} runs of a healthy \
             version, none rolled back",
            self.broken.len(),
            self.crashes,
            self.faults,
            self.records,
            self.clean,
            self.stuck,
            self.told,
            self.without_fault_of_version,
        )
    }
}

/// Parsed once.
fn fixed() -> &'static (Vec<FleetConfig>, RuleSet) {
    static FIXED: OnceLock<(Vec<FleetConfig>, RuleSet)> = OnceLock::new();
    FIXED.get_or_init(|| (config(), rules()))
}

/// The run of one seed, on a runtime of its own with a clock of its own.
pub(crate) fn run(seed: u64, trace: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(live(seed, trace))
}

async fn live(seed: u64, trace: bool) -> Outcome {
    let mut random = Random::new(seed);
    let scenario = Scenario::of(&mut random);
    let mut world = World::default();
    world.scraping = true;
    world.failing.insert("v1", 5);
    world.failing.insert("v2", if scenario.bad { 600 } else { 5 });
    for _ in 0..scenario.good_workers {
        world.start("v1", false);
    }
    let end = scenario.faults_until + CALM_SECONDS;
    let shared: Shared = Arc::new(Mutex::new(Sim {
        world,
        book: Book::default(),
        random,
        scenario,
        broken: Vec::new(),
        crash_in: None,
        crash: Arc::new(Notify::new()),
        down: false,
        empty: false,
        clock_off: 0,
        disk_full: false,
        coming: Vec::new(),
        trace,
        faults: 0,
    }));
    let began = Instant::now();
    let crashes = controllers(&shared, began, end).await;
    judge(seed, &shared, crashes)
}

fn ports(shared: &Shared, began: Instant, manifests: watch::Sender<Arc<Manifests>>) -> Made {
    let (configs, rules) = fixed();
    let config = &configs[0];
    let signer = Signer::from_seed(&[7; 32]);
    let queries = FleetQueries::new(
        &config.workers,
        config.draining.as_deref(),
        config.live.as_deref(),
        &config.by,
        &config.version_label,
    );
    let rule = rules.groups[0].sessions[0].clone();
    Ports {
        source: Arc::new(Scraper { shared: shared.clone(), fleet: queries, rule }),
        platform: Arc::new(Orchestrator(shared.clone())),
        ledger: Arc::new(Disk { shared: shared.clone(), signer: signer.clone() }),
        clock: Arc::new(WallClock { shared: shared.clone(), began }),
        signer,
        metrics: Arc::new(Metrics::new("simulated", "simulated").unwrap()),
        view: watch::channel(Arc::new(View::default())).0,
        manifests,
        load_rules: Box::new(|| Ok(fixed().1.clone())),
    }
}

type Made = Ports<Scraper, Orchestrator, Disk>;

/// One controller after the other on the same ledger, until the end. Returns how many died.
async fn controllers(shared: &Shared, began: Instant, end: i64) -> u64 {
    let (mut crashes, mut next_second) = (0, 1);
    let until = began + Duration::from_secs(u64::try_from(end).unwrap());
    while Instant::now() < until {
        let (manifests, seen) = watch::channel(Arc::new(Manifests::new()));
        let (inbox, messages) = mpsc::channel(4096);
        let (records, crash) = {
            let mut sim = shared.lock().unwrap();
            let left = sim.scenario.crashes.saturating_sub(crashes);
            let calm = sim.world.second >= sim.scenario.faults_until;
            let point = sim.random.below(30);
            sim.crash_in = (left > 0 && !calm).then_some(point);
            sim.say(|| "a controller starts".to_owned());
            (sim.book.records.clone(), sim.crash.clone())
        };
        let (configs, rules) = fixed();
        let ports = ports(shared, began, manifests);
        let mut controller = Controller::new(ports, configs.clone(), rules.clone());
        if let Err(stop) = records.iter().try_for_each(|record| controller.replay(record)) {
            shared.lock().unwrap().broken.push(format!("does not start again: {stop}"));
            return crashes;
        }
        let world = go_on(shared, began, &mut next_second, Some((seen, inbox)), None);
        tokio::select! {
            biased;
            () = crash.notified() => crashes += 1,
            () = sleep_until(until) => return crashes,
            stopped = controller.run(messages) => match stopped {
                // A write it was told had failed was on disk: it must not go on from there.
                Ok(()) | Err(Stop::Ledger(LedgerError::Conflict { .. })) => {}
                Err(stop) => shared.lock().unwrap().broken.push(stop.to_string()),
            },
            () = world => {}
        }
        let away = shared.lock().unwrap().random.below(15);
        let back = Instant::now() + Duration::from_secs(away);
        go_on(shared, began, &mut next_second, None, Some(back)).await;
    }
    crashes
}

type Ears = (watch::Receiver<Arc<Manifests>>, mpsc::Sender<Message>);

/// The world's seconds, until `until` or until dropped.
async fn go_on(
    shared: &Shared,
    began: Instant,
    next: &mut i64,
    ears: Option<Ears>,
    until: Option<Instant>,
) {
    loop {
        let at = began + Duration::from_secs(u64::try_from(*next).unwrap());
        if until.is_some_and(|until| until < at) {
            return;
        }
        sleep_until(at).await;
        *next += 1;
        let mut sim = shared.lock().unwrap();
        let sim = &mut *sim;
        if let Some((manifests, inbox)) = &ears {
            hear(sim, &manifests.borrow());
            speak(sim, inbox);
        }
        happen(sim);
        let Sim { world, random, .. } = sim;
        world.tick(random);
    }
}

/// Workers read the manifest.
fn hear(sim: &mut Sim, manifests: &Manifests) {
    let Some(signed) = manifests.get("voice") else { return };
    let manifest: serde_json::Value = serde_json::from_str(&signed.manifest_json).unwrap();
    let versions = |field: &str| -> BTreeSet<String> {
        let listed = manifest[field].as_array().unwrap().iter();
        listed.map(|version| version.as_str().unwrap().to_owned()).collect()
    };
    let draining = versions("draining");
    sim.book.manifest(&draining, &mut sim.broken);
    sim.world.draining_versions = draining;
    sim.world.denied = versions("denied");
}

/// Workers send heartbeats, Alertmanager floods, somebody stops the service.
fn speak(sim: &mut Sim, inbox: &mpsc::Sender<Message>) {
    let send = |message| drop(inbox.try_send(message));
    if sim.scenario.heartbeats && sim.world.second % 10 == 0 {
        for worker in &sim.world.workers {
            send(Message::Heartbeat(Heartbeat {
                fleet: "voice".to_owned(),
                worker_id: worker.id.clone(),
                version: worker.version.parse().unwrap(),
                draining: worker.draining,
                active_sessions: worker.sessions.len() as u64,
                timestamp_seconds: 0.0,
                token: String::new(),
            }));
        }
    }
    if sim.fault(10) {
        (0..50).for_each(|_| send(Message::Alerted(vec![std::collections::BTreeMap::new()])));
    }
    if sim.fault(2) {
        send(Message::Shutdown);
    }
}

/// What goes wrong in the world in this second, or right again.
fn happen(sim: &mut Sim) {
    let second = sim.world.second;
    let scenario = sim.scenario.clone();
    if second == 40 {
        for _ in 0..scenario.bad_workers {
            sim.world.start("v2", scenario.deaf);
        }
        for worker in &mut sim.world.workers {
            worker.draining |= scenario.cutover && worker.version == "v1";
        }
    }
    let due = |coming: &(i64, &str, u32)| coming.0 <= second;
    let (come, coming) = sim.coming.drain(..).partition(due);
    sim.coming = coming;
    let come: Vec<(i64, &'static str, u32)> = come;
    for (_, version, count) in come {
        while sim.world.count(version) < count && !sim.world.denied.contains(version) {
            sim.world.start(version, false);
        }
    }
    if sim.fault(10) {
        sim.down ^= true;
    }
    if sim.fault(6) {
        sim.empty ^= true;
    }
    if sim.fault(10) {
        sim.world.scraping ^= true;
    }
    if sim.fault(6) {
        sim.disk_full ^= true;
    }
    if sim.fault(4) {
        let to: [i64; 8] = [0, 0, 1_500, -1_500, 45_000, -45_000, -600_000, 7_200_000];
        sim.clock_off = to[usize::try_from(sim.random.below(8)).unwrap()];
        sim.say(|| format!("the clock is off by {} ms", sim.clock_off));
    }
    let workers = sim.world.workers.len() as u64;
    let one = usize::try_from(sim.random.below(workers.max(1))).unwrap();
    if sim.fault(4) && (scenario.bad || sim.random.in_1000(200)) && one < sim.world.workers.len() {
        sim.say(|| format!("{} dies", sim.world.workers[one].id));
        sim.world.die(one);
    }
    if sim.fault(5)
        && let Some(worker) = sim.world.workers.get_mut(one)
    {
        worker.cut_off ^= true;
    }
    if sim.fault(5)
        && let Some(worker) = sim.world.workers.get_mut(one)
    {
        worker.deaf = true;
    }
    if sim.fault(3) && second > 60 {
        sim.say(|| "a worker of v2 comes back".to_owned());
        sim.world.start("v2", scenario.deaf);
    }
    if second == scenario.faults_until {
        (sim.down, sim.empty, sim.disk_full, sim.clock_off) = (false, false, false, 0);
        sim.world.scraping = true;
        for worker in &mut sim.world.workers {
            (worker.cut_off, worker.deaf) = (false, worker.deaf && scenario.deaf);
        }
        sim.say(|| "all is well from here".to_owned());
    }
}

fn judge(seed: u64, shared: &Shared, crashes: u64) -> Outcome {
    let mut sim = shared.lock().unwrap();
    let sim = &mut *sim;
    let mut verifier = ChainVerifier::new(Trust::AnyKey);
    for record in &sim.book.records {
        if let Err(flaw) = verifier.check(record) {
            sim.broken.push(flaw.to_string());
        }
    }
    let mut outcome = Outcome { crashes, faults: sim.faults, ..Outcome::default() };
    outcome.records = sim.book.records.len() as u64;
    outcome.heads = sim.book.records.iter().map(|record| record.hash.clone()).collect();
    outcome.without_fault_of_version = u64::from(!sim.scenario.bad);
    let told = |event: &str| sim.book.records.iter().any(|record| record.event == event);
    let last = sim.book.rollbacks.values().last().and_then(|told| told.events.last());
    match last.map(String::as_str) {
        Some("rollback.clean") => outcome.clean += 1,
        // Nobody drains, or the whole fleet is dead: only people can help, and they are told.
        Some("rollback.stuck") if sim.scenario.deaf || sim.world.count("v1") == 0 => {
            outcome.stuck += 1;
        }
        // Moved while the clock was ahead: it waits for the clock, and says so.
        Some(_) if sim.was_ahead() => outcome.told += 1,
        Some(step) => sim.broken.push(format!("the rollback is left at {step}")),
        None if !sim.scenario.bad || sim.world.count("v2") == 0 => {}
        None if told("rollout.held") || told("rollout.escalated") => outcome.told += 1,
        None => sim.broken.push("a bad version is forgotten".to_owned()),
    }
    for text in sim.broken.drain(..).take(3) {
        outcome.broken.push((seed, format!("seed {seed}: {text}")));
    }
    outcome
}
