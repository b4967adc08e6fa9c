//! TLS, client certificates and users, through the real binary and curl-like clients.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;
use tempfile::TempDir;

use super::support::fleet::{ROLLBACKD, rollbackd};
use super::support::{free_address, wait_for};

const PATIENCE: Duration = Duration::from_mins(1);

/// An authority whose certificates lie in files.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new(directory: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let file = directory.join(format!("{name}.pem"));
        fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    /// Writes `name.crt` and `name.key`, each at once.
    fn issue(&self, directory: &Path, name: &str, san: &str) {
        let params = CertificateParams::new(vec![san.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        for (end, text) in [("key", key.serialize_pem()), ("crt", cert)] {
            let (new, file) = (directory.join("new"), directory.join(format!("{name}.{end}")));
            fs::write(&new, text).unwrap();
            fs::rename(new, file).unwrap();
        }
    }
}

/// A rollbackd that watches nothing there is: it is about who may speak to it.
struct Served {
    directory: TempDir,
    url: String,
    child: Child,
}

impl Served {
    fn start(directory: TempDir, web: &str, auth: &serde_json::Value) -> Self {
        let address = free_address();
        let path = directory.path();
        let config = json!({
            "listen": address,
            "auth": auth,
            "web_config_file": "web.yml",
            "prometheus": { "url": "http://127.0.0.1:1", "retries": 0 },
            "rule_files": ["rules.yml"],
            "ledger": "sqlite:rollbackd.db",
            "signing_key_file": "rollbackd.key",
            "fleets": [{ "name": "voice", "workers": "up", "drain": { "manifest": {} } }],
        });
        let rule = json!({ "name": "Failing", "started": "a_total", "failed": "b_total", "ceiling": "5%" });
        let group =
            json!({ "name": "g", "fleet": "voice", "interval": "5s", "regressions": [rule] });
        fs::write(path.join("rollbackd.yml"), config.to_string()).unwrap();
        fs::write(path.join("rules.yml"), json!({ "groups": [group] }).to_string()).unwrap();
        fs::write(path.join("web.yml"), web).unwrap();
        assert!(rollbackd(path, &["keygen", "rollbackd.key"]).status.success());
        let checked = rollbackd(path, &["check"]);
        assert!(checked.status.success(), "{checked:?}");
        let child = Command::new(ROLLBACKD)
            .current_dir(path)
            .args(["run"])
            .env("ROLLBACKD_LOG", "debug")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stderr(fs::File::create(path.join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { url: format!("https://localhost:{}", address.port()), directory, child }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path().join("log")).unwrap()
    }

    /// The status curl gets, or the code it ends with.
    fn curl(&self, path: &str, options: &[&str]) -> Result<u16, Option<i32>> {
        let asked = Command::new("curl")
            .current_dir(self.path())
            .args(["--silent", "--output", "answer", "--dump-header", "headers"])
            .args(["--noproxy", "*", "--max-time", "20", "--write-out", "%{http_code}"])
            .args(options)
            .arg(format!("{}{path}", self.url))
            .output()
            .unwrap();
        let status = String::from_utf8(asked.stdout).unwrap();
        if asked.status.success() { Ok(status.parse().unwrap()) } else { Err(asked.status.code()) }
    }

    async fn until(&self, what: &str, so: impl Fn() -> bool) {
        wait_for(what, PATIENCE, || async { so().then_some(()) }).await;
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("rollbackd said:\n{}", self.log());
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_asked_for_shown_and_followed_when_they_change() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (ours, next) = (Authority::new(path, "ours"), Authority::new(path, "next"));
    ours.issue(path, "server", "localhost");
    ours.issue(path, "grafana", "grafana.example");
    ours.issue(path, "other", "other.example");
    next.issue(path, "stranger", "grafana.example");
    let web = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  \
               client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ours.pem\n  \
               client_allowed_sans: [grafana.example]\n";
    let served = Served::start(directory, web, &json!({}));
    let grafana = ["--cacert", "ours.pem", "--cert", "grafana.crt", "--key", "grafana.key"];
    served.until("an answer", || served.curl("/-/healthy", &grafana) == Ok(200)).await;

    assert_eq!(served.curl("/-/healthy", &grafana[2..]), Err(Some(60)), "not trusted");
    let mut plain = grafana.to_vec();
    plain.extend(["--http2", "--tlsv1.3"]);
    assert_eq!(served.curl("/-/healthy", &plain), Ok(200), "HTTP/1.1 is agreed on");
    for (name, own) in [("none", None), ("its name", Some("other")), ("who", Some("stranger"))] {
        let files = own.map(|own| [format!("{own}.crt"), format!("{own}.key")]);
        let mut options = grafana[..2].to_vec();
        if let Some([cert, key]) = &files {
            options.extend(["--cert", cert, "--key", key]);
        }
        let refused = served.curl("/-/healthy", &options);
        assert!(refused.is_err(), "{name}: {refused:?}");
    }
    let port = served.url.rsplit(':').next().unwrap();
    let plain = Command::new("curl")
        .args(["--silent", "--noproxy", "*", &format!("http://localhost:{port}/-/healthy")])
        .output()
        .unwrap();
    assert!(!plain.status.success(), "{plain:?}");
    assert_eq!(served.curl("/metrics", &grafana), Ok(200));
    let metrics = fs::read_to_string(served.path().join("answer")).unwrap();
    let refused = metrics
        .lines()
        .find_map(|line| line.strip_prefix("rollbackd_requests_refused_total{reason=\"tls\"} "));
    assert!(refused.unwrap().parse::<u32>().unwrap() >= 4, "{metrics}");

    // The command line has the same certificates.
    let cli = |cert: &str| {
        let key = cert.replace(".crt", ".key");
        let words = ["status", "--url", &served.url, "--ca-file", "ours.pem"];
        rollbackd(served.path(), &[&words[..], &["--cert-file", cert, "--key-file", &key]].concat())
    };
    assert_eq!(cli("grafana.crt").status.code(), Some(0), "{:?}", cli("grafana.crt"));
    assert_eq!(cli("other.crt").status.code(), Some(2));

    // A certificate from another authority, while it runs; what is broken is not followed.
    let after = ["--cacert", "next.pem", "--cert", "grafana.crt", "--key", "grafana.key"];
    next.issue(served.path(), "server", "localhost");
    served.until("the next certificate", || served.curl("/-/healthy", &after) == Ok(200)).await;
    fs::write(served.path().join("server.crt"), "no certificate").unwrap();
    served.until("the complaint", || served.log().contains("is not followed")).await;
    assert_eq!(served.curl("/-/healthy", &after), Ok(200), "the last good one stays");
    assert!(next.file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn users_have_their_roles_and_answers_the_headers_that_were_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    Authority::new(path, "ours").issue(path, "server", "localhost");
    let [ada, grafana] = ["ada's own", "grafana's"].map(|p| bcrypt::hash(p, 4).unwrap());
    fs::write(path.join("password"), "ada's own\n").unwrap();
    let web = |more: &str| {
        format!(
            "tls_server_config: {{cert_file: server.crt, key_file: server.key}}\n\
             http_server_config: {{headers: {{X-Frame-Options: deny}}}}\n\
             basic_auth_users:\n  ada: {ada}\n  grafana: {grafana}\n{more}"
        )
    };
    let auth = json!({ "operate": { "users": ["ada"] } });
    let served = Served::start(directory, &web(""), &auth);
    let trust = ["--cacert", "ours.pem"];
    served.until("an answer", || served.curl("/-/healthy", &trust) == Ok(200)).await;
    let headers = fs::read_to_string(served.path().join("headers")).unwrap();
    assert!(headers.to_lowercase().contains("x-frame-options: deny"), "{headers}");

    let reload = ["--request", "POST"];
    #[rustfmt::skip]
    let cases = [
        ("nobody looks",         "/api/v1/fleets", None,                     &[][..],     401),
        ("grafana looks",        "/api/v1/fleets", Some("grafana:grafana's"), &[],        200),
        ("with a wrong word",    "/api/v1/fleets", Some("grafana:ada's own"), &[],        401),
        ("somebody",             "/api/v1/fleets", Some("eve:grafana's"),     &[],        401),
        ("grafana reloads",      "/-/reload",      Some("grafana:grafana's"), &reload,    403),
        ("ada reloads",          "/-/reload",      Some("ada:ada's own"),     &reload,    200),
        ("from a foreign page",  "/-/reload",      Some("ada:ada's own"),
            &["--request", "POST", "--header", "Origin: https://evil.example"],           403),
    ];
    for (name, path, user, options, want) in cases {
        let mut all = trust.to_vec();
        all.extend(user.iter().flat_map(|user| ["--user", user]));
        all.extend(options);
        assert_eq!(served.curl(path, &all), Ok(want), "{name}");
    }
    let words = ["--url", &served.url, "--ca-file", "ours.pem", "--user", "ada"];
    let words = [&words[..], &["--password-file", "password"]].concat();
    let status = rollbackd(served.path(), &[&["status"], &words[..]].concat());
    assert_eq!(status.status.code(), Some(0), "{status:?}");

    // A user who comes later needs no restart.
    let eve = bcrypt::hash("eve's", 4).unwrap();
    fs::write(served.path().join("web.yml"), web(&format!("  eve: {eve}\n"))).unwrap();
    let as_eve = [trust[0], trust[1], "--user", "eve:eve's"];
    served.until("eve", || served.curl("/api/v1/fleets", &as_eve) == Ok(200)).await;
    let log = served.log();
    assert!(!log.contains("$2") && !log.contains("'s own"), "{log}");
}
