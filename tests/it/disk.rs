//! A disk that is full, or may not be written: rollbackd acts on nothing, stays up, says so, and
//! goes on once it can.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::support::fleet::rollbackd;
use super::support::prometheus::Prometheus;
use super::support::site::Site;
use super::support::stays;

/// A small file system of its own, for who may mount one.
struct Disk {
    directory: TempDir,
}

impl Disk {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let words = ["-t", "tmpfs", "-o", "size=512k", "rollbackd-test"];
        let mounted = Command::new("mount").args(words).arg(directory.path()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self { directory });
        }
        eprintln!("not tried: only root may mount a file system");
        None
    }

    fn ledger(&self) -> PathBuf {
        self.directory.path().join("rollbackd.db")
    }

    fn fill(&self) {
        let mut ballast = File::create(self.directory.path().join("ballast")).unwrap();
        while ballast.write_all(&[1; 512]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.directory.path().join("ballast")).unwrap();
    }

    fn remount(&self, how: &str) {
        let words = ["-o", &format!("remount,{how}")];
        let done = Command::new("mount").args(words).arg(self.directory.path()).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(self.directory.path()).status();
        assert!(done.unwrap().success() || std::thread::panicking());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_nothing_is_done_until_there_is_room() {
    let Some(disk) = Disk::mount() else { return };
    let prometheus = Prometheus::start().await;
    let mut site = Site::prepare_on("full", &prometheus.url, disk.ledger()).await;
    prometheus.scrape(&site.targets).await;
    site.serve_on_v1().await;

    disk.fill();
    site.deploy("bad");
    let full = |why: &serde_json::Value| why.as_str().is_some_and(|why| why.contains("full"));
    site.until("the full disk to be told of", |fleet| full(&fleet["holding"])).await;
    let records = site.records(0).await.len();
    stays("up, and idle", Duration::from_secs(5), async || {
        site.get("-/healthy").await.is_some()
            && site.workers("bad") == 2
            && site.records(0).await.len() == records
    })
    .await;
    assert!(site.log().contains("not acting: the ledger takes no record"), "{}", site.log());

    disk.make_room();
    site.until("the end of the rollback", |fleet| {
        fleet["rollback"].is_null() && fleet["denied"][0] == "bad"
    })
    .await;
    assert!(site.log().contains("the ledger takes records again"), "{}", site.log());
    assert_eq!(site.callers().turned_away, 0);
    let audit = site.audit();
    assert!(audit.status.success(), "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_disk_that_cannot_be_written_nothing_is_begun_and_the_ledger_is_served() {
    let Some(disk) = Disk::mount() else { return };
    let prometheus = Prometheus::start().await;
    let mut site = Site::prepare_on("readonly", &prometheus.url, disk.ledger()).await;
    prometheus.scrape(&site.targets).await;
    site.serve_on_v1().await;
    site.stop_controller();
    let records = site.records(0).await.len();

    disk.remount("ro");
    let refused = rollbackd(&site.path(""), &["run", "--config", "rollbackd.yml"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Read-only"), "{refused:?}");
    assert!(site.audit().status.success());
    site.start_controller_with(&["--read-only"]);
    let served = super::support::wait_for("the records", super::support::site::PATIENCE, || {
        site.get("api/v1/ledger")
    })
    .await;
    assert_eq!(served.lines().count(), records);
    site.kill_controller();
    disk.remount("rw");
}
