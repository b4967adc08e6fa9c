//! What the world does in a second, and what goes wrong in it.

use crate::scenario::{Kind, VERSIONS};
use crate::sim::{Coming, Sim, Weather};

/// The second at which v2 comes.
const SECOND_AT: i64 = 40;

/// Deployments, workers on their way, and faults; then all is well again.
pub(crate) fn happen(sim: &mut Sim) {
    deploy(sim);
    arrive(sim);
    blow(sim);
    hit_workers(sim);
    if sim.second == sim.scenario.faults_until {
        clear_up(sim);
    }
    let Sim { worlds, random, scenario, second, .. } = sim;
    for world in worlds {
        world.values.insert("v2", scenario.quality.at(*second));
        world.tick(random);
    }
    sim.second += 1;
}

fn deploy(sim: &mut Sim) {
    let (second, scenario) = (sim.second, sim.scenario.clone());
    let version = match second {
        SECOND_AT => "v2",
        _ if Some(second) == scenario.third_at => "v3",
        _ => return,
    };
    sim.say(|| format!("{version} is deployed"));
    for world in &mut sim.worlds {
        for worker in &mut world.workers {
            worker.draining |= scenario.cutover;
        }
        for _ in 0..scenario.bad_workers {
            world.start(version, scenario.deaf && version == "v2");
        }
    }
}

fn arrive(sim: &mut Sim) {
    let (arrived, coming) = sim.coming.drain(..).partition(|c: &Coming| c.second <= sim.second);
    sim.coming = coming;
    let arrived: Vec<Coming> = arrived;
    for Coming { fleet, version, count, .. } in arrived {
        let world = &mut sim.worlds[fleet];
        while world.able_now(version) < count && !world.denied.contains(version) {
            world.start(version, false);
        }
    }
}

/// Prometheus, the clock and the disk.
fn blow(sim: &mut Sim) {
    let often = if sim.scenario.kind == Kind::Dark { 3 } else { 1 };
    if sim.fault(10 * often) {
        sim.weather.down ^= true;
    }
    if sim.fault(6 * often) {
        sim.weather.empty ^= true;
    }
    if sim.fault(10 * often) {
        let scraping = !sim.worlds[0].scraping;
        sim.say(|| if scraping { "scrapes again".to_owned() } else { "no scrapes".to_owned() });
        sim.worlds.iter_mut().for_each(|world| world.scraping = scraping);
    }
    if sim.fault(2 * often) {
        sim.say(|| "Prometheus has lost its past".to_owned());
        sim.worlds.iter_mut().for_each(crate::world::World::forget);
    }
    if sim.fault(6) {
        sim.weather.disk_full ^= true;
        let full = sim.weather.disk_full;
        sim.say(|| format!("the disk is {}full", if full { "" } else { "no longer " }));
    }
    if sim.fault(4) {
        let to: [i64; 8] = [0, 0, 1_500, -1_500, 45_000, -45_000, -600_000, 7_200_000];
        sim.weather.clock_off = to[usize::try_from(sim.random.below(8)).unwrap()];
        let off = sim.weather.clock_off;
        sim.say(|| format!("the clock is off by {off} ms"));
    }
}

/// Workers die, are cut off, stop listening, or come back.
fn hit_workers(sim: &mut Sim) {
    for fleet in 0..sim.worlds.len() {
        let workers = sim.worlds[fleet].workers.len() as u64;
        let one = usize::try_from(sim.random.below(workers.max(1))).unwrap();
        if one < sim.worlds[fleet].workers.len() {
            // A worker's death is a failure of its version: not where only data is bad.
            let mortal = sim.scenario.kind == Kind::Storm
                && (sim.scenario.bad[0] || sim.random.in_1000(200));
            if sim.fault(5) {
                sim.worlds[fleet].workers[one].cut_off ^= true;
            }
            if sim.fault(5) {
                sim.worlds[fleet].workers[one].deaf = true;
            }
            if sim.fault(4) && mortal {
                let id = sim.worlds[fleet].workers[one].id.clone();
                sim.say(|| format!("{id} dies"));
                sim.worlds[fleet].die(one);
            }
        }
        if sim.fault(3) && sim.second > 60 {
            come_back(sim, fleet);
        }
    }
}

fn come_back(sim: &mut Sim, fleet: usize) {
    let version = VERSIONS[usize::try_from(sim.random.below(2)).unwrap()];
    let deaf = sim.scenario.deaf && version == "v2";
    sim.say(|| format!("a worker of {version} comes back"));
    if sim.scenario.ungated {
        sim.worlds[fleet].start_ungated(version, deaf);
    } else {
        sim.worlds[fleet].start(version, deaf);
    }
}

fn clear_up(sim: &mut Sim) {
    sim.weather = Weather::default();
    let deaf = sim.scenario.deaf;
    for world in &mut sim.worlds {
        world.scraping = true;
        for worker in &mut world.workers {
            (worker.cut_off, worker.deaf) = (false, worker.deaf && deaf && worker.version == "v2");
        }
    }
    sim.say(|| "all is well from here".to_owned());
}
