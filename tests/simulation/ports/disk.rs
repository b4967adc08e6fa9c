//! The ledger: slow, full, or unsure of what it has written.

use std::time::Duration;

use rollbackd::ledger::chain::{FIRST_PREVIOUS, seal};
use rollbackd::ledger::record::{Draft, Record};
use rollbackd::ports::ledger::{Ledger, LedgerError};
use rollbackd::signing::Signer;
use tokio::time::sleep;

use crate::rules;
use crate::sim::{Shared, point};

pub(crate) struct Disk {
    pub(crate) shared: Shared,
    pub(crate) signer: Signer,
}

impl Disk {
    fn failed<T>(reason: &str) -> Result<T, LedgerError> {
        Err(LedgerError::Storage { path: "simulated".to_owned(), reason: reason.to_owned() })
    }

    fn write(&self, last_seq: u64, drafts: Vec<Draft>) -> Result<Vec<Record>, LedgerError> {
        let mut sim = self.shared.lock().unwrap();
        let found = sim.book.records.len() as u64;
        if found != last_seq {
            return Err(LedgerError::Conflict { expected: last_seq, found });
        }
        let mut written = Vec::new();
        for (draft, seq) in drafts.into_iter().zip(last_seq + 1..) {
            let last = sim.book.records.last();
            let previous = last.map_or(FIRST_PREVIOUS, |last| &last.hash);
            let record = seal(draft, seq, previous, &self.signer).unwrap();
            sim.say(|| {
                let about = |field| record.extra.get(field).and_then(|v| v.as_str()).unwrap_or("");
                format!(
                    "record {seq} {} {} {} {}",
                    about("fleet"),
                    record.event,
                    record.version.as_deref().unwrap_or("-"),
                    about("reason"),
                )
            });
            rules::take_record(&mut sim, &record);
            sim.recorded_at = sim.second;
            sim.unsure = true;
            written.push(record);
        }
        Ok(written)
    }
}

impl Ledger for Disk {
    async fn append(&self, last_seq: u64, drafts: Vec<Draft>) -> Result<Vec<Record>, LedgerError> {
        point(&self.shared, "before a record").await;
        let (slow, full, unsure) = {
            let mut sim = self.shared.lock().unwrap();
            let slow = sim.fault(20);
            sim.writing = true;
            (slow, sim.weather.disk_full || sim.fault(20), sim.fault(15))
        };
        if slow {
            sleep(Duration::from_secs(4)).await;
        }
        if full {
            self.shared.lock().unwrap().writing = false;
            return Self::failed("disk full");
        }
        let written = self.write(last_seq, drafts)?;
        point(&self.shared, "after a record").await;
        let mut sim = self.shared.lock().unwrap();
        if unsure {
            // It is on disk, and the caller hears that it is not.
            sim.say(|| "fsync fails after the write".to_owned());
            return Self::failed("fsync failed");
        }
        (sim.unsure, sim.writing) = (false, false);
        Ok(written)
    }

    async fn read(&self, after: u64, _: u32) -> Result<Vec<Record>, LedgerError> {
        let sim = self.shared.lock().unwrap();
        Ok(sim.book.records.iter().filter(|record| record.seq > after).cloned().collect())
    }
}
