//! What reaches the controller from outside: heartbeats, alerts, operators, a stop of the service.

use std::collections::BTreeMap;
use std::time::Duration;

use rollbackd::domain::membership::Heartbeat;
use rollbackd::domain::time::Timestamp;
use rollbackd::ports::inbox::{Act, Message, Order, Refusal};
use tokio::sync::{mpsc, oneshot};

use crate::rules::Rule;
use crate::scenario::VERSIONS;
use crate::sim::{BEGIN, Sim};

/// Operators who wait for an answer.
pub(crate) type Waiting = Vec<(String, oneshot::Receiver<Result<String, Refusal>>)>;

/// Everything that reaches the controller in this second.
pub(crate) fn speak(sim: &mut Sim, inbox: &mpsc::Sender<Message>, waiting: &mut Waiting) {
    if sim.scenario.heartbeats && sim.second % 10 == 0 {
        beat(sim, inbox);
    }
    if sim.fault(10) {
        for _ in 0..50 {
            drop(inbox.try_send(Message::Alerted(vec![BTreeMap::new()])));
        }
    }
    if sim.fault(5) {
        let (reply, _) = oneshot::channel();
        drop(inbox.try_send(Message::Reload(reply)));
    }
    hear_answers(sim, waiting);
    for fleet in 0..sim.worlds.len() {
        operate(sim, fleet, inbox, waiting);
    }
    if sim.fault(2) {
        drop(inbox.try_send(Message::Shutdown));
    }
}

fn beat(sim: &mut Sim, inbox: &mpsc::Sender<Message>) {
    let mut beats = Vec::new();
    for world in &sim.worlds {
        for worker in &world.workers {
            beats.push(Heartbeat {
                fleet: world.fleet.clone(),
                worker_id: worker.id.to_string(),
                version: worker.version.parse().unwrap(),
                draining: worker.draining,
                active_sessions: worker.sessions.len() as u64,
                timestamp_seconds: 0.0,
                token: String::new(),
            });
        }
    }
    for beat in beats {
        for _ in 0..=u8::from(sim.fault(20)) {
            if !sim.fault(50) {
                drop(inbox.try_send(Message::Heartbeat(beat.clone())));
            }
        }
    }
}

/// What an operator was told is done is on disk by then.
pub(crate) fn hear_answers(sim: &mut Sim, waiting: &mut Waiting) {
    waiting.retain_mut(|(actor, reply)| match reply.try_recv() {
        Err(oneshot::error::TryRecvError::Empty) => true,
        Err(oneshot::error::TryRecvError::Closed) => false,
        Ok(answer) => {
            sim.say(|| format!("{actor} hears: {answer:?}"));
            let recorded = sim.book.records.iter().any(|record| record.actor == *actor);
            if answer.is_ok() && !recorded {
                sim.breaks(Rule::WordIsKept, format!("{actor} was told: {answer:?}"));
            }
            false
        }
    });
}

fn operate(sim: &mut Sim, fleet: usize, inbox: &mpsc::Sender<Message>, waiting: &mut Waiting) {
    let name = sim.worlds[fleet].fleet.clone();
    let now = BEGIN + sim.second * 1000;
    let pause = sim.book.fleets.get(&name).and_then(|page| page.paused_until);
    let paused = pause.is_some_and(|until| until > now);
    let acts = sim.scenario.acts;
    let act = if sim.stormy() && sim.random.in_1000(acts) {
        any_act(sim)
    } else if !sim.stormy() && acts > 0 && paused && sim.second % 20 == 0 {
        Act::Resume
    } else {
        return;
    };
    let actor = format!("operator-{}-{fleet}", sim.second);
    sim.say(|| format!("{actor} on {name}: {act:?}"));
    let (reply, answer) = oneshot::channel();
    let (actor_proven, reason) = (false, "simulated".to_owned());
    let order = Order { fleet: name, act, actor: actor.clone(), actor_proven, reason };
    if inbox.try_send(Message::Order(order, reply)).is_ok() {
        waiting.push((actor, answer));
    }
}

fn any_act(sim: &mut Sim) -> Act {
    let random = &mut sim.random;
    let version = VERSIONS[usize::try_from(random.below(3)).unwrap()].parse().unwrap();
    let some = random.in_1000(500);
    match random.below(7) {
        0 => {
            let now = BEGIN + sim.second * 1000 + sim.weather.clock_off;
            let until = Timestamp::from_millis(now) + Duration::from_secs(40);
            Act::Pause { until: some.then_some(until) }
        }
        1 | 2 => Act::Resume,
        3 => Act::Approve { version: some.then_some(version) },
        4 => Act::RollBack { version: some.then_some(version), to: None },
        5 => Act::Allow { version },
        _ => Act::Abandon,
    }
}
