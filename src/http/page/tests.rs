//! What the page must never do, and what it must have.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::access::Access;
use super::super::testing::{Bench, bench, bench_for};
use crate::domain::role::{Role, Roles};
use crate::ports::view::{
    BreakerView, FleetView, PassageView, PointView, RollbackView, RolloutView, RuleView, StepView,
    VerdictView, VersionView, View,
};

/// A label from outside that would be a script, an attribute and an entity.
const EVIL: &str = "v2\"'><script>alert(1)</script>&amp;<img src=x onerror=alert(2)>";

fn fleet(name: &str, version: &str) -> FleetView {
    let point = |n: u32| PointView {
        at_seconds: f64::from(n),
        started: u64::from(n) * 10,
        failed: u64::from(n),
        baseline_log10: Some(f64::from(n) / 5.0),
        ceiling_log10: Some(f64::NEG_INFINITY),
        ..PointView::default()
    };
    let verdict = VerdictView {
        rule: format!("{version}/{version}"),
        verdict: version.to_owned(),
        threshold_log10: 3.3,
        ceiling: Some(0.05),
        course: Arc::new((1..20).map(point).collect()),
        ..VerdictView::default()
    };
    FleetView {
        fleet: name.to_owned(),
        mode: "automatic".to_owned(),
        last_good: Some("v1".to_owned()),
        good: vec!["v1".to_owned(), version.to_owned()],
        versions: vec![VersionView { version: version.to_owned(), ..VersionView::default() }],
        rollouts: vec![RolloutView {
            candidate: version.to_owned(),
            baseline: Some(version.to_owned()),
            verdicts: vec![verdict],
            ..RolloutView::default()
        }],
        holding: Some(version.to_owned()),
        denied: vec![version.to_owned()],
        ..FleetView::default()
    }
}

fn show(bench: &Bench, name: &str, version: &str) {
    let mut fleet = fleet(name, version);
    fleet.rollback = Some(version.to_owned());
    let rollback = RollbackView {
        id: version.to_owned(),
        fleet: name.to_owned(),
        from_version: version.to_owned(),
        version: version.to_owned(),
        state: "stuck".to_owned(),
        reason: version.to_owned(),
        steps: vec![StepView { state: "gated".to_owned(), at: version.to_owned(), seq: 4 }],
        ..RollbackView::default()
    };
    let rollout = PassageView {
        fleet: name.to_owned(),
        candidate: version.to_owned(),
        baseline: Some(version.to_owned()),
        ..PassageView::default()
    };
    let rule = RuleView {
        name: version.to_owned(),
        file: version.to_owned(),
        queries: BTreeMap::from([(version.to_owned(), version.to_owned())]),
        ..RuleView::default()
    };
    bench.view.send_replace(Arc::new(View {
        ready: true,
        fleets: BTreeMap::from([(fleet.fleet.clone(), fleet)]),
        rollbacks: vec![rollback],
        rollouts: vec![Arc::new(rollout)],
        rules: [rule].into(),
        last_seq: 3,
        ..View::default()
    }));
}

const PAGES: [&str; 5] = ["/", "/history", "/rules", "/ledger", "/ledger/2"];

#[tokio::test]
async fn what_comes_from_outside_is_never_markup() {
    let bench = bench();
    show(&bench, EVIL, EVIL);
    let own = format!("/fleets/{}", crate::http::paging::escaped(EVIL));
    let mut seen = 0;
    for path in PAGES.into_iter().chain([own.as_str(), "/fleets/<script>"]) {
        let answer = bench.get(&path.replace('<', "%3C").replace('>', "%3E")).await;
        assert!(answer.content_type.starts_with("text/html"), "{path}: {answer:?}");
        seen += answer.body.matches("&lt;script&gt;").count();
        for bad in ["<script>", "<img", " style=", " onclick=", " onerror=alert(2)>", "javascript:"]
        {
            assert!(!answer.body.contains(bad), "{path} has {bad}: {}", answer.body);
        }
    }
    assert!(seen > 20, "only {seen} labels were shown");
}

#[tokio::test]
async fn a_page_may_load_nothing_but_its_own_and_is_not_kept() {
    let bench = bench();
    show(&bench, "voice", "v2");
    for path in PAGES {
        let answer = bench.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.headers["cache-control"], "no-store");
        for link in answer.body.split("/assets/").skip(1) {
            let name = link.split('"').next().unwrap();
            let asset = bench.get(&format!("/assets/{name}")).await;
            assert_eq!(asset.status, 200, "{name}");
            assert!(asset.headers["cache-control"].to_str().unwrap().contains("immutable"));
        }
    }
    assert_eq!(bench.get("/assets/live.js").await.status, 404);
    for missing in ["/fleets/nope", "/ledger/4", "/ledger/x"] {
        assert_eq!(bench.get(missing).await.status, 404, "{missing}");
    }
}

#[tokio::test]
async fn only_who_may_act_is_offered_acts() {
    for (role, offered) in [(Role::Operate, true), (Role::Read, false)] {
        let bench = bench_for(Access::anonymous(Roles::NONE.and(role)));
        show(&bench, "voice", "v2");
        let page = bench.get("/").await.body;
        assert_eq!(page.contains("data-act=\"abandon\""), offered, "{role:?}");
        assert_eq!(page.contains("<dialog"), offered, "{role:?}");
    }
    let bench = bench_for(Access::anonymous(Roles::NONE));
    assert_ne!(bench.get("/").await.status, 200, "who may not read is not shown a page");
}

#[tokio::test]
async fn what_can_be_rolled_back_is_offered_and_to_where() {
    let bench = bench();
    let mut voice = fleet("voice", "v5");
    voice.good = ["v4", "v3", "v2", "v1", "v0"].map(str::to_owned).into();
    voice.denied = vec!["v7".to_owned(), "v8".to_owned()];
    let seen = |version: &str, workers| VersionView {
        version: version.to_owned(),
        workers,
        denied: true,
        ..VersionView::default()
    };
    voice.versions = vec![seen("v7", 2), seen("v8", 0)];
    let offered = async |voice: &FleetView| -> Vec<String> {
        let fleets = BTreeMap::from([("voice".to_owned(), voice.clone())]);
        bench.view.send_replace(Arc::new(View { fleets, ..View::default() }));
        let page = bench.get("/").await.body;
        let acts = page.split("data-act=\"").skip(1);
        acts.map(|act| act.split_once("\">").unwrap().1.split(" …").next().unwrap().to_owned())
            .collect()
    };
    let rollbacks =
        ["Roll back v5", "Roll back v7 again", "Roll back v4 to v3", "Roll back v4 to v2"];
    let all = offered(&voice).await;
    assert_eq!(all[..4], rollbacks, "{all:?}");
    assert_eq!(all[4..], ["Roll back v4 to v1", "Pause", "Allow v7", "Allow v8"]);
    voice.good.clear();
    assert_eq!(offered(&voice).await, ["Pause", "Allow v7", "Allow v8"], "there is no way back");
}

#[tokio::test]
async fn nobody_is_given_the_page_of_somebody_who_may_more() {
    let access = Access::anonymous(Roles::NONE.and(Role::Read));
    let bench =
        bench_for(access.with_token("operates-it-at-night", Roles::NONE.and(Role::Operate)));
    show(&bench, "voice", "v2");
    let operator = [("authorization", "Bearer operates-it-at-night")];
    for _ in 0..2 {
        assert!(!bench.get("/").await.body.contains("data-act"));
        assert!(bench.send("GET", "/", &operator, "").await.body.contains("data-act"));
    }
}

#[tokio::test]
async fn a_thousand_fleets_are_a_page_of_bounded_size() {
    let bench = bench();
    let fleets = (0..1000).map(|n| {
        let name = format!("voice:region-{n}");
        (name.clone(), fleet(&name, "2026.11.25-4f2c9a1"))
    });
    bench.view.send_replace(Arc::new(View { fleets: fleets.collect(), ..View::default() }));
    let page = bench.get("/").await.body;
    assert!(page.contains("id=\"further\"") && page.contains("more are in"), "{page}");
    assert!(page.contains("of 1000") || page.contains("1000 fleets"), "{page}");
    assert!(page.len() < 60_000, "{} bytes", page.len());
}

#[tokio::test]
async fn the_steps_of_a_rollback_and_the_evidence_are_told() {
    let bench = bench();
    show(&bench, "voice", "v2");
    let page = bench.get("/").await.body;
    for part in [
        "voice is stuck",
        "From v2 back to v2",
        "aria-current=\"step\"",
        "href=\"/ledger/4\"",
        "convicts at 2,000 to 1",
        "v2 failed 19 of 190 sessions (10.0%), likely between 6.5% and 15.1%",
    ] {
        assert!(page.contains(part), "no `{part}` in {page}");
    }
}

#[tokio::test]
async fn the_script_finds_a_place_for_whatever_comes() {
    let bench = bench();
    let places = async || -> Vec<String> {
        let page = bench.get("/").await.body;
        let before = page.split(" data-live").map(|part| part.rsplit("id=\"").next().unwrap());
        let mut ids: Vec<String> =
            before.map(|part| part.split('"').next().unwrap().to_owned()).collect();
        ids.pop();
        ids
    };
    let empty = places().await;
    assert!(empty.len() > 5, "{empty:?}");
    let fleets = (0..9).map(|n| (n.to_string(), fleet(&n.to_string(), "v2")));
    bench.view.send_replace(Arc::new(View {
        ready: true,
        fleets: fleets.collect(),
        breaker: BreakerView { open: true, regressed: 4, fleets: 9, ..BreakerView::default() },
        ..View::default()
    }));
    assert_eq!(places().await, empty);
    assert!(bench.get("/").await.body.contains("4 of 9 fleets regress at once"));
}
