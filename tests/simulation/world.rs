//! The truth about one fleet: workers with sessions, and what was scraped of them by the second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::random::Random;
use crate::scenario::{AGENTS, VERSIONS};

/// An instant query sees the last scrape for so long.
const STALE_SECONDS: i64 = 300;

/// Sessions of the second agent, of a thousand.
const SECOND_AGENT: u64 = 300;

#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) id: Arc<str>,
    pub(crate) version: &'static str,
    pub(crate) draining: bool,
    /// Does not do what it is asked.
    pub(crate) deaf: bool,
    /// Cannot be scraped, and may have sessions.
    pub(crate) cut_off: bool,
    /// The seconds at which its sessions end, and whose they are.
    pub(crate) sessions: Vec<(i64, usize)>,
    /// Sessions it has started and failed since its own start.
    counters: (ByAgent, ByAgent),
}

/// Counts by agent, in the order of [`AGENTS`].
pub(crate) type ByAgent = [u32; AGENTS.len()];

/// What one scrape shows of one version; counts since the scrape before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    pub(crate) workers: Vec<Arc<str>>,
    pub(crate) unreachable: u32,
    pub(crate) draining: u32,
    pub(crate) live: ByAgent,
    pub(crate) started: ByAgent,
    pub(crate) failed: ByAgent,
    pub(crate) dropped: u32,
    pub(crate) died: u32,
    /// What counters had reached when Prometheus lost its past: counted before, or never seen.
    pub(crate) again: (ByAgent, ByAgent),
    /// What the value rule asks for.
    pub(crate) value: f64,
}

/// Something of each version of which there is any, in the order of [`VERSIONS`].
#[derive(Clone, Debug)]
pub(crate) struct ByVersion<T>([Option<T>; VERSIONS.len()]);

impl<T> Default for ByVersion<T> {
    fn default() -> Self {
        Self([const { None }; VERSIONS.len()])
    }
}

impl<T: Default> ByVersion<T> {
    /// That of one version, which is there from now on.
    pub(crate) fn of(&mut self, version: &str) -> &mut T {
        self.0[place(version)].get_or_insert_default()
    }
}

impl<T> ByVersion<T> {
    pub(crate) fn get(&self, version: &str) -> Option<&T> {
        self.0[place(version)].as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &T)> {
        VERSIONS
            .into_iter()
            .zip(&self.0)
            .filter_map(|(version, one)| Some((version, one.as_ref()?)))
    }
}

fn place(version: &str) -> usize {
    VERSIONS.iter().position(|known| *known == version).unwrap()
}

pub(crate) type Scrape = ByVersion<Shown>;

/// Sums over some time: what really happened and was scraped.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) started: u64,
    pub(crate) failed: u64,
    /// The part of both that is not the second agent's.
    pub(crate) rest: (u64, u64),
}

/// What the workers of a fleet do, whoever looks.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// `voice:eu`
    pub(crate) fleet: String,
    pub(crate) region: &'static str,
    pub(crate) second: i64,
    pub(crate) workers: Vec<Worker>,
    /// By second; `None` where nothing was scraped.
    pub(crate) scrapes: Vec<Option<Scrape>>,
    /// By second: when it was scraped last, whatever Prometheus has lost since.
    pub(crate) scraped_at: Vec<i64>,
    /// Counted and not scraped yet.
    pending: Scrape,
    /// What really happened, at the second of the scrape that showed it first.
    truth: Vec<(i64, &'static str, Sums)>,
    unscraped: ByVersion<Sums>,
    /// Workers of a version that are alive and take sessions, by second.
    pub(crate) able: Vec<ByVersion<u32>>,
    /// The last second at which a version had no worker.
    pub(crate) empty_at: BTreeMap<&'static str, i64>,
    /// The last second at which it had one.
    pub(crate) there_at: BTreeMap<&'static str, i64>,
    /// Failing sessions of a thousand, by version and agent.
    pub(crate) failing: BTreeMap<&'static str, [u64; AGENTS.len()]>,
    /// What the value rule asks for, by version; where there is none, it is small.
    pub(crate) values: BTreeMap<&'static str, f64>,
    pub(crate) draining_versions: BTreeSet<String>,
    pub(crate) denied: BTreeSet<String>,
    pub(crate) scraping: bool,
    born: u32,
}

impl World {
    pub(crate) fn new(region: &'static str) -> Self {
        Self { fleet: format!("voice:{region}"), region, scraping: true, ..Self::default() }
    }

    /// A worker starts, unless the gate keeps it.
    pub(crate) fn start(&mut self, version: &'static str, deaf: bool) {
        if !self.denied.contains(version) {
            self.start_ungated(version, deaf);
        }
    }

    /// A worker starts that reads no manifest before it does.
    pub(crate) fn start_ungated(&mut self, version: &'static str, deaf: bool) {
        self.born += 1;
        self.workers.push(Worker {
            id: format!("{}-{version}-{}", self.region, self.born).into(),
            version,
            draining: false,
            deaf,
            cut_off: false,
            sessions: Vec::new(),
            counters: Default::default(),
        });
    }

    pub(crate) fn count(&self, version: &str) -> u32 {
        u32::try_from(self.workers.iter().filter(|w| w.version == version).count()).unwrap()
    }

    /// Workers that take sessions now.
    pub(crate) fn able_now(&self, version: &str) -> u32 {
        let able = self.workers.iter().filter(|w| w.version == version && !w.draining);
        u32::try_from(able.count()).unwrap()
    }

    /// One worker dies with all its sessions.
    pub(crate) fn die(&mut self, index: usize) {
        let worker = self.workers.remove(index);
        let lost = u32::try_from(worker.sessions.len()).unwrap();
        let shown = self.pending.of(worker.version);
        shown.dropped += lost;
        shown.died += u32::from(lost > 0);
        self.unscraped.of(worker.version).failed += u64::from(lost > 0);
    }

    /// Prometheus begins again with an empty disk: it sees old counters for the first time.
    pub(crate) fn forget(&mut self) {
        self.scrapes.iter_mut().for_each(|scrape| *scrape = None);
        self.pending = Scrape::default();
        for worker in &self.workers {
            let shown = self.pending.of(worker.version);
            for agent in 0..AGENTS.len() {
                shown.again.0[agent] += worker.counters.0[agent];
                shown.again.1[agent] += worker.counters.1[agent];
            }
        }
    }

    /// What a second brings.
    pub(crate) fn tick(&mut self, random: &mut Random) {
        self.second += 1;
        let now = self.second;
        for worker in &mut self.workers {
            worker.sessions.retain(|(end, _)| *end > now);
            worker.draining |= !worker.deaf && self.draining_versions.contains(worker.version);
            if worker.draining {
                continue;
            }
            let agent = usize::from(random.in_1000(SECOND_AGENT));
            let shown = self.pending.of(worker.version);
            shown.started[agent] += 1;
            worker.counters.0[agent] += 1;
            let failing = self.failing.get(worker.version).map_or(0, |failing| failing[agent]);
            let fails = random.in_1000(failing);
            if fails {
                shown.failed[agent] += 1;
                worker.counters.1[agent] += 1;
            } else {
                let end = now + 2 + i64::try_from(random.below(20)).unwrap();
                worker.sessions.push((end, agent));
            }
            let real = self.unscraped.of(worker.version);
            real.started += 1;
            real.failed += u64::from(fails);
            if agent == 0 {
                real.rest.0 += 1;
                real.rest.1 += u64::from(fails);
            }
        }
        self.workers.retain(|worker| !worker.draining || !worker.sessions.is_empty());
        self.scrape();
        let mut able = ByVersion::default();
        for worker in self.workers.iter().filter(|worker| !worker.draining) {
            *able.of(worker.version) += 1;
        }
        self.able.push(able);
        for version in VERSIONS {
            let last =
                if self.count(version) == 0 { &mut self.empty_at } else { &mut self.there_at };
            last.insert(version, now);
        }
    }

    fn scrape(&mut self) {
        if !self.scraping {
            self.scrapes.push(None);
            self.scraped_at.push(self.scraped_at.last().copied().unwrap_or(-1));
            return;
        }
        let mut scrape = std::mem::take(&mut self.pending);
        for worker in &self.workers {
            let shown = scrape.of(worker.version);
            if worker.cut_off {
                shown.unreachable += 1;
            } else {
                shown.workers.push(worker.id.clone());
                shown.draining += u32::from(worker.draining);
                worker.sessions.iter().for_each(|(_, agent)| shown.live[*agent] += 1);
            }
        }
        for (version, shown) in VERSIONS.iter().zip(&mut scrape.0) {
            if let Some(shown) = shown {
                shown.value = self.values.get(version).copied().unwrap_or(1.0);
            }
        }
        let real = std::mem::take(&mut self.unscraped);
        self.truth.extend(real.iter().map(|(version, sums)| (self.second, version, *sums)));
        self.scrapes.push(Some(scrape));
        self.scraped_at.push(self.second - 1);
    }

    /// What happened to a version's sessions and was scraped after second `from`, a dead worker
    /// counted as one failure.
    pub(crate) fn sums(&self, version: &str, from: i64) -> Sums {
        let mut sums = Sums::default();
        for (_, _, one) in self.truth.iter().filter(|(at, v, _)| *at > from && *v == version) {
            sums.started += one.started;
            sums.failed += one.failed;
            sums.rest = (sums.rest.0 + one.rest.0, sums.rest.1 + one.rest.1);
        }
        sums
    }

    /// The last scrape that a query at `second` still sees.
    pub(crate) fn at(&self, second: i64) -> Option<&Scrape> {
        self.last_at(second).map(|(_, scrape)| scrape)
    }

    /// The same, and the second of the scrape.
    pub(crate) fn last_at(&self, second: i64) -> Option<(i64, &Scrape)> {
        let last = i64::try_from(self.scrapes.len()).unwrap() - 1;
        let from = second.min(last);
        let oldest = (second - STALE_SECONDS).max(-1);
        let scrape = |s| Some((s, self.scrapes[usize::try_from(s).unwrap()].as_ref()?));
        (oldest + 1..=from).rev().find_map(scrape)
    }

    /// The scrapes in the `seconds` up to `end`.
    pub(crate) fn window(&self, end: i64, seconds: i64) -> impl Iterator<Item = &Scrape> {
        let last = i64::try_from(self.scrapes.len()).unwrap() - 1;
        let range = (end - seconds + 1).max(0)..=end.min(last);
        range.filter_map(|s| self.scrapes[usize::try_from(s).unwrap()].as_ref())
    }
}
