//! What to do about a candidate.
//!
//! **Invariant:** [`decide`] is one ordered expression: the first line that fits is the decision,
//! and a situation that no line names waits.

use super::verdict::Verdict;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Keep watching.
    Wait,
    /// The candidate is the last good version now.
    Promote,
    /// Take the fleet back.
    RollBack,
    /// A person must choose; the text says why.
    Escalate(&'static str),
    /// Nothing may be decided; the text says why.
    Hold(&'static str),
}

/// What is known when a decision is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and any may hold")]
pub struct Situation {
    /// The worst verdict over the rules.
    pub verdict: Verdict,
    /// `observe_for` has passed.
    pub observation_over: bool,
    /// The candidate has started sessions under observation.
    pub has_sessions: bool,
    /// A last good version is known that is not the candidate.
    pub has_last_good: bool,
    /// An operator said that nothing is to be decided.
    pub paused: bool,
    /// Another rollback of this fleet is under way.
    pub rolling_back: bool,
    /// Fewer rollbacks than `limits` allows have begun.
    pub within_limits: bool,
    /// What the config says.
    pub mode: Mode,
    /// A candidate still suspect when its observation ends is rolled back.
    pub roll_back_when_unsure: bool,
}

/// How much may happen without a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything.
    Automatic,
    /// A person confirms a rollback.
    Approve,
    /// Nothing: a dry run.
    Observe,
}

/// What [`decide`] says of a candidate that a person must decide on.
pub const AWAITS_APPROVAL: &str = "would roll back; a person must approve";

/// The decision table.
#[must_use]
pub fn decide(s: Situation) -> Decision {
    let unsure = s.verdict == Verdict::Suspect && s.observation_over;
    match s.verdict {
        Verdict::Regressed | Verdict::Suspect | Verdict::Healthy if s.paused && !s.rolling_back => {
            paused(s)
        }
        _ if s.rolling_back => Decision::Hold("a rollback of this fleet is under way"),
        Verdict::Regressed => roll_back(s),
        Verdict::Suspect if unsure && s.roll_back_when_unsure => roll_back(s),
        Verdict::Suspect if unsure => Decision::Hold("still suspect at the end of its observation"),
        Verdict::NoData => Decision::Hold("workers are alive and their sessions are not seen"),
        Verdict::Outage => Decision::Escalate("both versions fail together"),
        Verdict::Healthy if s.observation_over && s.has_sessions => Decision::Promote,
        Verdict::Healthy | Verdict::Suspect => Decision::Wait,
    }
}

/// What would be done is not; watching goes on.
fn paused(s: Situation) -> Decision {
    match decide(Situation { paused: false, ..s }) {
        Decision::RollBack => Decision::Hold("would roll back; an operator has paused it"),
        Decision::Promote => Decision::Hold("would promote; an operator has paused it"),
        other @ (Decision::Wait | Decision::Escalate(_) | Decision::Hold(_)) => other,
    }
}

fn roll_back(s: Situation) -> Decision {
    match s.mode {
        _ if !s.has_last_good => Decision::Escalate("no last good version to go back to"),
        Mode::Observe => Decision::Escalate("would roll back; the mode is observe"),
        Mode::Approve => Decision::Escalate(AWAITS_APPROVAL),
        Mode::Automatic if !s.within_limits => {
            Decision::Escalate("would roll back; the limit on rollbacks is reached")
        }
        Mode::Automatic => Decision::RollBack,
    }
}

impl Decision {
    /// The decision's name in ledger, API and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Promote => "promote",
            Self::RollBack => "roll_back",
            Self::Escalate(_) => "escalate",
            Self::Hold(_) => "hold",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YOUNG: Situation = Situation {
        verdict: Verdict::Healthy,
        observation_over: false,
        has_sessions: true,
        has_last_good: true,
        paused: false,
        rolling_back: false,
        within_limits: true,
        mode: Mode::Automatic,
        roll_back_when_unsure: true,
    };
    const OLD: Situation = Situation { observation_over: true, ..YOUNG };

    #[test]
    fn each_row_of_the_table_decides_as_it_says() {
        use Verdict::{NoData, Regressed, Suspect};
        #[rustfmt::skip]
        let cases: &[(&str, Situation, &str)] = &[
            ("nothing against it yet",         YOUNG,                                                     "wait"),
            ("observation ends, no evidence",  OLD,                                                       "promote"),
            ("no session ever started",        Situation { has_sessions: false, ..OLD },                  "wait"),
            ("fails more than allowed",        Situation { verdict: Regressed, ..YOUNG },                 "roll_back"),
            ("suspect, time left",             Situation { verdict: Suspect, ..YOUNG },                   "wait"),
            ("suspect when the hour is over",  Situation { verdict: Suspect, ..OLD },                     "roll_back"),
            ("suspect, unsure holds",          Situation { verdict: Suspect, roll_back_when_unsure: false, ..OLD }, "hold"),
            ("no data with workers alive",     Situation { verdict: NoData, ..YOUNG },                    "hold"),
            ("a provider outage hits both",    Situation { verdict: Verdict::Outage, ..OLD },            "escalate"),
            ("no data at the end",             Situation { verdict: NoData, ..OLD },                      "hold"),
            ("nowhere to go back to",          Situation { verdict: Regressed, has_last_good: false, ..YOUNG }, "escalate"),
            ("limit reached",                  Situation { verdict: Regressed, within_limits: false, ..YOUNG }, "escalate"),
            ("dry run",                        Situation { verdict: Regressed, mode: Mode::Observe, ..YOUNG },  "escalate"),
            ("a person confirms",              Situation { verdict: Regressed, mode: Mode::Approve, ..YOUNG },  "escalate"),
            ("paused, would roll back",        Situation { verdict: Regressed, paused: true, ..YOUNG },         "hold"),
            ("paused, would promote",          Situation { paused: true, ..OLD },                        "hold"),
            ("paused, nothing to do",          Situation { paused: true, ..YOUNG },                      "wait"),
            ("already on the way back",        Situation { verdict: Regressed, rolling_back: true, ..YOUNG },   "hold"),
        ];
        for (name, situation, want) in cases {
            assert_eq!(decide(*situation).name(), *want, "{name}");
        }
    }
}
