//! The process itself: how soon it is ready with a long ledger, and how much memory it idles with.

use std::time::Duration;

use rollbackd::adapters::ledger::SqliteLedger;
use rollbackd::domain::history::{Happening, Rollout};
use rollbackd::domain::time::Timestamp;
use rollbackd::ledger::event;
use rollbackd::ports::ledger::Ledger;
use rollbackd::signing::Signer;

use super::scripted::{Rollbackd, resident_mb, serve};
use super::{Figure, median, millis};

const RECORDS: u64 = 10_000;
const STARTS: usize = 9;

const FLEETS: &str = "  - { name: voice, workers: worker_info, drain: { manifest: {} } }\n";
const RULES: &str = r"
groups:
  - name: sessions
    fleet: voice
    regressions:
      - { name: Failing, started: started_total, failed: failed_total, ceiling: 5% }
";

/// As many rollouts as give `RECORDS` records, each promoted.
async fn write_ledger(at: &Rollbackd) {
    let signer = Signer::load(&at.path("rollbackd.key")).unwrap();
    let ledger = SqliteLedger::open(&at.path("rollbackd.db"), signer).await.unwrap();
    let mut seq = 0;
    while seq < RECORDS {
        let mut drafts = Vec::new();
        for n in seq / 2..seq / 2 + 250 {
            let version = format!("v{n}").parse::<rollbackd::domain::version::Version>().unwrap();
            let at = Timestamp::from_millis(1_700_000_000_000 + i64::try_from(n).unwrap() * 60_000);
            let rollout = Rollout {
                candidate: version.clone(),
                baseline: None,
                started_at: at,
                observe_until: at + Duration::from_mins(1),
                baseline_workers: 2,
            };
            for happening in
                [Happening::RolloutStarted { rollout }, Happening::Promoted { version }]
            {
                drafts.push(event::to_draft("voice", at, &happening, None));
            }
        }
        let count = drafts.len() as u64;
        ledger.append(seq, drafts).await.unwrap();
        seq += count;
    }
    ledger.close().await;
}

pub(super) fn figures() -> Vec<Figure> {
    let nothing = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
    let prometheus = serve(|| nothing.to_owned());
    let [new, old] = [(); 2].map(|()| Rollbackd::prepare(prometheus, FLEETS, RULES));
    let idle = |at: &Rollbackd| {
        let (process, _) = at.start();
        std::thread::sleep(Duration::from_secs(5));
        format!("{:.0} MB", resident_mb(process.0.id()))
    };
    tokio::runtime::Runtime::new().unwrap().block_on(write_ledger(&old));
    let started = median((0..STARTS).map(|_| old.start().1).collect());
    vec![
        Figure {
            what: "start to ready with a ledger of 10,000 records",
            measured: millis(started),
            goal: "200 ms",
        },
        Figure { what: "idle memory", measured: idle(&new), goal: "30 MB" },
        Figure {
            what: "idle memory with a ledger of 10,000 records",
            measured: idle(&old),
            goal: "30 MB",
        },
    ]
}
