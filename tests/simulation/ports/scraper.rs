//! Prometheus: down, late, empty, half, stale, not a number, or no answer at all.
//!
//! Where an answer is damaged, it goes as JSON through the reader of the real adapter.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use rollbackd::adapters::prometheus::series_of;
use rollbackd::config::FleetConfig;
use rollbackd::domain::time::Timestamp;
use rollbackd::ports::metrics::{MetricError, MetricSource, RangeQuery, Series};
use rollbackd::rules::query::{self, FleetQueries, SessionQueries};
use tokio::time::sleep;

use crate::scenario::{self, AGENTS, fixed};
use crate::sim::{BEGIN, Shared, Sim, point};
use crate::world::{ByAgent, ByVersion, Scrape, Shown};

/// The rules' interval: what is asked again is asked for a later one.
const TICK: Duration = Duration::from_secs(10);

pub(crate) struct Scraper(pub(crate) Shared);

/// What a query asks for.
#[derive(Clone, Copy)]
enum Asked {
    /// A count over each window.
    Sum(fn(&Shown) -> u32),
    /// A gauge, averaged over each window.
    Mean(fn(&Shown) -> u32),
    /// A count over each window, by agent.
    SumBySlice(fn(&Shown) -> ByAgent),
    /// A gauge, averaged over each window, by agent.
    MeanBySlice(fn(&Shown) -> ByAgent),
    /// What a value rule asks for, at each time.
    Value,
    /// A series for each worker, now.
    Workers,
    /// A gauge, now.
    Now(fn(&Shown) -> u32),
    /// The same, of what cannot be reached.
    Unreachable,
}

fn asked(query: &RangeQuery) -> Asked {
    thread_local! {
        static KNOWN: RefCell<HashMap<String, Asked>> = RefCell::default();
    }
    if let Some(known) = KNOWN.with_borrow(|known| known.get(&query.expr).copied()) {
        return known;
    }
    let found = find(query);
    KNOWN.with_borrow_mut(|known| known.insert(query.expr.clone(), found));
    found
}

fn find(query: &RangeQuery) -> Asked {
    let (config, rules) = fixed();
    let fleet = FleetQueries::new(
        &config.workers,
        config.draining.as_deref(),
        config.live.as_deref(),
        &config.by,
        &config.version_label,
    );
    let group = &rules.groups[0];
    let rule = &group.sessions[0];
    let all = SessionQueries::new(rule, &config.by, &config.version_label, query.step);
    let slices = SessionQueries::by_slice(rule, &config.by, &config.version_label, query.step);
    let FleetConfig { workers, by, version_label, .. } = config;
    let value = query::value(&group.values[0], workers, by, version_label, group.interval);
    // Whether the query tells what is new from what a Prometheus that lost its past sees first.
    let knows_new = query.expr.contains("and on () group(last_over_time(started[600s]");
    let is = |expr: &Option<String>| expr.as_ref() == Some(&query.expr);
    match &query.expr {
        expr if *expr == fleet.workers => Asked::Workers,
        expr if *expr == fleet.unreachable => Asked::Unreachable,
        expr if *expr == all.started && knows_new => Asked::Sum(|shown| total(shown.started)),
        expr if *expr == all.failed && knows_new => Asked::Sum(|shown| total(shown.failed)),
        expr if *expr == all.started => {
            Asked::Sum(|shown| total(shown.started) + total(shown.again.0))
        }
        expr if *expr == all.failed => {
            Asked::Sum(|shown| total(shown.failed) + total(shown.again.1))
        }
        expr if *expr == slices.started => Asked::SumBySlice(|shown| shown.started),
        expr if *expr == slices.failed => Asked::SumBySlice(|shown| shown.failed),
        expr if *expr == value => Asked::Value,
        _ if is(&all.dropped) => Asked::Sum(|shown| shown.dropped),
        _ if is(&all.died) => Asked::Sum(|shown| shown.died),
        _ if is(&all.live) => Asked::Mean(|shown| total(shown.live)),
        _ if is(&slices.live) => Asked::MeanBySlice(|shown| shown.live),
        _ if is(&fleet.draining) => Asked::Now(|shown| shown.draining),
        _ if is(&fleet.live) => Asked::Now(|shown| total(shown.live)),
        expr => panic!("the simulation does not know the query {expr}"),
    }
}

/// What kind of counts a query asks for, for those who answer without a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Started,
    Failed,
    Live,
    Workers,
    Other,
}

/// The kind of a query.
pub(crate) fn kind_of(query: &RangeQuery) -> Kind {
    let one = Shown { started: [1, 0], failed: [2, 0], live: [3, 0], ..Shown::default() };
    match asked(query) {
        Asked::Workers => Kind::Workers,
        // The memory run's world tells no slices apart: what is convicted there is wide.
        Asked::Unreachable | Asked::Value | Asked::SumBySlice(_) | Asked::MeanBySlice(_) => {
            Kind::Other
        }
        Asked::Sum(count) | Asked::Mean(count) | Asked::Now(count) => match count(&one) {
            1 => Kind::Started,
            2 => Kind::Failed,
            3 => Kind::Live,
            _ => Kind::Other,
        },
    }
}

fn total(by_agent: ByAgent) -> u32 {
    by_agent.iter().sum()
}

/// What a series is about within its fleet and version.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Whole,
    Agent(usize),
    Worker(Arc<str>),
}

type Rows = BTreeMap<(usize, &'static str, Part), Vec<(Timestamp, f64)>>;

fn answer(sim: &Sim, query: &RangeQuery, asked: Asked) -> Vec<Series> {
    let step = i64::try_from(query.step.as_millis()).unwrap();
    let times = std::iter::successors(Some(query.start.as_millis()), |t| Some(t + step))
        .take_while(|time| *time <= query.end.as_millis());
    let mut rows = Rows::new();
    for time in times {
        let (at, second) = (Timestamp::from_millis(time), (time - BEGIN).div_euclid(1000));
        for (fleet, world) in sim.worlds.iter().enumerate() {
            let mut add = |version: &'static str, part: Part, value: f64| {
                rows.entry((fleet, version, part)).or_default().push((at, value));
            };
            match asked {
                Asked::Sum(count) | Asked::Mean(count) => {
                    let mut sums = ByVersion::<f64>::default();
                    for (version, shown) in world.window(second, step / 1000).flat_map(Scrape::iter)
                    {
                        *sums.of(version) += f64::from(count(shown));
                    }
                    let seconds = (step / 1000) as f64;
                    let part = if matches!(asked, Asked::Mean(_)) { seconds } else { 1.0 };
                    for (version, sum) in sums.iter() {
                        add(version, Part::Whole, sum / part);
                    }
                }
                Asked::SumBySlice(count) | Asked::MeanBySlice(count) => {
                    let mut sums = ByVersion::<ByAgent>::default();
                    for (version, shown) in world.window(second, step / 1000).flat_map(Scrape::iter)
                    {
                        let sums = sums.of(version);
                        (0..AGENTS.len()).for_each(|agent| sums[agent] += count(shown)[agent]);
                    }
                    let mean = matches!(asked, Asked::MeanBySlice(_));
                    let part = if mean { (step / 1000) as f64 } else { 1.0 };
                    for (version, sums) in sums.iter() {
                        for (agent, sum) in sums.iter().enumerate() {
                            add(version, Part::Agent(agent), f64::from(*sum) / part);
                        }
                    }
                }
                Asked::Value => {
                    let fresh = 2 * step / 1000;
                    for (version, shown) in world.at(second).into_iter().flat_map(Scrape::iter) {
                        let mut scrapes = world.window(second, fresh);
                        if scrapes.any(|s| s.get(version).is_some_and(|s| !s.workers.is_empty())) {
                            add(version, Part::Whole, shown.value);
                        }
                    }
                }
                Asked::Workers => {
                    let Some((last, scrape)) = world.last_at(second) else { continue };
                    let age = (second - last) as f64;
                    for (version, shown) in scrape.iter() {
                        shown
                            .workers
                            .iter()
                            .for_each(|id| add(version, Part::Worker(id.clone()), age));
                    }
                }
                Asked::Now(count) => {
                    for (version, shown) in world.at(second).into_iter().flat_map(Scrape::iter) {
                        add(version, Part::Whole, f64::from(count(shown)));
                    }
                }
                Asked::Unreachable => {
                    for (version, shown) in world.at(second).into_iter().flat_map(Scrape::iter) {
                        add(version, Part::Whole, f64::from(shown.unreachable));
                    }
                }
            }
        }
    }
    let series = |((fleet, version, part), points): ((usize, &str, Part), _)| {
        let mut labels = BTreeMap::from([
            ("version".to_owned(), version.to_owned()),
            ("region".to_owned(), sim.worlds[fleet].region.to_owned()),
        ]);
        let told_by = match part {
            Part::Whole => None,
            Part::Agent(agent) => Some(("agent", AGENTS[agent].to_owned())),
            Part::Worker(id) => Some(("worker_id", id.to_string())),
        };
        labels.extend(told_by.map(|(label, value)| (label.to_owned(), value)));
        Series { labels, points }
    };
    rows.into_iter().map(series).collect()
}

/// Ways to damage an answer.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// Some series are missing.
    Half,
    /// Some points are missing.
    Gaps,
    /// Some values are not numbers, or endless.
    NotNumbers,
    /// The version label of some series is missing or no version.
    Unlabelled,
    /// The body ends in the middle.
    Cut,
    /// Another store did not answer, and the answer says so.
    Partial,
    /// A page instead of an answer.
    Page,
    /// Bytes of it are others.
    Noise,
}

const DAMAGES: [Damage; 8] = [
    Damage::Half,
    Damage::Gaps,
    Damage::NotNumbers,
    Damage::Unlabelled,
    Damage::Cut,
    Damage::Partial,
    Damage::Page,
    Damage::Noise,
];

/// What is left of an answer; `None`: it is no answer any more.
fn damaged(sim: &mut Sim, mut series: Vec<Series>) -> Option<Vec<Series>> {
    let damage = DAMAGES[usize::try_from(sim.random.below(8)).unwrap()];
    sim.say(|| format!("an answer is damaged: {damage:?}"));
    let random = &mut sim.random;
    match damage {
        Damage::Half => series.retain(|_| random.in_1000(500)),
        Damage::Gaps => {
            for one in &mut series {
                one.points.retain(|_| random.in_1000(500));
            }
        }
        Damage::Unlabelled => {
            let wrong = ["", "not a version\n"];
            for one in &mut series {
                if random.in_1000(500) {
                    let wrong = wrong[usize::from(random.in_1000(500))];
                    one.labels.insert("version".to_owned(), wrong.to_owned());
                }
            }
        }
        Damage::NotNumbers | Damage::Cut | Damage::Partial | Damage::Page | Damage::Noise => {}
    }
    let mut body = json(&series, |value| {
        if matches!(damage, Damage::NotNumbers) && random.in_1000(500) {
            ["NaN", "+Inf", "-Inf"][usize::try_from(random.below(3)).unwrap()].to_owned()
        } else {
            value.to_string()
        }
    })
    .into_bytes();
    let length = body.len() as u64;
    match damage {
        Damage::Cut => body.truncate(usize::try_from(random.below(length)).unwrap()),
        Damage::Page => body = b"<html>503 Service Unavailable</html>".to_vec(),
        Damage::Partial => {
            body.pop();
            body.extend_from_slice(br#","warnings":["no store for sidecar-1"]}"#);
        }
        Damage::Noise => {
            // Not within a digit: that is a lie, and no reader can see it.
            let at = usize::try_from(random.below(length)).unwrap();
            if !body[at].is_ascii_digit() {
                body[at] = b"\x00\xff{\"x"[usize::try_from(random.below(5)).unwrap()];
            }
        }
        Damage::Half | Damage::Gaps | Damage::NotNumbers | Damage::Unlabelled => {}
    }
    series_of(&body)
}

fn json(series: &[Series], mut spell: impl FnMut(f64) -> String) -> String {
    let mut body = r#"{"status":"success","data":{"resultType":"matrix","result":["#.to_owned();
    for (number, one) in series.iter().enumerate() {
        let labels = serde_json::to_string(&one.labels).unwrap();
        let comma = if number > 0 { "," } else { "" };
        write!(body, r#"{comma}{{"metric":{labels},"values":["#).unwrap();
        for (number, (at, value)) in one.points.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(body, r#"{comma}[{},"{}"]"#, at.as_seconds(), spell(*value)).unwrap();
        }
        body.push_str("]}");
    }
    body.push_str("]}}");
    body
}

impl MetricSource for Scraper {
    async fn range(&self, query: RangeQuery) -> Result<Vec<Series>, MetricError> {
        let asked = asked(&query);
        let (late, fails, empty, damage, dies_looking) = {
            let mut sim = self.0.lock().unwrap();
            // That a worker cannot be reached is told by one query alone.
            let alone = matches!(asked, Asked::Unreachable);
            let often = if sim.scenario.kind == scenario::Kind::Dark { 5 } else { 1 };
            let empty = sim.weather.empty || (sim.fault(4 * often) && !alone);
            let fails = sim.weather.down || sim.fault(4);
            let damage = sim.fault(3 * often) && !alone;
            sim.blind |= empty || damage;
            (sim.fault(4), fails, empty, damage, sim.scenario.dies_looking)
        };
        if late {
            sleep(Duration::from_secs(25)).await;
        }
        if dies_looking {
            point(&self.0, "while it looks").await;
        }
        let failed = |reason: &str| {
            Err(MetricError::Unreachable { url: "simulated".to_owned(), reason: reason.to_owned() })
        };
        if fails {
            return failed("down");
        }
        if empty {
            return Ok(Vec::new());
        }
        let mut sim = self.0.lock().unwrap();
        // What a cache on the way kept of the same question, asked some ticks ago.
        let old = if sim.fault(2) { 1 + sim.random.below(8) } else { 0 };
        let kept = query.step.max(TICK) * u32::try_from(old).unwrap();
        let query = RangeQuery { start: query.start - kept, end: query.end - kept, ..query };
        if old > 0 {
            sim.say(|| format!("an answer {} s old", kept.as_secs()));
        }
        let series = answer(&sim, &query, asked);
        if !damage {
            return Ok(series);
        }
        damaged(&mut sim, series).map_or_else(|| failed("no answer"), Ok)
    }
}
