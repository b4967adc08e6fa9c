//! A denied version that comes back after its rollback was over.

use std::time::Duration;

use super::decision::{Decision, Mode};

/// Coming back so often within [`COMEBACK_SPAN`], it is not drained again: people are told.
pub const COMEBACKS_MAX: usize = 3;

/// The time within which they are counted.
pub const COMEBACK_SPAN: Duration = Duration::from_hours(1);

/// Why a denied version that came back is taken back.
pub const CAME_BACK: &str = "denied, and came back";

/// What is known when workers of a denied version are seen or heard again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comeback {
    /// How often it was drained again within [`COMEBACK_SPAN`].
    pub drained_again: usize,
    /// A last good version is known.
    pub has_last_good: bool,
    /// Another rollback of this fleet is under way.
    pub rolling_back: bool,
    /// An operator said that nothing is to be done.
    pub paused: bool,
    /// What the config says. A person's approval of its rollback holds as long as its denial.
    pub mode: Mode,
}

/// What to do about it: a rollback of its own, with all its steps, or to say why not.
#[must_use]
pub fn decide_comeback(s: Comeback) -> Decision {
    match s.mode {
        _ if s.rolling_back => Decision::Hold("a rollback of this fleet is under way".into()),
        _ if !s.has_last_good => Decision::Escalate("no last good version to go back to".into()),
        Mode::Observe => Decision::Escalate("denied, and came back; the mode is observe".into()),
        Mode::Automatic | Mode::Approve if s.drained_again + 1 >= COMEBACKS_MAX => {
            Decision::Escalate("denied, and came back for the third time in an hour".into())
        }
        Mode::Automatic | Mode::Approve if s.paused => {
            Decision::Hold("denied, and came back; an operator has paused it".into())
        }
        Mode::Automatic | Mode::Approve => Decision::RollBack(CAME_BACK.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_drained_again_twice_in_an_hour_and_then_people_are_told() {
        let once = Comeback {
            drained_again: 0,
            has_last_good: true,
            rolling_back: false,
            paused: false,
            mode: Mode::Automatic,
        };
        #[rustfmt::skip]
        let cases = [
            ("the first time",           once,                                             "roll_back"),
            ("the second",               Comeback { drained_again: 1, ..once },            "roll_back"),
            ("the third",                Comeback { drained_again: 2, ..once },            "escalate"),
            ("nowhere to go back to",    Comeback { has_last_good: false, ..once },        "escalate"),
            ("approved once is enough",  Comeback { mode: Mode::Approve, ..once },         "roll_back"),
            ("dry run",                  Comeback { mode: Mode::Observe, ..once },         "escalate"),
            ("paused",                   Comeback { paused: true, ..once },                "hold"),
            ("another is going back",    Comeback { rolling_back: true, ..once },          "hold"),
        ];
        for (name, comeback, want) in cases {
            assert_eq!(decide_comeback(comeback).name(), want, "{name}");
        }
    }
}
