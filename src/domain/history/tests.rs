use proptest::prelude::*;

use super::*;

fn v(text: &str) -> Version {
    text.parse().unwrap()
}

fn rollback(bad: &str, good: &str) -> Rollback {
    Rollback {
        id: format!("voice-{bad}"),
        bad: v(bad),
        good: v(good),
        workers_needed: 1,
        reason: "test".to_owned(),
        chosen_at: Timestamp::from_millis(0),
        state: State::Chosen,
        state_since: Timestamp::from_millis(0),
    }
}

fn told(happenings: &[Happening]) -> Result<FleetHistory, Impossible> {
    let mut history = FleetHistory::default();
    for (seq, happening) in (1..).zip(happenings) {
        history.apply(seq, Timestamp::from_millis(0), happening)?;
    }
    Ok(history)
}

#[test]
fn a_denied_version_is_never_the_last_good_one() {
    let history = told(&[
        Happening::BaselineAdopted { version: v("v1") },
        Happening::BaselineAdopted { version: v("v2") },
        Happening::RollbackChosen { rollback: rollback("v2", "v1") },
    ])
    .unwrap();
    assert_eq!(history.last_good(), Some(&v("v1")));
    assert!(history.denied().contains(&v("v2")));
}

#[test]
fn a_version_that_was_rolled_back_is_a_candidate_when_it_is_allowed_again() {
    let mut story = vec![
        Happening::BaselineAdopted { version: v("v1") },
        Happening::BaselineAdopted { version: v("v2") },
        Happening::RollbackChosen { rollback: rollback("v2", "v1") },
    ];
    let allowed = Happening::Allowed { version: v("v2") };
    let too_early = told(&[story.clone(), vec![allowed.clone()]].concat());
    assert_eq!(too_early, Err(Impossible::Allowed(v("v2"))), "its rollback is under way");
    story.push(Happening::RollbackMoved { id: "voice-v2".to_owned(), state: State::Abandoned });
    story.push(allowed.clone());
    let history = told(&story).unwrap();
    assert!(history.denied().is_empty() && history.draining().is_empty());
    assert_eq!(history.last_good(), Some(&v("v1")));
    assert!(!history.was_promoted(&v("v2")));
    story.push(allowed);
    assert_eq!(told(&story), Err(Impossible::Allowed(v("v2"))), "nobody denies it");
}

#[test]
fn what_became_of_a_version_is_what_came_last_with_the_record_that_says_so() {
    let history = told(&[
        Happening::BaselineAdopted { version: v("v1") },
        Happening::BaselineAdopted { version: v("v2") },
        Happening::RollbackChosen { rollback: rollback("v2", "v1") },
    ])
    .unwrap();
    let past = |version| history.past()[&v(version)];
    assert_eq!((past("v1").outcome, past("v1").seq), (Outcome::Adopted, 1));
    assert_eq!((past("v2").outcome, past("v2").seq), (Outcome::RolledBack, 3));
}

#[test]
fn a_denied_version_that_comes_back_is_counted_apart_and_drains_no_sooner_than_the_first_time() {
    let moved = |id: &str, state| Happening::RollbackMoved { id: id.to_owned(), state };
    let again = Rollback { id: "voice-again".to_owned(), ..rollback("v2", "v1") };
    let story = [
        Happening::BaselineAdopted { version: v("v1") },
        Happening::RollbackChosen { rollback: rollback("v2", "v1") },
        moved("voice-v2", State::Clean),
        Happening::RollbackChosen { rollback: again },
    ];
    let history = told(&story).unwrap();
    let (now, hour) = (Timestamp::from_millis(3_599_999), Duration::from_hours(1));
    assert_eq!((history.decided(now, hour), history.comebacks(&v("v2"), now, hour)), (1, 1));
    assert_eq!(history.comebacks(&v("v3"), now, hour), 0);
    let later = Timestamp::from_millis(3_600_000);
    assert_eq!((history.decided(later, hour), history.comebacks(&v("v2"), later, hour)), (0, 0));
    assert!(history.draining().is_empty(), "v1 may not be able to carry it");
}

#[test]
fn the_version_an_operator_goes_back_to_is_the_last_good_one() {
    let history = told(&[
        Happening::BaselineAdopted { version: v("v0") },
        Happening::BaselineAdopted { version: v("v1") },
        Happening::RollbackChosen { rollback: rollback("v2", "v0") },
    ]);
    assert_eq!(history.unwrap().last_good(), Some(&v("v0")));
}

#[test]
fn a_pause_ends_when_it_was_said_to_or_when_resumed() {
    let at = Timestamp::from_millis;
    let history = told(&[Happening::Paused { until: Some(at(10)) }]).unwrap();
    assert!(history.paused(at(9)).is_some());
    assert!(history.paused(at(10)).is_none());
    let endless = Happening::Paused { until: None };
    assert!(told(std::slice::from_ref(&endless)).unwrap().paused(at(i64::MAX)).is_some());
    assert!(told(&[endless, Happening::Resumed]).unwrap().paused(at(0)).is_none());
}

#[test]
fn the_gate_denies_before_anything_drains() {
    let moved = |state| Happening::RollbackMoved { id: "voice-v2".to_owned(), state };
    let mut story = vec![
        Happening::BaselineAdopted { version: v("v1") },
        Happening::RollbackChosen { rollback: rollback("v2", "v1") },
    ];
    for (state, drains) in [
        (State::Gated, false),
        (State::Starting, false),
        (State::Capable, false),
        (State::Draining, true),
        (State::Clean, false),
    ] {
        story.push(moved(state));
        let history = told(&story).unwrap();
        assert!(history.denied().contains(&v("v2")));
        assert_eq!(history.draining().contains(&v("v2")), drains, "{state:?}");
    }
}

#[test]
fn a_candidate_that_is_held_back_stays_so_until_its_rollout_ends() {
    let candidate = v("v2");
    let rollout = Rollout {
        candidate: candidate.clone(),
        baseline: Some(v("v1")),
        started_at: Timestamp::from_millis(0),
        observe_until: Timestamp::from_millis(0),
        baseline_workers: 1,
    };
    let mut story = vec![
        Happening::BaselineAdopted { version: v("v1") },
        Happening::RolloutStarted { rollout: rollout.clone() },
        Happening::Regressed { candidate: candidate.clone() },
        Happening::HeldBack { candidate: candidate.clone() },
    ];
    let held = told(&story).unwrap();
    assert!(held.has_regressed(&candidate) && held.is_held_back(&candidate));
    assert_eq!(held.regressed_at(), Some(Timestamp::from_millis(0)));
    story.push(Happening::RolloutEnded { candidate: candidate.clone() });
    story.push(Happening::RolloutStarted { rollout });
    let again = told(&story).unwrap();
    assert!(!again.has_regressed(&candidate) && !again.is_held_back(&candidate));
    assert!(again.regressed_at().is_some(), "it counts for a while");
}

#[test]
fn a_long_history_keeps_the_newest_and_every_denial() {
    let mut story = vec![Happening::BaselineAdopted { version: v("v1") }];
    for number in 0..3 * KEPT_MAX {
        let bad = format!("bad{number}");
        let Rollback { id, .. } = rollback(&bad, "v1");
        story.extend([
            Happening::RollbackChosen { rollback: rollback(&bad, "v1") },
            Happening::RollbackMoved { id, state: State::Clean },
        ]);
    }
    let history = told(&story).unwrap();
    assert_eq!(history.rollbacks().len(), KEPT_MAX);
    assert_eq!(history.denied().len(), 3 * KEPT_MAX);
    assert!(history.draining().is_empty(), "no rollback is under way");
    assert_eq!(history.last_good(), Some(&v("v1")));
}

#[test]
fn an_impossible_history_is_refused() {
    assert!(told(&[Happening::Regressed { candidate: v("v2") }]).is_err());
    assert!(told(&[Happening::HeldBack { candidate: v("v2") }]).is_err());
    let moved = Happening::RollbackMoved { id: "voice-v2".to_owned(), state: State::Gated };
    assert!(told(&[moved]).is_err());
    assert!(told(&[Happening::RolloutEnded { candidate: v("v2") }]).is_err());
    assert!(told(&[Happening::Promoted { version: v("v2") }]).is_err());
    let chosen = Happening::RollbackChosen { rollback: rollback("v2", "v1") };
    assert!(told(&[chosen.clone(), chosen]).is_err());
}

/// What may happen to one of four versions, by number.
fn any_happening() -> impl Strategy<Value = (u8, usize)> {
    (0..6_u8, 0..4_usize)
}

proptest! {
    #[test]
    fn nothing_goes_back_to_what_was_rolled_back_and_not_promoted_since(
        story in prop::collection::vec(any_happening(), 0..60)
    ) {
        let versions = ["v0", "v1", "v2", "v3"].map(v);
        let mut history = FleetHistory::default();
        // What a person would say was bad, kept apart from the history's own reading.
        let mut bad = BTreeSet::new();
        for (seq, (what, which)) in (1_u64..).zip(story) {
            let version = versions[which].clone();
            let rollout = Rollout {
                candidate: version.clone(),
                baseline: history.last_good().cloned(),
                started_at: Timestamp::from_millis(0),
                observe_until: Timestamp::from_millis(0),
                baseline_workers: 1,
            };
            let happening = match what {
                0 if history.last_good().is_none() => Happening::BaselineAdopted { version },
                0 | 1 => Happening::RolloutStarted { rollout },
                2 => Happening::Promoted { version },
                3 => Happening::Allowed { version },
                4 => {
                    let Some(good) = history.last_good_except(Some(&version)).cloned() else {
                        continue;
                    };
                    prop_assert!(good != version && !bad.contains(&good));
                    prop_assert!(!history.denied().contains(&good));
                    let text = (version.as_str().to_owned(), good.as_str().to_owned());
                    let id = format!("voice-{seq}");
                    let rollback = Rollback { id, ..rollback(&text.0, &text.1) };
                    Happening::RollbackChosen { rollback }
                }
                _ => {
                    let id = history.rollback().map_or_else(String::new, |r| r.id.clone());
                    Happening::RollbackMoved { id, state: State::Clean }
                }
            };
            // A denied version is no candidate: `discover` leaves it out.
            if let Happening::RolloutStarted { rollout } = &happening
                && history.denied().contains(&rollout.candidate)
            {
                continue;
            }
            if history.apply(seq, Timestamp::from_millis(0), &happening).is_err() {
                continue;
            }
            if let Happening::RollbackChosen { rollback } = happening {
                bad.insert(rollback.bad);
            } else if let Happening::Promoted { version }
            | Happening::BaselineAdopted { version } = happening
            {
                bad.remove(&version);
            }
        }
    }
}
