//! A gauge that is 1 for the one state that something of a version is in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::GaugeVec;

/// One series for each fleet and version: labels `fleet`, `version`, `state`.
#[derive(Clone, Debug)]
pub(super) struct States {
    pub(super) gauges: GaugeVec,
    /// The state shown, by fleet and version: to find the series that goes without going through
    /// all of them.
    shown: Arc<Mutex<Shown>>,
}

type Shown = HashMap<String, HashMap<String, String>>;

impl States {
    pub(super) fn new(gauges: GaugeVec) -> Self {
        Self { gauges, shown: Arc::default() }
    }

    /// Shows a state; the series of the state before goes.
    pub(super) fn set(&self, fleet: &str, version: &str, state: &str) {
        let mut shown = self.shown();
        let of_fleet = shown.entry(fleet.to_owned()).or_default();
        let before = of_fleet.insert(version.to_owned(), state.to_owned());
        drop(shown);
        if let Some(before) = before.filter(|before| before != state) {
            self.remove(fleet, version, &before);
        }
        super::with(&self.gauges, &[fleet, version, state], |gauge| gauge.set(1.0));
    }

    /// Shows nothing of those of a fleet's versions that are `gone`, and says which those were.
    pub(super) fn forget(&self, fleet: &str, gone: impl Fn(&str) -> bool) -> Vec<String> {
        let mut shown = self.shown();
        let Some(of_fleet) = shown.get_mut(fleet) else { return Vec::new() };
        let forgotten: Vec<_> = of_fleet.extract_if(|version, _| gone(version)).collect();
        if of_fleet.is_empty() {
            shown.remove(fleet);
        }
        drop(shown);
        let remove = |(version, state): (String, String)| {
            self.remove(fleet, &version, &state);
            version
        };
        forgotten.into_iter().map(remove).collect()
    }

    fn remove(&self, fleet: &str, version: &str, state: &str) {
        // Someone else removed it in between: as wanted.
        drop(self.gauges.remove_label_values(&[fleet, version, state]));
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
