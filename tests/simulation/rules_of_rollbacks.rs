//! What must hold of a choice, of each step after it, and of a promotion.

use rollbackd::ledger::record::{Record, parse_rfc3339};
use serde_json::Value;

use crate::book::{Page, Told, text};
use crate::rules::{Rule, is_paused, second_of};
use crate::scenario::{AGENTS, Kind, Quality};
use crate::sim::Sim;
use crate::world::{ByVersion, Sums, World};

/// Seconds that may lie between what a look saw and the record it led to: two ticks of 10 s, a
/// query that hangs, a ledger that is slow.
const SEEN_SECONDS: i64 = 75;

/// Seconds for which a scrape says that a worker can carry load.
const FRESH_SECONDS: i64 = 90;

/// The ceiling and the tolerance of the rule.
const CEILING: f64 = 0.05;
const TOLERANCE: f64 = 1.5;

/// How the reason of a rollback by the value rule begins.
const OVER_LIMIT: &str = "a value is over rollback_above";

/// Regressions within so long count as at once; a minute less than they do by default.
const AT_ONCE_MILLIS: i64 = 9 * 60_000;

/// A rollback begins: to whom, on whose word, by which evidence.
pub(crate) fn take_choice(sim: &mut Sim, fleet: &str, page: &mut Page, record: &Record) {
    let told = Told {
        bad: text(record, "from_version").to_owned(),
        good: record.version.clone().unwrap_or_default(),
        needed: record.extra["workers_needed"].as_u64().unwrap(),
        ..Told::default()
    };
    let word = page.word.take().is_some_and(|version| version == told.bad);
    if page.denied.contains(&told.good) || told.good == told.bad {
        sim.breaks(Rule::NeverToTheDenied, format!("back to {} from {}", told.good, told.bad));
    }
    let back = page.returned.take().is_some_and(|back| back.version.as_ref() == Some(&told.bad));
    let back = back && page.denied.contains(&told.bad);
    if page.taken_back.contains(&told.bad) && !back && !word {
        sim.breaks(Rule::OnceEach, format!("{} again", told.bad));
    }
    if back {
        check_comeback(sim, fleet, page, &told, record);
    } else if !word {
        page.own_rollbacks += 1;
        check_own_choice(sim, fleet, page, &told, record);
    }
    page.taken_back.insert(told.bad.clone());
    page.denied.insert(told.bad.clone());
    page.rollbacks.insert(text(record, "rollback_id").to_owned(), told);
}

/// What holds of a rollback of a version that is denied, and was seen or heard all the same.
fn check_comeback(sim: &mut Sim, fleet: &str, page: &mut Page, told: &Told, record: &Record) {
    if sim.scenario.mode == rollbackd::config::Mode::Observe {
        sim.breaks(Rule::ModeHolds, format!("{} is rolled back again", told.bad));
    }
    if is_paused(page, record) {
        sim.breaks(Rule::PauseHolds, format!("{} is rolled back again", told.bad));
    }
    let at = parse_rfc3339(&record.timestamp).unwrap().as_millis();
    let recent = |(version, when): &&(String, i64)| *version == told.bad && at - when < 3_600_000;
    let before = page.comebacks.iter().filter(recent).count();
    let Some(world) = sim.world_of(fleet) else { return };
    let world = &sim.worlds[world];
    let there_at = world.there_at.get(&*told.bad).copied().unwrap_or(-1000);
    // What was scraped speaks for five minutes, and what was heard for a minute and a half.
    let gone = world.second - there_at > 300 + SEEN_SECONDS;
    if before >= 2 || gone {
        let text = format!("{}, drained {before} times before in an hour; gone: {gone}", told.bad);
        sim.breaks(Rule::ComebackIsReal, text);
    }
    page.comebacks.push((told.bad.clone(), at));
}

/// What holds of a rollback that nobody asked for.
fn check_own_choice(sim: &mut Sim, fleet: &str, page: &Page, told: &Told, record: &Record) {
    if sim.scenario.mode != rollbackd::config::Mode::Automatic {
        sim.breaks(Rule::ModeHolds, format!("{} is rolled back", told.bad));
    }
    if is_paused(page, record) {
        sim.breaks(Rule::PauseHolds, format!("{} is rolled back", told.bad));
    }
    if page.own_rollbacks > sim.scenario.rollbacks_max {
        sim.breaks(Rule::LimitHolds, format!("{} of them", page.own_rollbacks));
    }
    check_few_at_once(sim, page, record);
    let decided = page.decided.as_ref().filter(|d| d.version.as_deref() == Some(&*told.bad));
    let Some(decided) = decided else {
        return sim.breaks(Rule::EvidenceIsReal, format!("no decision on {}", told.bad));
    };
    if text(decided, "reason").starts_with(OVER_LIMIT) {
        if sim.scenario.quality(&told.bad) != Quality::Broken {
            sim.breaks(Rule::EvidenceIsReal, text_of_value(&told.bad, decided));
        }
        return;
    }
    let rollout = page.history.rollouts().values().find(|r| r.candidate.as_str() == told.bad);
    let since = rollout.map_or(0, |rollout| second_of(rollout.started_at.as_millis()));
    let Some(world) = sim.world_of(fleet) else { return };
    let world = &sim.worlds[world];
    let (bad, good) = (world.sums(&told.bad, since), world.sums(&told.good, 0));
    let counted = counted(decided);
    let share = |sums: Sums| sums.failed as f64 / sums.started.max(1) as f64;
    let text = format!(
        "{} of {} sessions of {} failed, of {} {} of {}; the record counts {} of {}",
        bad.failed,
        bad.started,
        told.bad,
        told.good,
        good.failed,
        good.started,
        counted.failed,
        counted.started,
    );
    let over = share(bad) > CEILING || share(bad) > TOLERANCE * share(good);
    let convicted = is_convicted(decided);
    if counted.failed > bad.failed || counted.failed == 0 || (convicted && !over) {
        sim.breaks(Rule::EvidenceIsReal, text.clone());
    }
    if !sim.scenario.is_bad(&told.bad) && (convicted || sim.scenario.kind == Kind::Dark) {
        sim.breaks(Rule::HealthyStays, text.clone());
    }
    // Where something was not seen, it is wide.
    let (seen, (rest, rest_failed)) = (sim.scenario.intensity == 0, bad.rest);
    // Most of the traffic, and not enough failures for ten to one against a spotless control.
    let fine = rest * 2 > bad.started + 20 && rest_failed <= 1;
    if sim.scenario.is_narrow(&told.bad) && convicted && seen && fine {
        sim.breaks(
            Rule::NarrowStays,
            format!("{text}; without {} {rest_failed} of {rest}", AGENTS[1]),
        );
    }
}

fn text_of_value(version: &str, decided: &Record) -> String {
    format!(
        "{version} was never over a limit for long; the record says {}",
        text(decided, "reason")
    )
}

/// What holds of how many fleets regressed when one of them is taken back.
fn check_few_at_once(sim: &mut Sim, page: &Page, record: &Record) {
    let at = parse_rfc3339(&record.timestamp).unwrap().as_millis();
    let others = sim.book.fleets.values().chain([page]).filter_map(|page| page.regressed_at);
    let recent = others.filter(|regressed| at - regressed < AT_ONCE_MILLIS).count();
    if recent > 3 {
        let text = format!("{recent} of {} fleets regressed", sim.worlds.len());
        sim.breaks(Rule::FewAtOnce, text);
    }
}

/// What holds of a regression that is called narrow.
pub(crate) fn check_fix_forward(sim: &mut Sim, record: &Record) {
    let version = record.version.clone().unwrap_or_default();
    let slice = &record.extra["narrow"]["slice"];
    let real = slice["label"] == "agent" && slice["value"] == AGENTS[1];
    if !real || !sim.scenario.is_narrow(&version) {
        sim.breaks(Rule::SliceIsReal, format!("{version}: {slice}"));
    }
}

/// What a decision's record counts of its candidate, over the rule with the most.
fn counted(decided: &Record) -> Sums {
    let rules = decided.extra.get("rules").and_then(Value::as_array);
    let sums = |rule: &Value| {
        let mut sums = Sums::default();
        for tick in rule["ticks"].as_array().into_iter().flatten() {
            sums.started += tick[0][0].as_u64().unwrap_or(0);
            sums.failed += tick[0][1].as_u64().unwrap_or(0);
        }
        sums
    };
    let all = rules.into_iter().flatten().map(sums);
    all.max_by_key(|sums| sums.failed).unwrap_or_default()
}

/// Whether the evidence convicted it, as against ten to one when its time was over.
fn is_convicted(decided: &Record) -> bool {
    let rules = decided.extra.get("rules").and_then(Value::as_array);
    rules.into_iter().flatten().any(|rule| {
        let threshold = rule["threshold_log10"].as_f64().unwrap_or(f64::INFINITY);
        ["baseline_log10", "ceiling_log10"]
            .iter()
            .any(|field| rule[*field].as_f64().is_some_and(|log10| log10 >= threshold))
    })
}

/// A bad version is promoted only if its failures were never seen.
pub(crate) fn check_promotion(sim: &mut Sim, fleet: &str, page: &Page, version: &str) {
    // One agent's failures may be too few for ten to one, and a hole in an answer hides all.
    if !sim.scenario.is_bad(version) || sim.scenario.is_narrow(version) || sim.blind {
        return;
    }
    let rollout = page.history.rollouts().values().find(|r| r.candidate.as_str() == version);
    let since = rollout.map_or(0, |rollout| second_of(rollout.started_at.as_millis()));
    let Some(world) = sim.world_of(fleet) else { return };
    let sums = sim.worlds[world].sums(version, since);
    sim.breaks(
        Rule::BadIsNotPromoted,
        format!("{version}, {} of {} sessions failed", sums.failed, sums.started),
    );
}

/// A rollback takes a step.
pub(crate) fn take_step(sim: &mut Sim, fleet: &str, told: &mut Told, record: &Record) {
    let event = record.event.as_str();
    if !told.events.is_empty() && !may_follow(told.last(), event) {
        sim.breaks(Rule::StepsInOrder, format!("{event} follows {}", told.last()));
    }
    let once = ["deployment.drain_started", "deployment.rolled_back"];
    if once.contains(&event) && told.has(event) {
        sim.breaks(Rule::StepsInOrder, format!("{event} twice"));
    }
    let Some(world) = sim.world_of(fleet) else { return };
    let world = &sim.worlds[world];
    let needed = if sim.scenario.proceeds { 1 } else { told.needed };
    if event == "deployment.drain_started" && !was_able(&told.good, needed, world) {
        let able = world.able_now(&told.good);
        let text = format!("{able} of {needed} of {} are there", told.good);
        sim.breaks(Rule::AbleBeforeDrain, text);
    } else if event == "rollback.clean" {
        let empty = world.empty_at.get(told.bad.as_str()).copied().unwrap_or(-1);
        if world.second - empty > SEEN_SECONDS {
            let text = format!("{} has {} workers", told.bad, world.count(&told.bad));
            sim.breaks(Rule::CleanIsEmpty, text);
        }
    }
    text(record, "awaiting").clone_into(&mut told.awaiting);
    told.events.push(event.to_owned());
}

/// Whether enough good workers were there at some scrape that the last look can have seen.
fn was_able(good: &str, needed: u64, world: &World) -> bool {
    let able =
        |second: &ByVersion<u32>| u64::from(second.get(good).copied().unwrap_or(0)) >= needed;
    let seen = |(looked, scraped): (i64, i64)| {
        let scrape = usize::try_from(scraped).ok().and_then(|at| world.able.get(at));
        looked - scraped <= FRESH_SECONDS && scrape.is_some_and(able)
    };
    // Heard, not scraped: by heartbeat they may be known at any second.
    let heard = (world.second - SEEN_SECONDS..world.second).map(|second| (second, second));
    let scraped = (0_i64..).zip(world.scraped_at.iter().copied());
    let since = usize::try_from(world.second - SEEN_SECONDS).unwrap_or(0);
    heard.chain(scraped.skip(since)).any(seen)
}

/// The order of a rollback's records.
fn may_follow(last: &str, event: &str) -> bool {
    match event {
        "rollback.gated" => last == "rollback.chosen",
        // What was able when it was looked at may not be any more after a crash.
        "rollback.starting" => ["rollback.gated", "rollback.capable"].contains(&last),
        "rollback.capable" => {
            ["rollback.gated", "rollback.starting", "rollback.stuck"].contains(&last)
        }
        "deployment.drain_started" => last == "rollback.capable",
        "deployment.rolled_back" => last == "deployment.drain_started",
        "rollback.confirming" => last == "deployment.rolled_back",
        "rollback.clean" => ["rollback.confirming", "rollback.stuck"].contains(&last),
        "rollback.stuck" => ["rollback.starting", "rollback.confirming"].contains(&last),
        "rollback.abandoned" => !["rollback.clean", "rollback.abandoned"].contains(&last),
        _ => false,
    }
}
