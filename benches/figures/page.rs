//! The page in a real Chromium: what it weighs, how soon it is painted, and how soon it shows what
//! was recorded.

use std::time::Duration;

use serde_json::json;

use super::support::browser::Browser;
use super::support::synthetic::{Setup, Synthetic};
use super::support::{client, wait_for};
use super::{Figure, median};

const PAINTS: usize = 9;
const ACTS: usize = 10;

/// All bytes that came, and when the first content was painted, in milliseconds.
const LOADED: &str = "
    const pages = performance.getEntriesByType('navigation');
    const parts = performance.getEntriesByType('resource').filter(
      (part) => !part.name.includes('/api/'));
    const paint = performance.getEntriesByName('first-contentful-paint')[0]?.startTime;
    return [[...pages, ...parts].reduce((sum, part) => sum + part.transferSize, 0), paint];";

/// Notes when each record was first on the page.
const WATCH: &str = "
    window.shown = {};
    const content = document.getElementById('content');
    const note = () => { shown[content.dataset.seq] ??= Date.now(); };
    note();
    new MutationObserver(note).observe(content, { attributes: true });";

/// Loads the page as somebody does who has never seen it.
async fn load(fleet: &Synthetic, browser: &Browser) -> (u64, Duration) {
    browser.forget().await;
    browser.client.goto(&fleet.url("/")).await.unwrap();
    let loaded = wait_for("the first paint", Duration::from_secs(30), || async {
        let loaded = browser.run(LOADED).await;
        Some((loaded[0].as_u64()?, Duration::from_secs_f64(loaded[1].as_f64()? / 1e3)))
    });
    loaded.await
}

/// Says something to rollbackd, and how long after its record the page shows it, in milliseconds.
async fn act(fleet: &Synthetic, browser: &Browser, name: &str) -> i64 {
    let path = format!("/api/v1/fleets/voice/{name}");
    let word = json!({ "reason": "a bench" }).to_string();
    let said = client().post(fleet.url(&path)).header("content-type", "application/json");
    said.body(word).send().await.unwrap().error_for_status().unwrap();
    let record = fleet.records().await.pop().unwrap();
    let at: jiff::Timestamp = record["timestamp"].as_str().unwrap().parse().unwrap();
    let shown = wait_for("the record on the page", Duration::from_secs(30), || async {
        browser.run("return window.shown").await[record["seq"].to_string()].as_i64()
    });
    shown.await - at.as_millisecond()
}

async fn measure() -> Vec<Figure> {
    let fleet = Synthetic::serving_on_v1(Setup::default()).await;
    let browser = Browser::start().await;
    browser.look(1280, 900, "light").await;
    let (mut weight, mut paints) = (0, Vec::new());
    for _ in 0..PAINTS {
        let (bytes, paint) = load(&fleet, &browser).await;
        weight = weight.max(bytes);
        paints.push(paint);
    }
    browser.until_it_says("live").await;
    browser.run(WATCH).await;
    let mut late_ms = Vec::new();
    for n in 0..ACTS {
        late_ms.push(act(&fleet, &browser, if n % 2 == 0 { "pause" } else { "resume" }).await);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    vec![
        Figure {
            what: "the page with its style, script and icon",
            measured: format!("{:.0} kB", weight as f64 / 1e3),
            goal: "60 kB",
        },
        Figure {
            what: "first paint of the page in Chromium, on loopback (median of 9)",
            measured: super::millis(median(paints)),
            goal: "100 ms",
        },
        Figure {
            what: "a record to its being on the page in Chromium (worst of 10)",
            measured: format!("{} ms", late_ms.into_iter().max().unwrap_or_default()),
            goal: "200 ms",
        },
    ]
}

pub(super) fn figures() -> Vec<Figure> {
    tokio::runtime::Runtime::new().unwrap().block_on(measure())
}
