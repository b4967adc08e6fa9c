//! The tables, the picture and the cells.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use rollbackd::plot::{Chart, Ink, Line, Stroke, stack, svg};
use rollbackd::simulate::statistics::{wald_sessions, wilson};

use super::cells::{
    ALPHA, Healthy, KINDS, NEVER, Place, RATES, SHAPES, SIZES, TICK_SECONDS, USUAL,
};
use super::compare::{Compared, Speed};
use super::figures::{Figure, Outage};
use super::one_setting;
use super::peers::{LIMITS, PEERS, Setting, WINDOWS, grid};

const BEGIN: &str = "<!-- make bench-detection writes from here -->";
const END: &str = "<!-- to here -->";

/// Where the charts begin, left of the lowest rate, as log10.
const LEGEND_LOG10: f64 = -2.1;

/// All that was measured.
pub(crate) struct Run<'a> {
    pub(crate) settings: &'a [Setting],
    pub(crate) healthy: &'a [(Place, Healthy)],
    pub(crate) compared: &'a [Compared],
    pub(crate) reached: &'a [Figure],
    pub(crate) outage: &'a Outage,
    pub(crate) bad_runs: usize,
    pub(crate) took: Duration,
}

/// Puts the tables into docs/detection.md, and the rest beside it.
pub(crate) fn write(run: &Run<'_>, text: &str) -> std::io::Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let page = std::fs::read_to_string(docs.join("detection.md"))?;
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    std::fs::write(docs.join("detection.md"), format!("{head}{BEGIN}\n\n{text}\n{END}{tail}"))?;
    std::fs::write(docs.join("detection.svg"), picture(run))?;
    std::fs::write(docs.join("detection.csv"), csv(run))
}

pub(crate) fn markdown(run: &Run<'_>) -> String {
    let mut text = String::new();
    reached(run, &mut text);
    healthy(run, &mut text);
    speeds(run, &mut text);
    one_setting::write(run, &mut text);
    faster(run, &mut text);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let took = run.took.as_secs();
    writeln!(text, "The whole bench took {took} s on {cores} cores.").unwrap();
    text
}

fn reached(run: &Run<'_>, text: &mut String) {
    text.push_str("### What it must reach\n\n| figure | reach | measured (95 % interval) | |\n| --- | --- | --- | --- |\n");
    for Figure { what, reach, measured, holds } in run.reached {
        let holds = if *holds { "holds" } else { "**does not hold**" };
        writeln!(text, "| {what} | {reach} | {measured} | {holds} |").unwrap();
    }
}

/// Where a peer's documented setting stands among all.
fn documented() -> Vec<usize> {
    let mut first = 0;
    let place = |peer| {
        let at = first;
        first += grid(peer).len();
        at
    };
    PEERS.into_iter().map(place).collect()
}

fn percent(hits: usize, runs: usize) -> String {
    let (low, high) = wilson(hits, runs);
    let share = 100.0 * hits as f64 / runs as f64;
    format!("{share:.2} ({:.2}–{:.2})", 100.0 * low, 100.0 * high)
}

fn healthy(run: &Run<'_>, text: &mut String) {
    let runs = run.healthy.first().map_or(0, |(_, cell)| cell.runs) * KINDS.len();
    writeln!(
        text,
        "\n### Healthy rollouts taken back, in %\n\nAll kinds of failure together, {runs} rollouts a \
         cell; the peers as documented.\n"
    )
    .unwrap();
    head(text, &["traffic", "sessions/s", "rollbackd"]);
    let documented = documented();
    for (rate, shown) in RATES.iter().enumerate() {
        for (shape, (name, _)) in SHAPES.iter().enumerate() {
            let cells: Vec<&Healthy> = run
                .healthy
                .iter()
                .filter(|(place, _)| place.rate == rate && place.shape == shape)
                .map(|(_, cell)| cell)
                .collect();
            let hits = |of: &dyn Fn(&Healthy) -> usize| cells.iter().map(|cell| of(cell)).sum();
            write!(text, "| {name} | {shown} | {} |", percent(hits(&|c| c.rollbackd), runs))
                .unwrap();
            for number in &documented {
                write!(text, " {} |", percent(hits(&|c| c.peers[*number]), runs)).unwrap();
            }
            text.push('\n');
        }
    }
    let Outage { runs, rollbackd, without_ceiling, peers } = run.outage;
    write!(
        text,
        "| outage of 5 min: both versions fail half | 1 | {}; with `tolerance` alone {} |",
        percent(*rollbackd, *runs),
        percent(*without_ceiling, *runs)
    )
    .unwrap();
    for number in &documented {
        write!(text, " {} |", percent(peers[*number], *runs)).unwrap();
    }
    text.push('\n');
}

fn head(text: &mut String, first: &[&str]) {
    let peers = PEERS.iter().map(|peer| peer.name());
    let columns: Vec<&str> = first.iter().copied().chain(peers).collect();
    writeln!(text, "| {} |\n|{}", columns.join(" | "), " --- |".repeat(columns.len())).unwrap();
}

pub(crate) fn seconds(ticks: u8) -> f64 {
    f64::from(ticks) * TICK_SECONDS
}

fn shown(speed: &Speed) -> String {
    match (speed.ticks, speed.sessions) {
        ([Some(half), Some(most)], [Some(sessions), Some(many)]) => {
            format!("{} s / {} s, {sessions} / {many}", seconds(half), seconds(most))
        }
        ([Some(half), None], [Some(sessions), _]) => {
            format!("{} s / –, {sessions} / –", seconds(half))
        }
        _ => "–".to_owned(),
    }
}

fn speeds(run: &Run<'_>, text: &mut String) {
    writeln!(
        text,
        "\n### Bad rollouts\n\nHalf of the sessions, failures at set-up and in mid-call mixed, {} \
         rollouts a cell: seconds and sessions until half / 95 % were taken back, – where they \
         were not within the hour. In brackets the ratio of the median to Wald's bound for a test \
         that knows both shares. The peers at the best setting of the grid for that very cell, \
         among those with no more false rollbacks in it than rollbackd. All cells: \
         [detection.csv](detection.csv).\n",
        run.bad_runs
    )
    .unwrap();
    head(text, &["fails", "sessions/s", "rollbackd"]);
    let typical = |cell: &&Compared| cell.place.shape == 0 && cell.place.kind == 2;
    for factor in SIZES {
        for cell in run.compared.iter().filter(typical).filter(|c| same(c.factor, factor)) {
            let bound = wald_sessions(ALPHA, USUAL, (USUAL * factor).min(1.0));
            let ratio = cell.rollbackd.sessions[0]
                .map_or("–".to_owned(), |sessions| format!("{:.1}", f64::from(sessions) / bound));
            write!(
                text,
                "| {factor}× | {} | {} ({ratio}) |",
                RATES[cell.place.rate],
                shown(&cell.rollbackd)
            )
            .unwrap();
            for peer in &cell.peers {
                let best = peer.best.as_ref();
                write!(text, " {} |", best.map_or("–".to_owned(), |(s, _)| shown(s))).unwrap();
            }
            text.push('\n');
        }
    }
}

fn same(a: f64, b: f64) -> bool {
    a.total_cmp(&b).is_eq()
}

/// Where a peer's best setting is faster than rollbackd, plainly.
fn faster(run: &Run<'_>, text: &mut String) {
    writeln!(
        text,
        "\n### With a setting for every cell\n\nOf {} cells (4 shapes of traffic, 3 kinds of failure, 4 \
         rates, 4 sizes), the peer's setting being the best one for each cell, chosen in knowledge \
         of the baseline's share and of the regression's size:\n\n| peer | slower or never | equal \
         | faster | clearly: the medians' intervals are apart |\n| --- | --- | --- | --- | --- |",
        run.compared.len()
    )
    .unwrap();
    for (number, peer) in PEERS.iter().enumerate() {
        let [mut slower, mut equal, mut faster, mut clear] = [0; 4];
        for cell in run.compared {
            let own = &cell.rollbackd;
            let best = cell.peers[number].best.as_ref();
            match best.map(|(speed, _)| (speed, speed.median())) {
                Some((speed, median)) if median < own.median() => {
                    faster += 1;
                    clear += usize::from(speed.interval.1 < own.interval.0);
                }
                Some((_, median)) if median == own.median() && median != NEVER => equal += 1,
                Some(_) | None => slower += 1,
            }
        }
        writeln!(text, "| {} | {slower} | {equal} | {faster} | {clear} |", peer.name()).unwrap();
    }
    text.push_str("\nWhich cells, and with which settings: [detection.csv](detection.csv).\n\n");
}

/// A setting in words.
pub(crate) fn setup(setting: &Setting) -> String {
    let time = |ticks: usize| format!("{} s", ticks as f64 * TICK_SECONDS);
    let over = |of, window: usize, limit: usize| {
        let of = format!("{of:?}").to_lowercase();
        format!(
            "failed / {of} over {} > {:.1} %",
            time(WINDOWS[window]),
            f64::from(LIMITS[limit]) / 10.0
        )
    };
    match *setting {
        Setting::Flagger { of, window, every, limit, checks } => {
            format!("{}, every {}, {checks} checks", over(of, window, limit), time(every))
        }
        Setting::Argo { of, window, every, limit, failures, nan_fails } => format!(
            "{}, every {}, failureLimit {failures}, {} condition",
            over(of, window, limit),
            time(every),
            if nan_fails { "success" } else { "failure" }
        ),
        Setting::PipeCdThreshold { of, window, every, limit, failures } => {
            format!("{}, every {}, failureLimit {failures}", over(of, window, limit), time(every))
        }
        Setting::PipeCdCompare { of, every, level, failures } => format!(
            "failed / {} by the minute, every {} min, at {:.1} %, failureLimit {failures}",
            format!("{of:?}").to_lowercase(),
            [5, 10][every],
            100.0 * level
        ),
        Setting::Alert { of, window, every, limit, lasting } => {
            format!("{} for {}, every {}", over(of, window, limit), time(lasting), time(every))
        }
    }
}

/// Minutes to the median by rate, one chart for each size of a regression.
fn picture(run: &Run<'_>) -> String {
    let charts = SIZES.map(|factor| {
        let cells = || {
            let typical = |cell: &&Compared| cell.place.shape == 0 && cell.place.kind == 2;
            run.compared.iter().filter(typical).filter(move |cell| same(cell.factor, factor))
        };
        let x = |cell: &Compared| RATES[cell.place.rate].log10();
        let y = |speed: &Speed| speed.ticks[0].map(|ticks| seconds(ticks).log10());
        let mut lines = Vec::new();
        for (ink, (number, peer)) in (0..).zip(PEERS.iter().enumerate()) {
            let points = cells()
                .filter_map(|cell| Some((x(cell), y(&cell.peers[number].best.as_ref()?.0)?)));
            let name = format!("{}, at its best", peer.name());
            let ink = if ink == 4 { Ink::Baseline } else { Ink::Other(ink) };
            lines.push(Line { name, ink, stroke: Stroke::Dashed, points: points.collect() });
        }
        let own: Vec<_> = cells().filter_map(|c| Some((x(c), y(&c.rollbackd)?))).collect();
        for (name, stroke) in [("rollbackd", Stroke::Solid), ("", Stroke::Points)] {
            let (name, points) = (name.to_owned(), own.clone());
            lines.push(Line { name, ink: Ink::Candidate, stroke, points });
        }
        // Nothing to see: room for the legend, and the same x axis for every chart.
        for point in [(LEGEND_LOG10, 1.0), (2.0, 1.0)] {
            let (name, stroke) = (String::new(), Stroke::Dashed);
            lines.push(Line { name, ink: Ink::Faint, stroke, points: vec![point] });
        }
        let power = |log10: f64| {
            let value = 10_f64.powf(log10);
            let digits = if value < 0.1 { 2 } else { usize::from(value < 10.0) };
            format!("{value:.digits$}")
        };
        let title = format!("{factor} times the usual failures: seconds until half are taken back");
        svg(&Chart {
            title: &title,
            x_name: "sessions a second, both versions together",
            y_name: "seconds",
            x_format: &power,
            y_format: &power,
            y_reaches: (1.0, 3600_f64.log10()),
            lines,
            marks: Vec::new(),
            height: 300,
        })
        .unwrap()
    });
    stack(&charts, 300)
}

/// Every cell, peers as documented and at their best.
fn csv(run: &Run<'_>) -> String {
    let mut text = "shape,failures,sessions_per_second,factor,rule,setting,healthy_runs,\
                    false_rollbacks,seconds_p50,seconds_p50_low,seconds_p50_high,seconds_p95,\
                    sessions_p50,sessions_p95,ratio_to_wald\n"
        .to_owned();
    let documented = documented();
    for cell in run.compared {
        let (_, healthy) = run.healthy.iter().find(|(place, _)| *place == cell.place).unwrap();
        let bound = wald_sessions(ALPHA, USUAL, (USUAL * cell.factor).min(1.0));
        let mut row = |rule: &str, setting: &str, speed: &Speed| {
            let time = |ticks: Option<u8>| ticks.map_or(String::new(), |t| seconds(t).to_string());
            let known = |ticks: u8| (ticks != NEVER).then_some(ticks);
            let count = |sessions: Option<u32>| sessions.map_or(String::new(), |s| s.to_string());
            let ratio = speed.sessions[0].map(|sessions| f64::from(sessions) / bound);
            writeln!(
                text,
                "{},{},{},{},\"{rule}\",\"{setting}\",{},{},{},{},{},{},{},{},{}",
                SHAPES[cell.place.shape].0,
                KINDS[cell.place.kind].0,
                RATES[cell.place.rate],
                cell.factor,
                healthy.runs,
                speed.false_rollbacks,
                time(speed.ticks[0]),
                time(known(speed.interval.0)),
                time(known(speed.interval.1)),
                time(speed.ticks[1]),
                count(speed.sessions[0]),
                count(speed.sessions[1]),
                ratio.map_or(String::new(), |ratio| format!("{ratio:.2}")),
            )
            .unwrap();
        };
        row("rollbackd", "", &cell.rollbackd);
        for (number, peer) in PEERS.iter().enumerate() {
            let speeds = &cell.peers[number];
            let as_documented = format!("documented: {}", setup(&run.settings[documented[number]]));
            row(peer.name(), &as_documented, &speeds.documented);
            if let Some((speed, setting)) = &speeds.best {
                row(peer.name(), &format!("best: {}", setup(&run.settings[*setting])), speed);
            }
        }
    }
    text
}
