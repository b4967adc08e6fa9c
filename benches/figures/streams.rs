//! Two hundred browsers that follow what happens and load the page again each time, on one core.
//!
//! Each stream is read by a thread of its own, which then loads `/` as the page's script does.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use super::Figure;
use super::scripted::{Rollbackd, http, scraping, serve, wait};

const BROWSERS: usize = 200;
const ACTS: usize = 10;
/// Between two acts.
const PAUSE: Duration = Duration::from_secs(2);

const FLEETS: &str = "  - { name: voice, workers: worker_info, drain: { manifest: {} } }\n";
const RULES: &str = r"
groups:
  - name: sessions
    fleet: voice
    interval: 1s
    regressions:
      - { name: Failing, started: started_total, failed: failed_total, ceiling: 5% }
";

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

const WORKER: &str = r#"{deployment_version="v1",worker_id="w1"}"#;

/// One worker of one version, and nothing that happens.
fn exposition() -> String {
    format!("worker_info{WORKER} 1\nstarted_total{WORKER} 40\nfailed_total{WORKER} 0\n")
}

/// Follows for ever: tells how late each record came, and loads the page when something changed,
/// over one more connection that is kept, as browsers do.
fn browse(port: u16, late_ms: &Sender<i64>) {
    let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut stream = connect();
    stream
        .write_all(
            b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n",
        )
        .unwrap();
    let mut page = BufReader::new(connect());
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        match data["timestamp"].as_str() {
            Some(at) => {
                let at: jiff::Timestamp = at.parse().unwrap();
                // The bench may be over.
                let _over = late_ms.send(now_ms() - at.as_millisecond());
            }
            None if load(&mut page).is_none() => return,
            None => {}
        }
    }
}

/// One page over a connection that is kept; `None` when rollbackd has gone.
fn load(page: &mut BufReader<TcpStream>) -> Option<()> {
    page.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        page.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        }
        if line.is_empty() {
            break;
        }
    }
    assert!(length > 1000, "a page of {length} bytes");
    page.read_exact(&mut vec![0; length]).ok()
}

fn evaluations(port: u16) -> u64 {
    let (_, text) = http(port, "GET", "/metrics", "").unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("rollbackd_evaluation_duration_seconds_count "));
    line.map_or(0, |count| count.trim().parse().unwrap())
}

pub(super) fn figures() -> Vec<Figure> {
    let (_prometheus, _data, port) = scraping(serve(exposition), |mut file| {
        let at = now_ms() / 1000 - 60;
        writeln!(file, "# TYPE started counter\nstarted_total{WORKER} 40 {at}\n# EOF")
    });
    let at = Rollbackd::prepare(port, FLEETS, RULES);
    let (_rollbackd, _) = at.start_on_one_core();
    wait("v1 to be the last good version", Duration::from_millis(100), || {
        let (_, body) = http(at.port, "GET", "/api/v1/fleets/voice", "")?;
        body.contains(r#""last_good":"v1""#).then_some(())
    });
    let (late_ms, lateness) = channel();
    for _ in 0..BROWSERS {
        let (port, late_ms) = (at.port, late_ms.clone());
        std::thread::spawn(move || browse(port, &late_ms));
    }
    std::thread::sleep(Duration::from_secs(2));
    let (before, began) = (evaluations(at.port), Instant::now());
    let mut worst = 0;
    for act in 0..ACTS {
        let name = if act % 2 == 0 { "pause" } else { "resume" };
        let path = format!("/api/v1/fleets/voice/{name}");
        let (code, said) = http(at.port, "POST", &path, r#"{"reason": "a bench"}"#).unwrap();
        assert_eq!(code, 200, "{said}");
        for _ in 0..BROWSERS {
            worst = worst.max(lateness.recv_timeout(Duration::from_secs(30)).unwrap());
        }
        std::thread::sleep(PAUSE);
    }
    // To the whole second: each interval has one evaluation, shortly after its beginning.
    let seconds = began.elapsed().as_secs() + 1;
    std::thread::sleep(Duration::from_secs(seconds).saturating_sub(began.elapsed()));
    let seen = evaluations(at.port) - before;
    vec![
        Figure {
            what: "a record to its event at the last of 200 browsers, all on one core (worst of 10)",
            measured: format!("{worst} ms"),
            goal: "200 ms",
        },
        Figure {
            what: "evaluations meanwhile, at an interval of 1 s",
            measured: format!("{seen} in {seconds} s"),
            goal: "one a second",
        },
    ]
}
