//! What to do about a candidate.
//!
//! **Invariant:** [`decide`] is one ordered expression: the first line that fits is the decision,
//! and a situation that no line names waits.

use super::value::ValueVerdict;
use super::verdict::Verdict;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Keep watching.
    Wait,
    /// The candidate is the last good version now.
    Promote,
    /// Take the fleet back.
    RollBack(Ground),
    /// A person must choose.
    Escalate(Ground),
    /// Nothing may be decided.
    Hold(Ground),
}

/// Why, and which rule says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ground {
    /// For people; one of a few fixed texts.
    pub reason: &'static str,
    /// `group/rule`; none where it is not one rule's word.
    pub rule: Option<String>,
}

impl From<&'static str> for Ground {
    fn from(reason: &'static str) -> Self {
        Self { reason, rule: None }
    }
}

/// What one kind of rules says, and which of them: the first of those whose verdict is the worst.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding<V> {
    /// The worst over the rules.
    pub verdict: V,
    /// `group/rule`.
    pub rule: Option<String>,
}

impl<V: Ord> Finding<V> {
    /// The worst verdict, and the first rule that says so; none for one that is `healthy`.
    pub fn worst(healthy: V, verdicts: impl IntoIterator<Item = (V, String)>) -> Self {
        let none = Self { verdict: healthy, rule: None };
        verdicts.into_iter().fold(none, |worst, (verdict, rule)| {
            if verdict > worst.verdict { Self { verdict, rule: Some(rule) } } else { worst }
        })
    }
}

impl<V> Finding<V> {
    fn ground(&self, reason: &'static str) -> Ground {
        Ground { reason, rule: self.rule.clone() }
    }
}

/// What is known when a decision is due.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and any may hold")]
pub struct Situation {
    /// What the rules on sessions say.
    pub sessions: Finding<Verdict>,
    /// What the rules on values say.
    pub values: Finding<ValueVerdict>,
    /// `observe_for` has passed.
    pub observation_over: bool,
    /// The candidate has started sessions under observation, or shown values where no rule counts
    /// sessions.
    pub has_sessions: bool,
    /// A last good version is known that is not the candidate.
    pub has_last_good: bool,
    /// An operator said that nothing is to be decided.
    pub paused: bool,
    /// Another rollback of this fleet is under way.
    pub rolling_back: bool,
    /// It regresses while many other fleets do.
    pub one_of_many: bool,
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

impl Mode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Automatic, Self::Approve, Self::Observe];

    /// As the config names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::Approve => "approve",
            Self::Observe => "observe",
        }
    }
}

/// What [`decide`] says of a candidate that a person must decide on.
pub const AWAITS_APPROVAL: &str = "would roll back; a person must approve";

/// What [`decide`] says of a candidate that regresses while many other fleets do.
pub const ONE_OF_MANY: &str =
    "would roll back, but many fleets regress at once; a person must approve";

/// Why a candidate is neither promoted nor rolled back at the end.
const UNSURE: &str = "still suspect at the end of its observation";

/// The decision table.
#[must_use]
pub fn decide(s: &Situation) -> Decision {
    use {ValueVerdict as Value, Verdict as Sessions};
    let unsure = s.sessions.verdict == Sessions::Suspect && s.observation_over;
    match (s.sessions.verdict, s.values.verdict) {
        _ if s.rolling_back => Decision::Hold("a rollback of this fleet is under way".into()),
        (Sessions::Regressed, _) => roll_back(s, s.sessions.ground("fails more than allowed")),
        (_, Value::Regressed) => roll_back(s, s.values.ground("a value is over rollback_above")),
        _ if unsure && s.roll_back_when_unsure => roll_back(s, s.sessions.ground(UNSURE)),
        (_, Value::Over) => Decision::Escalate(s.values.ground("a value is over escalate_above")),
        _ if unsure => Decision::Hold(s.sessions.ground(UNSURE)),
        (Sessions::Outage, _) => {
            Decision::Escalate(s.sessions.ground("both versions fail together"))
        }
        (Sessions::NoData, _) => {
            Decision::Hold(s.sessions.ground("workers are alive and their sessions are not seen"))
        }
        (_, Value::NoData) => {
            Decision::Hold(s.values.ground("workers are alive and a value is not seen"))
        }
        (Sessions::Healthy, Value::Healthy) if s.observation_over && s.has_sessions => promote(s),
        (Sessions::Healthy | Sessions::Suspect, Value::Healthy | Value::Pending) => Decision::Wait,
    }
}

fn promote(s: &Situation) -> Decision {
    if s.paused {
        Decision::Hold("would promote; an operator has paused it".into())
    } else {
        Decision::Promote
    }
}

fn roll_back(s: &Situation, ground: Ground) -> Decision {
    let escalate = |reason| Decision::Escalate(Ground { reason, rule: ground.rule.clone() });
    match s.mode {
        _ if !s.has_last_good => escalate("no last good version to go back to"),
        _ if s.one_of_many => escalate(ONE_OF_MANY),
        Mode::Observe => escalate("would roll back; the mode is observe"),
        Mode::Approve => escalate(AWAITS_APPROVAL),
        Mode::Automatic if !s.within_limits => {
            escalate("would roll back; the limit on rollbacks is reached")
        }
        Mode::Automatic if s.paused => Decision::Hold(Ground {
            reason: "would roll back; an operator has paused it",
            ..ground
        }),
        Mode::Automatic => Decision::RollBack(ground),
    }
}

impl Decision {
    /// The decision's name in ledger, API and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Promote => "promote",
            Self::RollBack(_) => "roll_back",
            Self::Escalate(_) => "escalate",
            Self::Hold(_) => "hold",
        }
    }

    /// What it rests on; none where nothing speaks against the candidate.
    #[must_use]
    pub fn ground(&self) -> Option<&Ground> {
        match self {
            Self::Wait | Self::Promote => None,
            Self::RollBack(ground) | Self::Escalate(ground) | Self::Hold(ground) => Some(ground),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn young() -> Situation {
        Situation {
            sessions: Finding { verdict: Verdict::Healthy, rule: None },
            values: Finding { verdict: ValueVerdict::Healthy, rule: None },
            observation_over: false,
            has_sessions: true,
            has_last_good: true,
            paused: false,
            rolling_back: false,
            one_of_many: false,
            within_limits: true,
            mode: Mode::Automatic,
            roll_back_when_unsure: true,
        }
    }

    fn old() -> Situation {
        Situation { observation_over: true, ..young() }
    }

    fn says(verdict: Verdict, when: Situation) -> Situation {
        let rule = Some("sessions/SessionsFailing".to_owned());
        Situation { sessions: Finding { verdict, rule }, ..when }
    }

    fn value(verdict: ValueVerdict, when: Situation) -> Situation {
        let rule = Some("quality/SlowFirstResponse".to_owned());
        Situation { values: Finding { verdict, rule }, ..when }
    }

    #[test]
    fn each_row_of_the_table_decides_as_it_says() {
        use Verdict::{NoData, Outage, Regressed, Suspect};
        let regressed = || says(Regressed, young());
        #[rustfmt::skip]
        let cases: &[(&str, Situation, &str)] = &[
            ("nothing against it yet",         young(),                                                   "wait"),
            ("observation ends, no evidence",  old(),                                                     "promote"),
            ("no session ever started",        Situation { has_sessions: false, ..old() },                "wait"),
            ("fails more than allowed",        regressed(),                                               "roll_back"),
            ("suspect, time left",             says(Suspect, young()),                                    "wait"),
            ("suspect when the hour is over",  says(Suspect, old()),                                      "roll_back"),
            ("suspect, unsure holds",          Situation { roll_back_when_unsure: false, ..says(Suspect, old()) }, "hold"),
            ("no data with workers alive",     says(NoData, young()),                                     "hold"),
            ("a provider outage hits both",    says(Outage, old()),                                       "escalate"),
            ("no data at the end",             says(NoData, old()),                                       "hold"),
            ("nowhere to go back to",          Situation { has_last_good: false, ..regressed() },         "escalate"),
            ("limit reached",                  Situation { within_limits: false, ..regressed() },         "escalate"),
            ("dry run",                        Situation { mode: Mode::Observe, ..regressed() },          "escalate"),
            ("a person confirms",              Situation { mode: Mode::Approve, ..regressed() },          "escalate"),
            ("many fleets regress at once",    Situation { one_of_many: true, ..regressed() },            "escalate"),
            ("many, and still suspect",        Situation { one_of_many: true, ..says(Suspect, old()) },   "escalate"),
            ("many others, this one is good",  Situation { one_of_many: true, ..old() },                  "promote"),
            ("many others, already going back", Situation { one_of_many: true, rolling_back: true, ..regressed() }, "hold"),
            ("paused, would roll back",        Situation { paused: true, ..regressed() },                 "hold"),
            ("paused, would promote",          Situation { paused: true, ..old() },                       "hold"),
            ("paused, nothing to do",          Situation { paused: true, ..young() },                     "wait"),
            ("already on the way back",        Situation { rolling_back: true, ..regressed() },           "hold"),
            ("a value over the first limit",   value(ValueVerdict::Over, young()),                        "escalate"),
            ("the same at the end",            value(ValueVerdict::Over, old()),                          "escalate"),
            ("over it, and sessions suspect",  value(ValueVerdict::Over, says(Suspect, young())),         "escalate"),
            ("over it, suspect at the end",    value(ValueVerdict::Over, says(Suspect, old())),           "roll_back"),
            ("a value over the second, a moment", value(ValueVerdict::Pending, young()),                  "wait"),
            ("the same at the end",            value(ValueVerdict::Pending, old()),                       "wait"),
            ("a value over the second, for its time", value(ValueVerdict::Regressed, young()),            "roll_back"),
            ("the same in an outage",          value(ValueVerdict::Regressed, says(Outage, young())),     "roll_back"),
            ("the same, and paused",           value(ValueVerdict::Regressed, Situation { paused: true, ..young() }), "hold"),
            ("a value not seen",               value(ValueVerdict::NoData, young()),                      "hold"),
            ("a value not seen at the end",    value(ValueVerdict::NoData, old()),                        "hold"),
            ("a value not seen, and failing",  value(ValueVerdict::NoData, regressed()),                  "roll_back"),
        ];
        for (name, situation, want) in cases {
            assert_eq!(decide(situation).name(), *want, "{name}");
        }
    }

    #[test]
    fn a_decision_names_the_rule_that_it_rests_on() {
        let rule = |situation: &Situation| decide(situation).ground().unwrap().rule.clone();
        let both = value(ValueVerdict::Regressed, says(Verdict::Suspect, young()));
        assert_eq!(rule(&both).as_deref(), Some("quality/SlowFirstResponse"));
        let approve = Situation { mode: Mode::Approve, ..says(Verdict::Regressed, young()) };
        assert_eq!(rule(&approve).as_deref(), Some("sessions/SessionsFailing"));
    }
}
