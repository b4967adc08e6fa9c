//! What to do about a candidate.
//!
//! **Invariant:** [`decide`] is one ordered expression: the first line that fits is the decision,
//! and a situation that no line names waits.

use super::narrow::{Breadth, Slice};
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
    /// One slice fails: a person must mend that, and the version stays where it is.
    FixForward(Ground, Slice),
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
    /// Whether what they convict is narrow.
    pub breadth: Breadth,
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

impl Situation {
    /// The observation is over, and there is evidence against the candidate that does not convict.
    fn is_unsure(&self) -> bool {
        self.sessions.verdict == Verdict::Suspect && self.observation_over
    }

    /// Such a candidate is one to roll back.
    #[must_use]
    pub fn rolls_back_unsure(&self) -> bool {
        self.is_unsure() && self.roll_back_when_unsure
    }
}

/// The decision table.
#[must_use]
pub fn decide(s: &Situation) -> Decision {
    use {ValueVerdict as Value, Verdict as Sessions};
    match (s.sessions.verdict, s.values.verdict, &s.breadth) {
        _ if s.rolling_back => Decision::Hold("a rollback of this fleet is under way".into()),
        (_, Value::Regressed, _) => roll_back(s, s.values.ground("a value is over rollback_above")),
        (Sessions::Regressed, _, Breadth::Wide) => {
            roll_back(s, s.sessions.ground("fails more than allowed"))
        }
        (Sessions::Regressed, _, Breadth::Unknown) => Decision::Wait,
        (Sessions::Regressed, _, Breadth::Narrow(slice)) => Decision::FixForward(
            s.sessions.ground("one slice fails more than allowed"),
            slice.clone(),
        ),
        _ if s.rolls_back_unsure() => roll_back(s, s.sessions.ground(UNSURE)),
        (_, Value::Over, _) => {
            Decision::Escalate(s.values.ground("a value is over escalate_above"))
        }
        _ if s.is_unsure() => Decision::Hold(s.sessions.ground(UNSURE)),
        (Sessions::Outage, ..) => {
            Decision::Escalate(s.sessions.ground("both versions fail together"))
        }
        (Sessions::NoData, ..) => {
            Decision::Hold(s.sessions.ground("workers are alive and their sessions are not seen"))
        }
        (_, Value::NoData, _) => {
            Decision::Hold(s.values.ground("workers are alive and a value is not seen"))
        }
        (Sessions::Healthy, Value::Healthy, _) if s.observation_over && s.has_sessions => {
            promote(s)
        }
        (Sessions::Healthy | Sessions::Suspect, Value::Healthy | Value::Pending, _) => {
            Decision::Wait
        }
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
            Self::FixForward(..) => "fix_forward",
            Self::Escalate(_) => "escalate",
            Self::Hold(_) => "hold",
        }
    }

    /// What it rests on; none where nothing speaks against the candidate.
    #[must_use]
    pub fn ground(&self) -> Option<&Ground> {
        match self {
            Self::Wait | Self::Promote => None,
            Self::RollBack(ground)
            | Self::FixForward(ground, _)
            | Self::Escalate(ground)
            | Self::Hold(ground) => Some(ground),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn young() -> Situation {
        Situation {
            sessions: Finding { verdict: Verdict::Healthy, rule: None },
            breadth: Breadth::Wide,
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

    fn narrow(when: Situation) -> Situation {
        let slice = Slice { label: "tenant".to_owned(), value: "acme".to_owned() };
        Situation { breadth: Breadth::Narrow(slice), ..when }
    }

    #[test]
    #[rustfmt::skip]
    fn each_row_of_the_table_decides_as_it_says() {
        use Verdict::{NoData, Outage, Regressed, Suspect};
        // The rows of the design, in its words. Which verdict a row comes to is Observation's.
        let cases: &[(&str, Situation, &str)] = &[
            ("the candidate's sessions fail or drop more than allowed",                        says(Regressed, young()),                "roll_back"),
            ("every new call is affected and there is no concurrent baseline",                 says(Regressed, young()),                "roll_back"),
            ("the excess failures sit in one agent or one tenant",                             narrow(says(Regressed, young())),        "fix_forward"),
            ("… and then the rest regresses",                                                  says(Regressed, young()),                "roll_back"),
            ("a value rule is over escalate_above",                                            value(ValueVerdict::Over, young()),      "escalate"),
            ("… over rollback_above for `for`",                                                value(ValueVerdict::Regressed, young()), "roll_back"),
            ("observation ends and the evidence is suspect",                                   says(Suspect, old()),                    "roll_back"),
            ("… and when_unsure is hold",                    Situation { roll_back_when_unsure: false, ..says(Suspect, old()) },        "hold"),
            ("both versions fail together (a provider outage)",                                says(Outage, young()),                   "escalate"),
            ("no data while workers are alive, or Prometheus does not answer",                 says(NoData, young()),                   "hold"),
            ("many fleets regress in the same few minutes",  Situation { one_of_many: true, ..says(Regressed, young()) },               "escalate"),
            ("observation ends, no evidence against it",                                       old(),                                   "promote"),
        ];
        for (name, situation, want) in cases {
            assert_eq!(decide(situation).name(), *want, "{name}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn what_the_table_leaves_open_is_decided_too() {
        use Verdict::{NoData, Outage, Regressed, Suspect};
        let regressed = || says(Regressed, young());
        let over = |when| value(ValueVerdict::Over, when);
        let convicts = |when| value(ValueVerdict::Regressed, when);
        let cases: &[(&str, Situation, &str)] = &[
            ("nothing against it yet",            young(),                                                  "wait"),
            ("no session ever started",           Situation { has_sessions: false, ..old() },               "wait"),
            ("suspect, time left",                says(Suspect, young()),                                   "wait"),
            ("an outage at the end",              says(Outage, old()),                                      "escalate"),
            ("no data at the end",                says(NoData, old()),                                      "hold"),
            ("nowhere to go back to",             Situation { has_last_good: false, ..regressed() },        "escalate"),
            ("limit reached",                     Situation { within_limits: false, ..regressed() },        "escalate"),
            ("dry run",                           Situation { mode: Mode::Observe, ..regressed() },         "escalate"),
            ("a person confirms",                 Situation { mode: Mode::Approve, ..regressed() },         "escalate"),
            ("many, and still suspect",           Situation { one_of_many: true, ..says(Suspect, old()) },  "escalate"),
            ("many others, this one is good",     Situation { one_of_many: true, ..old() },                 "promote"),
            ("many others, already going back",   Situation { one_of_many: true, rolling_back: true, ..regressed() }, "hold"),
            ("many, and this one is narrow",      narrow(Situation { one_of_many: true, ..regressed() }),   "fix_forward"),
            ("paused, would roll back",           Situation { paused: true, ..regressed() },                "hold"),
            ("paused, would promote",             Situation { paused: true, ..old() },                      "hold"),
            ("paused, nothing to do",             Situation { paused: true, ..young() },                    "wait"),
            ("paused, a narrow regression",       narrow(Situation { paused: true, ..regressed() }),        "fix_forward"),
            ("already on the way back",           Situation { rolling_back: true, ..regressed() },          "hold"),
            ("convicted, slices not asked yet",   Situation { breadth: Breadth::Unknown, ..regressed() },   "wait"),
            ("narrow, at the end",                narrow(says(Regressed, old())),                           "fix_forward"),
            ("narrow, and a value convicts",      narrow(convicts(regressed())),                            "roll_back"),
            ("narrow, and nowhere to go back to", narrow(Situation { has_last_good: false, ..regressed() }), "fix_forward"),
            ("over the first limit, at the end",  over(old()),                                              "escalate"),
            ("over it, and sessions suspect",     over(says(Suspect, young())),                             "escalate"),
            ("over it, suspect at the end",       over(says(Suspect, old())),                               "roll_back"),
            ("over the second, a moment",         value(ValueVerdict::Pending, young()),                    "wait"),
            ("the same, at the end",              value(ValueVerdict::Pending, old()),                      "wait"),
            ("a value convicts in an outage",     convicts(says(Outage, young())),                          "roll_back"),
            ("a value convicts, and paused",      convicts(Situation { paused: true, ..young() }),          "hold"),
            ("a value not seen",                  value(ValueVerdict::NoData, young()),                     "hold"),
            ("a value not seen, at the end",      value(ValueVerdict::NoData, old()),                       "hold"),
            ("a value not seen, and failing",     value(ValueVerdict::NoData, regressed()),                 "roll_back"),
        ];
        for (name, situation, want) in cases {
            assert_eq!(decide(situation).name(), *want, "{name}");
        }
    }

    fn any_situation() -> impl Strategy<Value = Situation> {
        use {ValueVerdict as Value, Verdict as Sessions};
        let sessions = prop::sample::select(vec![
            Sessions::Healthy,
            Sessions::NoData,
            Sessions::Outage,
            Sessions::Suspect,
            Sessions::Regressed,
        ]);
        let values = prop::sample::select(vec![
            Value::Healthy,
            Value::NoData,
            Value::Pending,
            Value::Over,
            Value::Regressed,
        ]);
        let breadth = prop::sample::select(vec![
            Breadth::Wide,
            Breadth::Unknown,
            Breadth::Narrow(Slice { label: "tenant".to_owned(), value: "acme".to_owned() }),
        ]);
        let mode = prop::sample::select(vec![Mode::Automatic, Mode::Approve, Mode::Observe]);
        let facts = prop::array::uniform8(any::<bool>());
        (sessions, values, breadth, mode, facts).prop_map(|(sessions, values, breadth, mode, f)| {
            Situation {
                sessions: Finding { verdict: sessions, rule: None },
                breadth,
                values: Finding { verdict: values, rule: None },
                observation_over: f[0],
                has_sessions: f[1],
                has_last_good: f[2],
                paused: f[3],
                rolling_back: f[4],
                within_limits: f[5],
                mode,
                roll_back_when_unsure: f[6],
                one_of_many: f[7],
            }
        })
    }

    proptest! {
        #[test]
        fn nothing_is_rolled_back_or_promoted_for_want_of_data(s in any_situation()) {
            let convicted = s.sessions.verdict == Verdict::Regressed
                && s.breadth == Breadth::Wide;
            let unsure = s.sessions.verdict == Verdict::Suspect
                && s.observation_over
                && s.roll_back_when_unsure;
            match decide(&s) {
                Decision::RollBack(_) => {
                    let earned =
                        convicted || unsure || s.values.verdict == ValueVerdict::Regressed;
                    prop_assert!(earned && s.has_last_good && s.within_limits);
                    prop_assert!(!s.paused && !s.one_of_many && !s.rolling_back);
                    prop_assert_eq!(s.mode, Mode::Automatic);
                }
                Decision::Promote => {
                    prop_assert!(s.observation_over && s.has_sessions && !s.paused);
                    prop_assert_eq!(s.sessions.verdict, Verdict::Healthy);
                    prop_assert_eq!(s.values.verdict, ValueVerdict::Healthy);
                }
                Decision::FixForward(..) => {
                    prop_assert_eq!(s.sessions.verdict, Verdict::Regressed);
                }
                Decision::Wait | Decision::Escalate(_) | Decision::Hold(_) => {}
            }
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
