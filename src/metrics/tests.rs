//! Every family is there once used, and goes with what it is about.

use super::*;

fn series(metrics: &Metrics, containing: &str) -> Vec<String> {
    let text = metrics.encode().unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#') && line.contains(containing));
    lines.map(str::to_owned).collect()
}

#[test]
fn every_metric_has_the_prefix_and_is_there_once_used() {
    let metrics = Metrics::new("1.2.3", "abc").unwrap();
    metrics.evaluated("sessions/Failing", "healthy");
    metrics.evaluation_finished(Timestamp::from_millis(1_500), Duration::from_millis(20));
    metrics.query_finished(Duration::from_millis(5), false);
    metrics.set_session_failure_ratio("voice", "v2", 0.25);
    metrics.set_evidence_log10("voice", "v2", "sessions/Failing", 1.5);
    metrics.set_evidence_threshold_log10("voice", 3.3);
    metrics.set_rollout_state("voice", "v2", "observing");
    metrics.set_rollback_state("voice", Some(("v2", "starting")));
    metrics.set_seen("voice", "v2", 2.0, 7.0);
    metrics.rollback_finished("voice", "clean");
    metrics.rollback_step_finished("draining", Duration::from_secs(90));
    metrics.set_draining_sessions("voice", "v2", 4.0);
    metrics.set_last_good_ready("voice", true);
    metrics.set_denied_workers("voice", "v2", 1);
    metrics.set_ledger_failing(true);
    metrics.set_ledger_verified();
    metrics.set_breaker(true, 4);
    metrics.notice_finished("cdevents", "sent");
    metrics.records_appended(2);
    for want in [
        r#"rollbackd_build_info{revision="abc",version="1.2.3"} 1"#,
        r#"rollbackd_evaluations_total{rule="sessions/Failing",verdict="healthy"} 1"#,
        "rollbackd_evaluation_duration_seconds_count 1",
        "rollbackd_query_duration_seconds_count 1",
        "rollbackd_query_failures_total 1",
        r#"rollbackd_session_failure_ratio{fleet="voice",version="v2"} 0.25"#,
        r#"rollbackd_evidence_log10{fleet="voice",rule="sessions/Failing",version="v2"} 1.5"#,
        r#"rollbackd_rollout_state{fleet="voice",state="observing",version="v2"} 1"#,
        r#"rollbackd_evidence_threshold_log10{fleet="voice"} 3.3"#,
        r#"rollbackd_rollback_state{fleet="voice",state="starting",version="v2"} 1"#,
        r#"rollbackd_workers{fleet="voice",version="v2"} 2"#,
        r#"rollbackd_live_sessions{fleet="voice",version="v2"} 7"#,
        r#"rollbackd_rollbacks_total{fleet="voice",outcome="clean"} 1"#,
        r#"rollbackd_rollback_step_duration_seconds_count{step="draining"} 1"#,
        r#"rollbackd_draining_sessions{fleet="voice",version="v2"} 4"#,
        r#"rollbackd_last_good_ready{fleet="voice"} 1"#,
        r#"rollbackd_denied_workers{fleet="voice",version="v2"} 1"#,
        "rollbackd_ledger_failing 1",
        "rollbackd_ledger_verified 1",
        "rollbackd_breaker_open 1",
        "rollbackd_regressed_fleets 4",
        r#"rollbackd_alerts_received_total{result="malformed"} 0"#,
        r#"rollbackd_notices_total{outcome="sent",to="cdevents"} 1"#,
        "rollbackd_ledger_records_total 2",
        "rollbackd_last_evaluation_timestamp_seconds 1.5",
    ] {
        assert_eq!(series(&metrics, want), [want]);
    }
}

#[test]
fn the_process_is_shown_under_the_names_that_all_processes_have() {
    let started_at = Timestamp::from_millis(1_700_000_000_500);
    let metrics = Metrics::new("1", "a").unwrap().with_process(started_at).unwrap();
    let value = |name: &str| -> f64 {
        let found = series(&metrics, &format!("{name} "));
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].split_once(' ').unwrap().1.parse().unwrap()
    };
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
    let (before, file) = (value("process_open_fds"), std::fs::File::open("/dev/null").unwrap());
    assert!(value("process_open_fds") > 3.0 && value("process_max_fds") > before);
    drop(file);
    assert!(value("process_threads") >= 1.0);
    assert!((value("process_start_time_seconds") - 1_700_000_000.5).abs() < 1e-6);
    let cpu = value("process_cpu_seconds_total");
    let mut work = 0_u64;
    while value("process_cpu_seconds_total") <= cpu {
        work = work.wrapping_add(1);
    }
    assert!(series(&metrics, "rollbackd_process").is_empty());
}

#[test]
fn a_state_is_shown_alone_and_only_while_there_is_one() {
    let metrics = Metrics::new("1", "a").unwrap();
    metrics.set_rollback_state("voice", Some(("v2", "starting")));
    metrics.set_rollback_state("chat", Some(("v2", "stuck")));
    metrics.set_rollback_state("voice", Some(("v2", "draining")));
    let state = |fleet, state| {
        format!(r#"rollbackd_rollback_state{{fleet="{fleet}",state="{state}",version="v2"}} 1"#)
    };
    let shown = series(&metrics, "rollbackd_rollback_state");
    assert_eq!(shown, [state("chat", "stuck"), state("voice", "draining")]);
    metrics.set_rollback_state("voice", None);
    assert_eq!(series(&metrics, "rollbackd_rollback_state"), [state("chat", "stuck")]);

    metrics.set_rollout_state("voice", "v3", "suspect");
    metrics.set_evidence_log10("voice", "v3", "sessions/Failing", 1.5);
    metrics.keep_rollouts("voice", |version| version == "v3");
    assert_eq!(series(&metrics, "rollbackd_rollout_state").len(), 1);
    metrics.keep_rollouts("voice", |_| false);
    assert_eq!(series(&metrics, "rollbackd_rollout_state"), [""; 0]);
    assert_eq!(series(&metrics, "rollbackd_evidence_log10"), [""; 0]);
}

#[test]
fn a_rollout_is_in_one_state_at_a_time() {
    let metrics = Metrics::new("1", "a").unwrap();
    metrics.set_rollout_state("voice", "v2", "observing");
    metrics.set_rollout_state("voice", "v3", "observing");
    metrics.set_rollout_state("voice", "v2", "promoted");
    let want = [
        r#"rollbackd_rollout_state{fleet="voice",state="observing",version="v3"} 1"#,
        r#"rollbackd_rollout_state{fleet="voice",state="promoted",version="v2"} 1"#,
    ];
    assert_eq!(series(&metrics, "rollout_state"), want);
}

#[test]
fn series_go_when_what_they_are_about_goes() {
    let metrics = Metrics::new("1", "a").unwrap();
    for fleet in ["voice", "chat"] {
        for version in ["v1", "v2"] {
            metrics.set_session_failure_ratio(fleet, version, 0.1);
            metrics.set_evidence_log10(fleet, version, "g/a", 0.1);
            metrics.set_evidence_log10(fleet, version, "g/b", 0.1);
            metrics.set_rollout_state(fleet, version, "observing");
            metrics.set_draining_sessions(fleet, version, 1.0);
        }
        metrics.set_last_good_ready(fleet, true);
        metrics.rollback_finished(fleet, "clean");
    }
    metrics.evaluated("g/b", "healthy");

    metrics.forget_version("voice", "v2");
    let left = series(&metrics, r#"fleet="voice""#);
    assert_eq!(left.iter().filter(|line| line.contains("v2")).count(), 0, "{left:?}");
    assert_eq!(left.len(), 7, "{left:?}");

    metrics.forget_fleet("voice");
    assert_eq!(series(&metrics, r#"fleet="voice""#).len(), 0);
    assert_eq!(series(&metrics, r#"fleet="chat""#).len(), 12);

    metrics.forget_rule("g/b");
    assert_eq!(series(&metrics, "g/b").len(), 0);
    assert_eq!(series(&metrics, "g/a").len(), 2);
}
