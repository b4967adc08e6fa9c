//! The web page in a real Chromium.

use std::path::Path;
use std::time::Duration;

use fantoccini::Locator;
use fantoccini::key::Key;
use serde_json::Value;

use crate::support::browser::Browser;
use crate::support::synthetic::{Setup, Synthetic};
use crate::support::wait_for;

/// The whole page, its style, script and icon included, in bytes.
const WEIGHT_MAX: u64 = 60_000;

/// Notes in the page when each `seq` was first shown, and every state of the rollback.
const WATCH: &str = "
    window.shown = []; window.states = [];
    const note = () => {
      const seq = Number(document.getElementById('content').dataset.seq);
      if (shown.at(-1)?.[0] !== seq) shown.push([seq, Date.now()]);
      for (const step of document.querySelectorAll('.steps .done b, .steps .current b'))
        if (!states.includes(step.textContent)) states.push(step.textContent);
      const live = document.querySelector('.counts b');
      if (live && window.lives?.at(-1) !== live.textContent)
        (window.lives ??= []).push(live.textContent);
    };
    note();
    new MutationObserver(note).observe(document.getElementById('content'),
      { attributes: true, childList: true, subtree: true });";

/// Keeps a picture for the docs, where the environment says so.
async fn picture(browser: &Browser, name: &str, width: u32, height_max: u64, scheme: &str) {
    let Ok(wanted) = std::env::var("ROLLBACKD_SCREENSHOTS") else { return };
    let png = browser.screenshot(width, height_max, scheme).await;
    browser.look(1280, 900, "light").await;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(wanted);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(name).with_extension("png"), png).unwrap();
}

/// In light and dark, on a telephone and a desk.
async fn accessible(browser: &Browser, what: &str) {
    for (width, scheme) in [(360, "light"), (360, "dark"), (1280, "light"), (1280, "dark")] {
        browser.look(width, 900, scheme).await;
        let violations = browser.violations().await;
        assert!(violations.is_empty(), "{what}, {width} px, {scheme}: {violations:#?}");
        let wide = "return document.documentElement.scrollWidth > innerWidth";
        assert_eq!(browser.run(wide).await, false, "{what} is wider than {width} px");
    }
    browser.look(1280, 900, "light").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_rollback_is_watched_on_the_page() {
    let fleet =
        Synthetic::serving_on_v1(Setup { drains_in: Duration::from_secs(12), ..Setup::default() })
            .await;
    let browser = Browser::start().await;
    browser.look(1280, 900, "light").await;
    browser.forget().await;
    browser.client.goto(&fleet.url("/")).await.unwrap();
    browser.until_it_says("voice is steady").await;
    report_weight_and_paint(&browser).await;
    browser.run(WATCH).await;
    browser.run("window.pause = document.querySelector('[data-act=pause]')").await;

    fleet.add("v2", 0.02).await;
    fleet.until("evidence on v2", |view| has_ticks(view, 8)).await;
    browser.until_it_says("voice is observing").await;
    accessible(&browser, "a fleet that is observed").await;
    picture(&browser, "page-observing", 1280, 1000, "dark").await;
    picture(&browser, "page-wall", 2560, 1440, "light").await;
    fleet.drain("v1");
    fleet.add("v2", 0.5).await;
    browser.until_it_says("voice is rolling back").await;
    fleet.until_recorded("rollback.confirming").await;
    browser.until_it_says("waiting for the last session to end").await;
    accessible(&browser, "a fleet that is rolled back").await;
    picture(&browser, "page-rolling-back", 1280, 1200, "light").await;
    picture(&browser, "page-phone", 360, 1500, "dark").await;
    fleet.until_recorded("rollback.clean").await;
    browser.until_it_says("voice is steady").await;

    let states = browser.run("return states").await;
    for state in ["chosen", "gated", "starting", "capable", "draining", "recorded", "confirming"] {
        assert!(states.as_array().unwrap().contains(&state.into()), "{state}: {states}");
    }
    let lives = browser.run("return lives").await;
    let lives: Vec<f64> =
        lives.as_array().unwrap().iter().map(|n| n.as_str().unwrap().parse().unwrap()).collect();
    let stands = "return pause.isConnected && pause === document.querySelector('[data-act=pause]')";
    assert_eq!(browser.run(stands).await, true, "a button is never taken away under a finger");
    assert!(lives.len() > 3 && lives.first() > lives.last(), "live sessions fall: {lives:?}");
    report_latency(&fleet, browser.run("return shown").await).await;

    browser.click("#past td details").await;
    browser.until_it_says("fails more than allowed").await;
    browser.click("#past a.record").await;
    browser.until_it_says("verified").await;
    accessible(&browser, "a record").await;
    picture(&browser, "page-record", 1280, 1200, "light").await;
    for path in ["/fleets/voice", "/history", "/rules", "/ledger", "/ledger/1"] {
        browser.client.goto(&fleet.url(path)).await.unwrap();
        accessible(&browser, path).await;
    }
}

fn has_ticks(view: &Value, least: u64) -> bool {
    let counted = &view["rollouts"][0]["verdicts"][0]["started"];
    counted.as_u64().is_some_and(|started| started > 12 * least)
}

async fn report_weight_and_paint(browser: &Browser) {
    let script = "
        const pages = performance.getEntriesByType('navigation');
        const parts = performance.getEntriesByType('resource').filter(
          (part) => !part.name.includes('/api/'));
        const paint = performance.getEntriesByName('first-contentful-paint')[0]?.startTime;
        return [[...pages, ...parts].map((part) => part.transferSize), paint];";
    let found = browser.run(script).await;
    let weight: u64 = found[0].as_array().unwrap().iter().filter_map(Value::as_u64).sum();
    eprintln!("page: {weight} bytes in all, first paint after {} ms", found[1]);
    assert!(weight > 0 && weight < WEIGHT_MAX, "{weight} bytes: {found}");
}

/// How long after its record each thing was on the page.
async fn report_latency(fleet: &Synthetic, shown: Value) {
    let shown: Vec<(u64, i64)> = serde_json::from_value(shown).unwrap();
    let mut worst = 0;
    let mut count = 0;
    for record in fleet.records().await {
        let seq = record["seq"].as_u64().unwrap();
        let at: jiff::Timestamp = record["timestamp"].as_str().unwrap().parse().unwrap();
        let first = shown.iter().position(|(on_page, _)| *on_page >= seq);
        // Those before the page was opened were there from the start.
        if let Some(first) = first.filter(|first| *first > 0) {
            worst = worst.max(shown[first].1 - at.as_millisecond());
            count += 1;
        }
    }
    assert!(count > 5, "{count} records were shown");
    eprintln!("page: {count} records, each shown at most {worst} ms after its time");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_given_on_the_page_and_only_with_a_reason() {
    let setup = Setup { mode: "approve", ..Setup::default() };
    let fleet = Synthetic::serving_on_v1(setup).await;
    let browser = Browser::start().await;
    browser.look(1280, 900, "light").await;
    browser.client.goto(&fleet.url("/")).await.unwrap();
    fleet.add("v2", 0.4).await;
    browser.until_it_says("waits for approval").await;

    browser.click("button[data-act=approve]").await;
    let is_open = "return document.getElementById('act').open";
    assert_eq!(browser.run(is_open).await, true);
    accessible(&browser, "the dialog").await;
    picture(&browser, "page-approve", 1280, 900, "light").await;
    browser.click("#act-confirm").await;
    assert_eq!(browser.run(is_open).await, true, "there is no reason yet");
    assert!(fleet.records().await.iter().all(|record| record["event"] != "operator.approved"));
    let fill = async |field, text| {
        let field = browser.client.find(Locator::Css(field)).await.unwrap();
        field.send_keys(text).await.unwrap();
    };
    fill("#act-reason", "seen it on the graphs").await;
    fill("#act-actor", "ada").await;
    browser.click("#act-confirm").await;
    let approved = fleet.until_recorded("operator.approved").await;
    assert_eq!(approved["actor"], "ada");
    assert_eq!(approved["reason"], "seen it on the graphs");
    wait_for("the dialog to close", Duration::from_mins(1), || async {
        (browser.run(is_open).await == false).then_some(())
    })
    .await;
    fleet.until_recorded("rollback.clean").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_worked_by_keyboard_and_read_without_javascript() {
    let fleet = Synthetic::serving_on_v1(Setup::default()).await;
    let browser = Browser::start().await;
    browser.look(1280, 900, "light").await;
    browser.client.goto(&fleet.url("/")).await.unwrap();
    wait_for("the page to be live", Duration::from_mins(1), || async {
        let link = browser.run("return document.getElementById('link').textContent").await;
        (link == "live").then_some(())
    })
    .await;
    let press = async |key: Key| {
        let focused = browser.client.active_element().await.unwrap();
        focused.send_keys(&char::from(key).to_string()).await.unwrap();
    };
    let focus = "return document.activeElement.id || document.activeElement.className";
    press(Key::Tab).await;
    assert_eq!(browser.run(focus).await, "skip");
    press(Key::Enter).await;
    let mut steps = 0;
    while browser.run("return document.activeElement.dataset.act").await != "pause" {
        press(Key::Tab).await;
        steps += 1;
        assert!(steps < 40, "no way to the button by keyboard");
    }
    press(Key::Enter).await;
    assert_eq!(browser.run(focus).await, "act-reason");
    press(Key::Escape).await;
    assert_eq!(browser.run("return document.activeElement.dataset.act").await, "pause");
    press(Key::Enter).await;
    let reason = browser.client.active_element().await.unwrap();
    reason.send_keys("by keyboard").await.unwrap();
    press(Key::Enter).await;
    assert_eq!(fleet.until_recorded("operator.paused").await["reason"], "by keyboard");
    browser.until_it_says("voice is paused").await;

    // A second page that has not noticed: what is refused is said where it was asked.
    let stale = "document.querySelector('[data-act]').dataset.act = 'pause';
        document.querySelector('[data-act]').click()";
    browser.run(stale).await;
    let reason = browser.client.find(Locator::Css("#act-reason")).await.unwrap();
    reason.send_keys("twice").await.unwrap();
    browser.click("#act-confirm").await;
    browser.until_it_says("it is paused already").await;
    browser.run("document.getElementById('act-cancel').click()").await;
    let elsewhere = "const button = document.querySelector('[data-act]');
        button.dataset.fleet = 'chat'; button.click()";
    browser.run(elsewhere).await;
    let reason = browser.client.find(Locator::Css("#act-reason")).await.unwrap();
    reason.send_keys("it has gone").await.unwrap();
    browser.click("#act-confirm").await;
    browser.until_it_says("there is no fleet `chat`").await;
    let records = fleet.records().await;
    let words = records.iter().filter(|r| r["event"].as_str().unwrap().starts_with("operator."));
    assert_eq!(words.count(), 1, "what is refused is not recorded: {records:#?}");

    browser.without_javascript().await;
    browser.client.goto(&fleet.url("/")).await.unwrap();
    let text = browser.text().await;
    for part in ["Without JavaScript", "voice is paused", "v1", "SessionsFailing"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let button = browser.client.find(Locator::Css("button[data-act]")).await.unwrap();
    assert!(!button.is_displayed().await.unwrap(), "a button that does nothing");
}
