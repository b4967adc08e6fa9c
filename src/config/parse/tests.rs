use proptest::prelude::*;

use super::*;
use crate::config::{Authorization, Mode, OnStartTimeout, Secret, SecretSource, WhenUnsure};
use crate::domain::role::Roles;

const MINIMAL: &str = include_str!("../../../tests/fixtures/config/minimal.yml");
const FULL: &str = include_str!("../../../tests/fixtures/config/full.yml");
const BAD: &str = include_str!("../../../tests/fixtures/config/bad.yml");

fn problems(text: &str) -> String {
    let parsed = parse(text, Path::new("etc/rollbackd.yml"));
    assert_eq!(parsed.config.is_none(), !parsed.problems.is_empty());
    let lines: Vec<_> = parsed.problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[test]
fn what_is_left_out_has_a_default_and_paths_start_at_the_file() {
    let config = parse(MINIMAL, Path::new("etc/rollbackd.yml")).config.unwrap();
    insta::assert_debug_snapshot!(config, @r###"
    Config {
        directory: "etc",
        listen: 127.0.0.1:9788,
        auth: AuthConfig {
            read: Holders {
                token_files: [],
                users: [],
            },
            alert: Holders {
                token_files: [],
                users: [],
            },
            operate: Holders {
                token_files: [],
                users: [],
            },
            anonymous: None,
        },
        web_config_file: None,
        prometheus: ServerConfig {
            urls: [
                "http://127.0.0.1:9090",
            ],
            timeout: 10s,
            retries: 2,
            authorization: None,
            basic_auth: None,
            tls_config: TlsConfig {
                ca_file: None,
                cert_file: None,
                key_file: None,
                insecure_skip_verify: false,
            },
            headers: {},
        },
        rule_files: [
            "etc/rules/*.yml",
        ],
        ledger: "etc/rollbackd.db",
        signing_key_file: "etc/rollbackd.key",
        checkpoint: None,
        alertmanager: None,
        cdevents: None,
        breaker: Breaker {
            fleets_max: 3,
            share_max: Share(
                0.2,
            ),
            within: 600s,
        },
        fleets: [
            FleetConfig {
                name: FleetName(
                    "voice",
                ),
                by: [],
                version_label: "deployment_version",
                mode: Automatic,
                observe_for: 3600s,
                history: 21600s,
                false_rollback_rate: Share(
                    0.001,
                ),
                when_unsure: Rollback,
                workers: "openrtc_worker_info",
                draining: None,
                live: None,
                start: None,
                drain: DrainVia {
                    manifest: true,
                    command: None,
                },
                limits: Limits {
                    rollbacks: 3,
                    per: 86400s,
                },
                start_timeout: 600s,
                on_start_timeout: Stuck,
                drain_deadline: 7200s,
                membership: None,
            },
        ],
    }
    "###);
}

#[test]
fn what_is_given_is_read() {
    let config = parse(FULL, Path::new("rollbackd.yml")).config.unwrap();
    assert_eq!(config.directory, Path::new("."));
    assert_eq!(config.rule_files, ["a.yml", "/etc/rollbackd/*.yml"]);
    assert_eq!(config.ledger, Path::new("/var/lib/rollbackd.db"));
    assert_eq!(config.prometheus.urls, ["https://a.example/prometheus", "https://b.example"]);
    assert_eq!((config.prometheus.timeout, config.prometheus.retries), (Duration::from_secs(5), 0));
    let credentials = SecretSource::Inline(Secret::new("hush".into()));
    let authorization = Authorization { type_: "Token".into(), credentials };
    assert_eq!(config.prometheus.authorization, Some(authorization));
    assert_eq!(config.prometheus.tls_config.ca_file.as_deref(), Some(Path::new("ca.pem")));
    assert!(config.prometheus.tls_config.insecure_skip_verify);
    assert_eq!(config.prometheus.headers["X-Scope-OrgID"], "voice");
    let alertmanager = config.alertmanager.as_ref().unwrap();
    assert_eq!((alertmanager.urls.len(), alertmanager.timeout), (2, Duration::from_secs(3)));
    let cdevents = config.cdevents.as_ref().unwrap();
    assert_eq!(cdevents.source, "/rollbackd/eu");
    assert_eq!(cdevents.artifact, "pkg:oci/voice@{{version}}");
    assert_eq!(cdevents.server.headers["X-Team"], "voice");
    let share_max = "50%".parse().unwrap();
    let breaker = Breaker { fleets_max: 10, share_max, within: Duration::from_mins(5) };
    assert_eq!(config.breaker, breaker);
    let fleet = config.fleet(&"voice".parse().unwrap()).unwrap();
    assert_eq!(fleet.by, ["service", "region"]);
    assert_eq!(
        (fleet.mode, fleet.when_unsure, fleet.on_start_timeout),
        (Mode::Approve, WhenUnsure::Hold, OnStartTimeout::Proceed)
    );
    assert_eq!(fleet.observe_for, Duration::from_mins(90));
    assert_eq!(fleet.workers, "worker_info{job=\"voice\"}");
    assert_eq!(fleet.start.as_ref().unwrap().command, ["start", "{{version}}", "{{count}}"]);
    let check = fleet.start.as_ref().unwrap().check.as_ref().unwrap();
    assert_eq!(check.command, ["can-start", "{{version}}"]);
    assert_eq!((check.interval, check.timeout), (Duration::from_mins(2), Duration::from_mins(1)));
    assert!(fleet.drain.manifest);
    assert_eq!(fleet.drain.command.as_ref().unwrap().len(), 2);
    assert_eq!(fleet.limits.rollbacks, 1);
    assert_eq!(fleet.membership.as_ref().unwrap().secret_files.len(), 2);
    assert_eq!(config.auth.read.users, ["grafana"]);
    assert_eq!(config.auth.alert.token_files, [Path::new("/etc/alertmanager.token")]);
    assert_eq!(config.auth.anonymous, Some(Roles::NONE));
    assert_eq!(config.web_config_file.as_deref(), Some(Path::new("web.yml")));
    assert!(
        problems(&format!("{MINIMAL}auth: {{ read: {{ users: [a] }} }}"))
            .contains("no users without")
    );
}

#[test]
fn where_events_go_is_checked() {
    #[rustfmt::skip]
    let cases: &[(&str, &str)] = &[
        ("url: http://b, environment: e",                              ""),
        ("url: http://b",                                              "environment: missing"),
        ("environment: e",                                             "url: missing"),
        ("url: http://b, environment: e, retries: 3",                  "unknown key `retries`"),
        ("url: http://b, environment: e, source: 'a b'",               "is no URI reference"),
        ("url: http://b, environment: e, artifact: voice",             "expected a package URL"),
        ("url: http://b, environment: e, artifact: 'pkg:a@{{worker}}'", "unknown placeholder"),
    ];
    for (keys, want) in cases {
        let found = problems(&format!("{MINIMAL}cdevents: {{ {keys} }}\n"));
        assert!(found.contains(want) && found.is_empty() == want.is_empty(), "{keys}: {found}");
    }
}

#[test]
fn nobody_operates_without_credentials_from_elsewhere() {
    let auth = "auth: { anonymous: [read, operate] }\n";
    assert_eq!(problems(&format!("{MINIMAL}{auth}")), "");
    insta::assert_snapshot!(
        problems(&format!("{}{auth}", MINIMAL.replace("127.0.0.1:9788", "10.0.0.1:9788"))),
        @"etc/rollbackd.yml:10:27: auth.anonymous[1]: nobody operates without credentials but on a loopback address"
    );
}

#[test]
fn every_problem_is_told_at_once_and_placed() {
    insta::assert_snapshot!(problems(BAD), @r###"
    etc/rollbackd.yml:1:1: signing_key_file: missing
    etc/rollbackd.yml:1:9: listen: expected an address and port such as `127.0.0.1:9788`, found `localhost`
    etc/rollbackd.yml:3:9: prometheus.url[0]: expected an `http` or `https` URL, found `ftp:`
    etc/rollbackd.yml:3:18: prometheus.url[1]: a URL shows in logs; put user and password into `basic_auth`
    etc/rollbackd.yml:3:38: prometheus.url[2]: expected text, found a number; put it in quotes
    etc/rollbackd.yml:3:41: prometheus.url[3]: `http://a?b=c` must end with its path
    etc/rollbackd.yml:4:12: prometheus.timeout: must be longer than zero
    etc/rollbackd.yml:5:12: prometheus.retries: expected a whole number from 0 to 10
    etc/rollbackd.yml:6:18: prometheus.authorization: both `credentials` and `credentials_file` are given; use one
    etc/rollbackd.yml:7:15: prometheus.basic_auth: `password` or `password_file` is missing
    etc/rollbackd.yml:7:15: prometheus.basic_auth: both `authorization` and `basic_auth` are given; use one
    etc/rollbackd.yml:8:15: prometheus.tls_config: `cert_file` and `key_file` need each other
    etc/rollbackd.yml:8:35: prometheus.tls_config: unknown key `server_name`; there are `ca_file`, `cert_file`, `key_file`, `insecure_skip_verify`
    etc/rollbackd.yml:9:21: prometheus.headers.a b: not a header name
    etc/rollbackd.yml:9:39: prometheus.headers.Authorization: use `authorization` or `basic_auth`
    etc/rollbackd.yml:9:45: prometheus.headers.X: expected text, found a number; put it in quotes
    etc/rollbackd.yml:10:13: rule_files: expected at least one file
    etc/rollbackd.yml:11:9: ledger: expected `sqlite:` and a path, found `postgres://x`
    etc/rollbackd.yml:12:1: unknown key `signing_keyfile`; there are `listen`, `auth`, `web_config_file`, `prometheus`, `rule_files`, `ledger`, `signing_key_file`, `checkpoint`, `alertmanager`, `cdevents`, `breaker`, `fleets`
    etc/rollbackd.yml:13:15: alertmanager: expected a map, found text
    etc/rollbackd.yml:16:5: fleets[0].name: `name` is here twice
    etc/rollbackd.yml:17:9: fleets[0].by: `deployment_version` is the version label; versions share a fleet
    etc/rollbackd.yml:17:9: fleets[0].by: `region` is here twice
    etc/rollbackd.yml:17:46: fleets[0].by[3]: `0day` is not a label name: expected letters, digits and `_`
    etc/rollbackd.yml:17:52: fleets[0].by[4]: `__name__` is a label of Prometheus' own
    etc/rollbackd.yml:18:11: fleets[0].mode: expected `automatic` or `approve` or `observe`, found `auto`
    etc/rollbackd.yml:20:14: fleets[0].history: history of 1h is shorter than observe_for of 2h; a candidate needs at least as much of the baseline's past to be compared with
    etc/rollbackd.yml:21:26: fleets[0].false_rollback_rate: expected a share above 0 and below 1, such as `5%` or `0.05`
    etc/rollbackd.yml:22:14: fleets[0].workers: `workers` is not a series selector: expected a metric name, found `sum(`
    etc/rollbackd.yml:23:11: fleets[0].live: `live` is not a series selector: expected no range; rollbackd writes it itself
    etc/rollbackd.yml:24:23: fleets[0].start.command: expected at least one argument, the program
    etc/rollbackd.yml:25:12: fleets[0].drain: expected `manifest: {}`, a `command`, or both
    etc/rollbackd.yml:26:26: fleets[0].limits.rollbacks: expected a whole number from 1 to 100
    etc/rollbackd.yml:26:34: fleets[0].limits.per: `3000y` is longer than a year
    etc/rollbackd.yml:27:20: fleets[0].start_timeout: expected a duration with a unit, such as `15s`, found `15`
    etc/rollbackd.yml:28:21: fleets[0].drain_deadline: expected a duration such as `15s` or `1h30m`, found `soon`
    etc/rollbackd.yml:29:33: fleets[0].membership.secret_files: expected at least one file
    etc/rollbackd.yml:30:11: fleets[1].name: there is already a fleet `voice`
    etc/rollbackd.yml:31:14: fleets[1].workers: `workers` is not a series selector: expected no `offset`; rollbackd writes it itself
    etc/rollbackd.yml:32:31: fleets[1].start.command[1]: unknown placeholder `{{verison}}`; there are `{{version}}`, `{{count}}`, `{{fleet}}`, `{{effect}}`
    etc/rollbackd.yml:32:46: fleets[1].start.command[2]: `{{` is never closed
    etc/rollbackd.yml:32:62: fleets[1].start.timeout: `1us` is not a whole number of milliseconds
    etc/rollbackd.yml:32:74: fleets[1].start.check.command: missing
    etc/rollbackd.yml:32:76: fleets[1].start.check: unknown key `every`; there are `command`, `interval`, `timeout`
    etc/rollbackd.yml:33:26: fleets[1].drain.manifest: unknown key `now`; none is expected here
    etc/rollbackd.yml:33:48: fleets[1].drain.command: expected a list, found text
    etc/rollbackd.yml:34:5: fleets[2].drain: missing
    etc/rollbackd.yml:34:5: fleets[2].workers: missing
    etc/rollbackd.yml:34:11: fleets[2].name: fleet name must have 1 to 63 letters, digits, `_` or `-`
    etc/rollbackd.yml:35:5: fleets[3]: expected a map, found text
    etc/rollbackd.yml:36:1: unknown key `surprise`; there are `listen`, `auth`, `web_config_file`, `prometheus`, `rule_files`, `ledger`, `signing_key_file`, `checkpoint`, `alertmanager`, `cdevents`, `breaker`, `fleets`
    etc/rollbackd.yml:37:15: auth.read: expected `token_files`, `users`, or both
    etc/rollbackd.yml:37:41: auth.alert.token_files: expected a list, found text
    etc/rollbackd.yml:37:57: auth.operate: unknown key `tokens`; there are `token_files`, `users`
    etc/rollbackd.yml:37:78: auth.operate.users[0]: expected text, found a number; put it in quotes
    etc/rollbackd.yml:37:96: auth.anonymous[0]: expected `read` or `alert` or `operate`, found `write`
    etc/rollbackd.yml:38:20: breaker.fleets: expected a whole number from 1 to 100000
    etc/rollbackd.yml:38:30: breaker.share: expected a share above 0 and below 1, such as `5%` or `0.05`
    etc/rollbackd.yml:38:36: breaker: unknown key `per`; there are `fleets`, `share`, `within`
    "###);
}

#[test]
fn what_must_be_there_is_named() {
    insta::assert_snapshot!(problems("{}"), @r###"
    etc/rollbackd.yml:1:1: fleets: missing
    etc/rollbackd.yml:1:1: ledger: missing
    etc/rollbackd.yml:1:1: listen: missing
    etc/rollbackd.yml:1:1: prometheus: missing
    etc/rollbackd.yml:1:1: rule_files: missing
    etc/rollbackd.yml:1:1: signing_key_file: missing
    "###);
    insta::assert_snapshot!(problems(""), @r#"etc/rollbackd.yml:1:1: expected a map, found nothing"#);
    insta::assert_snapshot!(problems("a: [1"), @r#"etc/rollbackd.yml:1:4: not YAML: unclosed bracket '['"#);
    insta::assert_snapshot!(problems("a: &a [*b]"), @r#"etc/rollbackd.yml:1:8: not YAML: alias references unknown anchor"#);
}

#[test]
fn a_secret_never_shows() {
    let config = parse(FULL, Path::new("rollbackd.yml")).config.unwrap();
    let shown = format!("{config:?}");
    assert!(shown.contains("<secret>") && !shown.contains("hush"), "{shown}");
}

#[test]
fn a_directory_that_looks_like_a_glob_is_none() {
    let parsed = parse(MINIMAL, Path::new("/etc/[a]/rollbackd.yml"));
    assert_eq!(parsed.rule_files, ["/etc/[[]a[]]/rules/*.yml"]);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let parsed = parse(&text, Path::new("x.yml"));
        prop_assert_eq!(parsed.config.is_none(), !parsed.problems.is_empty());
    }

    #[test]
    fn no_broken_config_makes_it_panic(
        cut in 0..FULL.len(),
        put in "[\\[\\]{}:&*!|>'\"#a-z0-9 \n-]{0,6}",
        skip in 0..9usize,
    ) {
        let end = (cut + skip).min(FULL.len());
        let parsed = parse(&format!("{}{put}{}", &FULL[..cut], &FULL[end..]), Path::new("x.yml"));
        prop_assert_eq!(parsed.config.is_none(), !parsed.problems.is_empty());
    }
}
