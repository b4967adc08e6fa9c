//! What the controller is given instead of the world: everything here may fail, wait or repeat.

pub(crate) mod disk;
pub(crate) mod platform;
pub(crate) mod scraper;

use rollbackd::domain::time::Timestamp;
use rollbackd::ports::Clock;
use tokio::time::Instant;

use crate::sim::{BEGIN, Shared};

/// A clock that may be wrong.
pub(crate) struct WallClock {
    pub(crate) shared: Shared,
    pub(crate) began: Instant,
}

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.began.elapsed().as_millis()).unwrap();
        Timestamp::from_millis(BEGIN + passed + self.shared.lock().unwrap().weather.clock_off)
    }
}
