//! What the process benches share: a directory with a config, the real binary, and scripted HTTP.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(super) const BINARY: &str = env!("CARGO_BIN_EXE_rollbackd");

/// A port of the loopback address that nobody listens on.
pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Answers every HTTP request with what `body` says, until the process ends.
pub(super) fn serve(body: impl Fn() -> String + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 16_384];
            // A request in two packets would be answered early; nobody here minds.
            let _length = stream.read(&mut request).unwrap_or(0);
            let body = body();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            // The other side may have gone.
            let _written = stream.write_all((head + &body).as_bytes());
        }
    });
    port
}

/// A Prometheus with what `past` writes as `OpenMetrics`; its directory and port.
pub(super) fn prometheus(
    config: &str,
    past: impl FnOnce(File) -> std::io::Result<()>,
) -> (Process, tempfile::TempDir, u16) {
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let path = directory.path();
    past(File::create(path.join("history")).unwrap()).unwrap();
    std::fs::write(path.join("prometheus.yml"), config).unwrap();
    let quiet = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.current_dir(path).args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap_or_else(|error| panic!("{program} does not start: {error}"))
    };
    let blocks = ["tsdb", "create-blocks-from", "openmetrics", "history", "data"];
    assert!(quiet("promtool", &blocks).wait().unwrap().success(), "promtool makes no blocks");
    let address = format!("--web.listen-address=127.0.0.1:{port}");
    let options = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", &address];
    let process = Process(quiet("prometheus", &options));
    wait("Prometheus", Duration::from_millis(100), || {
        http(port, "GET", "/-/ready", "").filter(|(code, _)| *code == 200)
    });
    (process, directory, port)
}

/// The same, of which one target is scraped every second.
pub(super) fn scraping(
    target: u16,
    past: impl FnOnce(File) -> std::io::Result<()>,
) -> (Process, tempfile::TempDir, u16) {
    let config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\nscrape_configs:\n  \
         - {{ job_name: voice, static_configs: [{{ targets: ['127.0.0.1:{target}'] }}] }}\n"
    );
    prometheus(&config, past)
}

/// One request; the status line's code and the body.
pub(super) fn http(port: u16, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let code = answer.split(' ').nth(1)?.parse().ok()?;
    Some((code, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

/// Waits until `fact` gives something.
pub(super) fn wait<T>(what: &str, pause: Duration, mut fact: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = fact() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(90), "waited in vain for {what}");
        std::thread::sleep(pause);
    }
}

/// A child that ends with the bench.
pub(super) struct Process(pub(super) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// rollbackd's directory and port.
pub(super) struct Rollbackd {
    pub(super) directory: tempfile::TempDir,
    pub(super) port: u16,
}

impl Rollbackd {
    /// Writes config, rules and key.
    pub(super) fn prepare(prometheus: u16, fleets: &str, rules: &str) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let path = directory.path();
        let config = format!(
            "listen: 127.0.0.1:{port}\nprometheus: {{ url: 'http://127.0.0.1:{prometheus}' }}\n\
             rule_files: [rules.yml]\nledger: sqlite:rollbackd.db\n\
             signing_key_file: rollbackd.key\nfleets:\n{fleets}"
        );
        std::fs::write(path.join("rollbackd.yml"), config).unwrap();
        std::fs::write(path.join("rules.yml"), rules).unwrap();
        let done = Command::new(BINARY)
            .arg("keygen")
            .arg(path.join("rollbackd.key"))
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(done.success());
        Self { directory, port }
    }

    /// Where a file of its is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts it, and returns once it is ready, with how long that took.
    pub(super) fn start(&self) -> (Process, Duration) {
        self.start_by(&mut Command::new(BINARY))
    }

    /// The same, with one core for all its threads.
    pub(super) fn start_on_one_core(&self) -> (Process, Duration) {
        self.start_by(Command::new("taskset").args(["-c", "0", BINARY]))
    }

    fn start_by(&self, command: &mut Command) -> (Process, Duration) {
        let log = File::create(self.path("log")).unwrap();
        let began = Instant::now();
        let child = command
            .args(["run", "--config"])
            .arg(self.path("rollbackd.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let process = Process(child);
        wait("rollbackd to be ready", Duration::from_millis(1), || {
            http(self.port, "GET", "/-/ready", "").filter(|(code, _)| *code == 200)
        });
        (process, began.elapsed())
    }
}

/// Resident memory of a process in MB.
pub(super) fn resident_mb(pid: u32) -> f64 {
    memory_mb(pid, "VmRSS:").unwrap()
}

/// A line of a process's status in MB; `None` when it is gone.
pub(super) fn memory_mb(pid: u32, line: &str) -> Option<f64> {
    let status = Path::new("/proc").join(pid.to_string()).join("status");
    let status = std::fs::read_to_string(status).ok()?;
    let line = status.lines().find(|text| text.starts_with(line))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}
