//! Membership tokens, in both directions, against OpenRTC's own code.

use std::process::Command;

use serde_json::{Value, json};

use rollbackd::membership::sign_membership;

use super::support::fleet::{Fleet, SECRET, Setup, python};
use super::support::{client, now};

const SIGN: &str = "
import json, sys
from openrtc.core.membership import sign_membership
print(sign_membership(**json.load(sys.stdin)))
";

const VERIFY: &str = "
import json, sys
from openrtc.core.membership import MembershipVerifier
asked = json.load(sys.stdin)
verifier = MembershipVerifier(secrets=[asked.pop('secret')])
print(json.dumps([verifier.is_valid(**claim) for claim in asked['claims']]))
";

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_that_openrtc_signed_is_accepted_and_a_changed_one_is_not() {
    let mut fleet = Fleet::prepare(Setup::default()).await;
    fleet.start_controller().await;
    let timestamp = now().as_seconds();
    let claim = json!({ "version": "v1", "worker_id": "wörker \"1\"", "timestamp": timestamp });
    let mut asked = claim.clone();
    asked["secret"] = SECRET.into();
    let mut heartbeat = claim;
    heartbeat["token"] = openrtc(SIGN, &asked).trim().into();
    heartbeat["fleet"] = "voice".into();
    heartbeat["draining"] = false.into();
    heartbeat["active_sessions"] = 3.into();
    assert!(post(&fleet, &heartbeat).await < 300, "{heartbeat}");

    for (field, value) in
        [("version", json!("v2")), ("worker_id", json!("2")), ("timestamp", json!(timestamp + 1.0))]
    {
        let mut changed = heartbeat.clone();
        changed[field] = value;
        assert_eq!(post(&fleet, &changed).await, 401, "{changed}");
    }
    let rejected = fleet.until_recorded("worker.rejected").await;
    assert_eq!(rejected["version"], "v2");
    assert_eq!(rejected["reason"], "membership signature is invalid");
}

#[test]
fn openrtc_believes_a_token_of_ours_and_no_changed_one() {
    let timestamps = [now().as_seconds(), now().as_seconds().floor()];
    let versions = ["v1", "2025.07-rc.1+b\u{fc}ild", "\u{1f680} \"quoted\" \\ \u{7f}"];
    let claim = |version: &str, timestamp: f64| {
        let token = sign_membership(version, "w-1", timestamp, SECRET.as_bytes());
        json!({
            "token": token, "version": version, "worker_id": "w-1", "timestamp": timestamp,
        })
    };
    let ours: Vec<Value> =
        versions.iter().flat_map(|v| timestamps.map(|timestamp| claim(v, timestamp))).collect();
    let changed = ours.iter().cloned().map(|mut claim| {
        claim["worker_id"] = "w-2".into();
        claim
    });
    let claims: Vec<Value> = ours.iter().cloned().chain(changed).collect();
    let answer = openrtc(VERIFY, &json!({ "secret": SECRET, "claims": claims }));
    let valid: Vec<bool> = serde_json::from_str(&answer).unwrap();
    assert_eq!(valid, [[true; 6], [false; 6]].concat());
}

/// What a script says to what it is asked.
fn openrtc(script: &str, asked: &Value) -> String {
    let mut file = tempfile::tempfile().unwrap();
    serde_json::to_writer(&file, asked).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let done = Command::new(python()).args(["-c", script]).stdin(file).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

async fn post(fleet: &Fleet, heartbeat: &Value) -> u16 {
    let url = format!("http://{}/api/v1/heartbeat", fleet.address);
    client().post(url).json(heartbeat).send().await.unwrap().status().as_u16()
}
