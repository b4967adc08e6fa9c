//! One run: the world goes on, the controller dies and comes back, and the end is judged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollbackd::controller::{Controller, Manifests, Ports, Stop};
use rollbackd::metrics::Metrics;
use rollbackd::ports::inbox::Message;
use rollbackd::ports::ledger::LedgerError;
use rollbackd::ports::view::View;
use rollbackd::signing::Signer;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::book::Book;
use crate::end::{Outcome, judge};
use crate::people::{self, Waiting};
use crate::ports::WallClock;
use crate::ports::disk::Disk;
use crate::ports::platform::Orchestrator;
use crate::ports::scraper::Scraper;
use crate::random::Random;
use crate::rules::{self, Rule};
use crate::scenario::{Kind, REGIONS, Scenario, fixed};
use crate::sim::{Shared, Sim, Weather};
use crate::weather;
use crate::world::World;

/// Seconds after the last fault in which everything must come to its end: a start that is asked
/// for again, a drain past its deadline, and some looks.
const CALM_SECONDS: i64 = 600;

/// The run of one seed, on a runtime of its own with a clock of its own.
pub(crate) fn run(kind: Kind, seed: u64, trace: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(live(kind, seed, trace))
}

async fn live(kind: Kind, seed: u64, trace: bool) -> Outcome {
    let mut random = Random::new(seed);
    let scenario = Scenario::of(kind, &mut random);
    let end = scenario.faults_until + CALM_SECONDS;
    let shared: Shared = Arc::new(Mutex::new(Sim {
        second: 0,
        recorded_at: 0,
        worlds: worlds(&scenario),
        book: Book::new(),
        random,
        scenario,
        broken: Vec::new(),
        crash_in: None,
        crash: Arc::new(Notify::new()),
        weather: Weather::default(),
        coming: Vec::new(),
        unsure: false,
        writing: false,
        trace,
        blind: false,
        faults: 0,
    }));
    let began = Instant::now();
    let crashes = controllers(&shared, began, end).await;
    judge(seed, &shared, crashes)
}

fn worlds(scenario: &Scenario) -> Vec<World> {
    let world = |region: &&'static str| {
        let mut world = World::new(region);
        for version in crate::scenario::VERSIONS {
            let failing = match (scenario.is_bad(version), scenario.is_narrow(version)) {
                (_, true) => [5, 900],
                (true, false) => [600; 2],
                (false, false) => [5; 2],
            };
            world.failing.insert(version, failing);
        }
        (0..scenario.good_workers).for_each(|_| world.start("v1", false));
        world
    };
    REGIONS[..scenario.fleets].iter().map(world).collect()
}

/// What a controller shows and hears.
struct Life {
    manifests: watch::Receiver<Arc<Manifests>>,
    view: watch::Receiver<Arc<View>>,
    inbox: mpsc::Sender<Message>,
    waiting: Waiting,
    /// The serials of the manifests that workers have read.
    read: BTreeMap<String, u64>,
}

type Simulated = Controller<Scraper, Orchestrator, Disk>;

/// A controller that has read the ledger, and what it shows and hears.
fn born(
    shared: &Shared,
    began: Instant,
) -> Result<(Simulated, Life, mpsc::Receiver<Message>), Stop> {
    let (manifests, seen_manifests) = watch::channel(Arc::new(Manifests::new()));
    let (view, seen_view) = watch::channel(Arc::new(View::default()));
    let (inbox, messages) = mpsc::channel(4096);
    let (config, records) = {
        let sim = shared.lock().unwrap();
        (sim.scenario.config(), sim.book.records.clone())
    };
    rules::keep_signature(&mut shared.lock().unwrap());
    let signer = Signer::from_seed(&[7; 32]);
    let ports = Ports {
        source: Arc::new(Scraper(shared.clone())),
        platform: Arc::new(Orchestrator(shared.clone())),
        ledger: Arc::new(Disk { shared: shared.clone(), signer: signer.clone() }),
        clock: Arc::new(WallClock { shared: shared.clone(), began }),
        signer,
        metrics: Arc::new(Metrics::new("simulated", "simulated").unwrap()),
        view,
        manifests,
        load_rules: Box::new(|| Ok(fixed().1.clone())),
    };
    let mut controller = Controller::new(ports, vec![config], fixed().1.clone());
    records.iter().try_for_each(|record| controller.replay(record))?;
    let life = Life {
        manifests: seen_manifests,
        view: seen_view,
        inbox,
        waiting: Waiting::new(),
        read: BTreeMap::new(),
    };
    Ok((controller, life, messages))
}

/// One controller after the other on the same ledger, until the end. Returns how many died.
async fn controllers(shared: &Shared, began: Instant, end: i64) -> u64 {
    let mut crashes = 0;
    let until = began + Duration::from_secs(u64::try_from(end).unwrap());
    while Instant::now() < until {
        let crash = {
            let mut sim = shared.lock().unwrap();
            let left = sim.scenario.crashes.saturating_sub(crashes);
            let calm = sim.second >= sim.scenario.faults_until;
            let points = sim.scenario.points;
            let point = sim.random.below(points);
            sim.crash_in = (left > 0 && !calm).then_some(point);
            (sim.unsure, sim.writing) = (false, false);
            sim.say(|| "a controller starts".to_owned());
            sim.crash.clone()
        };
        let (controller, mut life, messages) = match born(shared, began) {
            Ok(born) => born,
            Err(stop) => {
                shared.lock().unwrap().breaks(Rule::StartsAgain, stop.to_string());
                return crashes;
            }
        };
        tokio::select! {
            biased;
            () = crash.notified() => crashes += 1,
            () = sleep_until(until) => return crashes,
            stopped = controller.run(messages) => {
                let mut sim = shared.lock().unwrap();
                match stopped {
                    Ok(()) => {}
                    // A write it was told had failed was on disk: it must not go on from there.
                    Err(Stop::Ledger(LedgerError::Conflict { .. })) if sim.unsure => {}
                    Err(stop) => sim.breaks(Rule::GoesOn, stop.to_string()),
                }
                people::hear_answers(&mut sim, &mut life.waiting);
            }
            () = go_on(shared, began, Some(&mut life), None) => return crashes,
        }
        let away = {
            let mut sim = shared.lock().unwrap();
            let longest = if sim.stormy() { sim.scenario.away } else { 5 };
            sim.random.below(longest)
        };
        let back = Instant::now() + Duration::from_secs(away);
        go_on(shared, began, None, Some(back)).await;
    }
    crashes
}

/// The world's seconds, until `until`, or until it is at rest and somebody watches.
async fn go_on(
    shared: &Shared,
    began: Instant,
    mut life: Option<&mut Life>,
    until: Option<Instant>,
) {
    loop {
        let next = shared.lock().unwrap().second + 1;
        let at = began + Duration::from_secs(u64::try_from(next).unwrap());
        if until.is_some_and(|until| until < at) {
            return;
        }
        sleep_until(at).await;
        let mut sim = shared.lock().unwrap();
        let sim = &mut *sim;
        if let Some(life) = &mut life {
            hear(sim, life);
            people::speak(sim, &life.inbox, &mut life.waiting);
        }
        weather::happen(sim);
        if life.is_some() && sim.is_at_rest() {
            return;
        }
    }
}

/// Workers read their manifests, and people look at the page.
fn hear(sim: &mut Sim, life: &mut Life) {
    let manifests = life.manifests.borrow().clone();
    for (fleet, signed) in &*manifests {
        if life.read.insert(fleet.clone(), signed.serial) == Some(signed.serial) {
            rules::keep_manifest(sim, fleet, signed.serial);
        } else {
            let manifest = serde_json::from_str(&signed.manifest_json).unwrap();
            rules::take_manifest(sim, fleet, &manifest);
        }
    }
    if life.view.has_changed().is_ok_and(|changed| changed) {
        let view = life.view.borrow_and_update().clone();
        rules::take_view(sim, &view);
    }
}
