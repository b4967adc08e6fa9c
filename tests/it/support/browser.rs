//! The real Chromium without a window, driven through `chromedriver`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use axum::http::Method;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::Url;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::fleet::processes_of;
use super::{free_address, signal, wait_for};

const PATIENCE: Duration = Duration::from_mins(1);

/// What it starts with: nothing that talks to anybody, and no GPU.
const ARGUMENTS: [&str; 12] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
];

/// One browser with one page. Killed by its process ids when dropped.
pub(crate) struct Browser {
    pub(crate) client: Client,
    driver: Child,
    profile: TempDir,
}

/// A command of Chromium's own protocol.
#[derive(Debug)]
struct Own(&'static str, Value);

impl WebDriverCompatibleCommand for Own {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, <Url as FromStr>::Err> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        let body = json!({ "cmd": self.0, "params": self.1 });
        (Method::POST, Some(body.to_string()))
    }
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let address = free_address();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={}", address.port()))
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let client = wait_for("Chromium", PATIENCE, || connect(address, profile.path())).await;
        Self { client, driver, profile }
    }

    async fn own(&self, command: &'static str, parameters: Value) {
        self.client.issue_cmd(Own(command, parameters)).await.unwrap();
    }

    /// A window of this size, in light or dark.
    pub(crate) async fn look(&self, width: u32, height: u32, scheme: &str) {
        let mobile = width < 600;
        self.own(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile }),
        )
        .await;
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]);
        self.own("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// As if it had never been here.
    pub(crate) async fn forget(&self) {
        self.own("Network.clearBrowserCache", json!({})).await;
    }

    pub(crate) async fn without_javascript(&self) {
        self.own("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
    }

    pub(crate) async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// All text that is shown.
    pub(crate) async fn text(&self) -> String {
        self.client.find(Locator::Css("body")).await.unwrap().text().await.unwrap()
    }

    /// Waits until the text of the page says something.
    pub(crate) async fn until_it_says(&self, what: &str) {
        wait_for(what, 2 * PATIENCE, || async { self.text().await.contains(what).then_some(()) })
            .await;
    }

    /// Clicks the first element of a selector, once it is there. What the page takes away between
    /// the finding and the click is looked for again.
    pub(crate) async fn click(&self, css: &str) {
        wait_for(css, PATIENCE, || async {
            let found = self.client.find(Locator::Css(css)).await.ok()?;
            found.click().await.ok()
        })
        .await;
    }

    /// What axe-core finds wrong: rule and place.
    pub(crate) async fn violations(&self) -> Vec<String> {
        let axe = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/page/node_modules/axe-core/axe.min.js");
        let axe = std::fs::read_to_string(axe);
        assert!(axe.is_ok(), "axe-core is not installed: run the tests by `make test`");
        self.run(&axe.unwrap()).await;
        let script = "const done = arguments[arguments.length - 1];
            axe.run({ resultTypes: ['violations'] }).then((result) => done(
              result.violations.flatMap((violation) => violation.nodes.map(
                (node) => `${violation.id}: ${node.html} ${node.failureSummary}`))));";
        let found = self.client.execute_async(script, Vec::new()).await.unwrap();
        serde_json::from_value(found).unwrap()
    }

    /// The whole page as a PNG, not only what fits into the window.
    pub(crate) async fn screenshot(&self, width: u32, height_max: u64, scheme: &str) -> Vec<u8> {
        self.look(width, 600, scheme).await;
        let height = self.run("return document.documentElement.scrollHeight").await;
        let height = height.as_u64().unwrap().min(height_max);
        self.look(width, u32::try_from(height).unwrap(), scheme).await;
        self.client.screenshot().await.unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.driver.kill().unwrap();
        self.driver.wait().unwrap();
        for pid in processes_of(self.profile.path()) {
            signal(pid, "KILL");
        }
    }
}

async fn connect(driver: SocketAddr, profile: &Path) -> Option<Client> {
    let data = format!("--user-data-dir={}", profile.join("data").display());
    let arguments = ARGUMENTS.into_iter().chain([data.as_str()]).collect::<Vec<_>>();
    let options = json!({ "args": arguments, "binary": "/usr/bin/chromium" });
    let capabilities = Map::from_iter([("goog:chromeOptions".to_owned(), options)]);
    let mut builder = ClientBuilder::new(HttpConnector::new());
    builder.capabilities(capabilities);
    builder.connect(&format!("http://{driver}")).await.ok()
}
