//! From the config's words to the adapters', which know no config.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use base64::prelude::{BASE64_STANDARD, Engine};

use crate::adapters::command::{CommandPlatform, Commands};
use crate::adapters::notify::{HttpNotifier, Reach};
use crate::adapters::prometheus::{self, PrometheusSource};
use crate::config::{Config, SecretSource, ServerConfig};
use crate::membership::MembershipVerifier;
use crate::metrics::Metrics;

pub(super) fn verifiers(config: &Config) -> anyhow::Result<BTreeMap<String, MembershipVerifier>> {
    let mut verifiers = BTreeMap::new();
    for fleet in &config.fleets {
        let Some(membership) = &fleet.membership else { continue };
        let mut secrets = Vec::new();
        for path in &membership.secret_files {
            let secret = std::fs::read_to_string(path)
                .with_context(|| format!("failed to read the secret file {}", path.display()))?;
            secrets.push(secret.trim_end().as_bytes().to_vec());
        }
        let verifier = MembershipVerifier::new(secrets, membership.max_age)
            .with_context(|| format!("fleet {}: membership", fleet.name))?;
        verifiers.insert(fleet.name.to_string(), verifier);
    }
    Ok(verifiers)
}

pub(super) fn platform(config: &Config) -> anyhow::Result<CommandPlatform> {
    let commands = config.fleets.iter().map(|fleet| {
        let commands = Commands {
            start: fleet.start.as_ref().map(|start| start.command.clone()),
            drain: fleet.drain.command.clone(),
            check: fleet
                .start
                .as_ref()
                .and_then(|start| start.check.as_ref())
                .map(|check| (check.command.clone(), check.timeout)),
            timeout: fleet.start.as_ref().map_or(COMMAND_TIMEOUT, |start| start.timeout),
        };
        (fleet.name.clone(), commands)
    });
    Ok(CommandPlatform::new(commands.collect())?)
}

/// For a fleet that has a drain command and no start command.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(1);

pub(super) fn source(config: &ServerConfig, metrics: Metrics) -> anyhow::Result<PrometheusSource> {
    let source = unobserved(config, config.timeout)?;
    Ok(source.with_observer(Arc::new(move |took, ok| metrics.query_finished(took, ok))))
}

/// For long ranges, which nobody waits for at three in the morning.
pub(super) fn patient_source(config: &ServerConfig) -> anyhow::Result<PrometheusSource> {
    unobserved(config, config.timeout.max(PATIENCE))
}

const PATIENCE: Duration = Duration::from_mins(2);

fn unobserved(config: &ServerConfig, timeout: Duration) -> anyhow::Result<PrometheusSource> {
    Ok(PrometheusSource::new(settings(config, timeout)?)?)
}

/// Where notices of one kind go.
pub(super) fn notifier(config: &ServerConfig, reach: Reach) -> anyhow::Result<HttpNotifier> {
    Ok(HttpNotifier::new(settings(config, config.timeout)?, reach)?)
}

fn settings(config: &ServerConfig, timeout: Duration) -> anyhow::Result<prometheus::Settings> {
    let secret = |text: &str| prometheus::Secret::new(text.to_owned());
    let headers = config.headers.iter().map(|(name, value)| (name.clone(), secret(value)));
    let tls = &config.tls_config;
    Ok(prometheus::Settings {
        urls: config.urls.clone(),
        timeout,
        retries: config.retries,
        headers: headers.collect(),
        authorization: authorization(config)?,
        tls: prometheus::Tls {
            ca_file: tls.ca_file.clone(),
            client: tls.cert_file.clone().zip(tls.key_file.clone()),
            insecure_skip_verify: tls.insecure_skip_verify,
        },
    })
}

fn authorization(config: &ServerConfig) -> anyhow::Result<prometheus::Authorization> {
    if let Some(basic) = &config.basic_auth {
        let password = match &basic.password {
            SecretSource::Inline(secret) => secret.expose().to_owned(),
            SecretSource::File(path) => std::fs::read_to_string(path)
                .with_context(|| format!("failed to read {}", path.display()))?
                .trim_end()
                .to_owned(),
        };
        return Ok(prometheus::Authorization::Header(prometheus::Secret::new(format!(
            "Basic {}",
            BASE64_STANDARD.encode(format!("{}:{password}", basic.username))
        ))));
    }
    Ok(match &config.authorization {
        None => prometheus::Authorization::None,
        Some(bearer) => match &bearer.credentials {
            SecretSource::Inline(secret) => prometheus::Authorization::Header(
                prometheus::Secret::new(format!("{} {}", bearer.type_, secret.expose())),
            ),
            SecretSource::File(path) => prometheus::Authorization::CredentialsFile {
                scheme: bearer.type_.clone(),
                path: path.clone(),
            },
        },
    })
}
