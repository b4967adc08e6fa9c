//! Who is let in, read from files and read again when they change.
//!
//! ```text
//! auth (config, on reload) ──► tokens ─┐
//! web config file ──► users, headers ──┴─► Access ──► every request
//!  (when it changes)└─► certificates, keys ──────────► every new connection
//! ```
//!
//! **Invariant:** what cannot be read changes nothing: the last good files stay in force, and the
//! log says why.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

use super::access::access;
use crate::config::web::{self, WebConfig, WebTls};
use crate::config::{AuthConfig, Config, SecretSource};
use crate::http::{Access, ClientCerts, TlsSettings};

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Keeps who is let in.
pub(super) struct Gate {
    /// Whether only this machine can speak to where it listens, whatever the config may say by
    /// the time it is read again.
    loopback: bool,
    web_config_file: Option<PathBuf>,
    access: watch::Sender<Arc<Access>>,
    tls: watch::Sender<Option<Arc<ServerConfig>>>,
    last: Mutex<Last>,
}

/// What was read last.
struct Last {
    auth: AuthConfig,
    stamps: Vec<Stamp>,
}

/// A file, and what changes when it is written.
#[derive(PartialEq, Eq)]
struct Stamp(PathBuf, Option<(SystemTime, u64, u64)>);

struct Read {
    access: Access,
    tls: Option<Arc<ServerConfig>>,
    files: Vec<PathBuf>,
}

impl Gate {
    /// # Errors
    /// When a file cannot be read, or does not say what it should.
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        let loopback = config.listen.ip().is_loopback();
        let web_config_file = config.web_config_file.clone();
        let read = read(&config.auth, web_config_file.as_deref(), loopback)?;
        let last = Last { auth: config.auth.clone(), stamps: stamps(&read.files) };
        Ok(Self {
            loopback,
            web_config_file,
            access: watch::Sender::new(Arc::new(read.access)),
            tls: watch::Sender::new(read.tls),
            last: Mutex::new(last),
        })
    }

    pub(super) fn access(&self) -> watch::Receiver<Arc<Access>> {
        self.access.subscribe()
    }

    pub(super) fn tls(&self) -> watch::Receiver<Option<Arc<ServerConfig>>> {
        self.tls.subscribe()
    }

    /// Reads everything again, under what the config now says.
    ///
    /// # Errors
    /// When something cannot be read; then nothing has changed.
    pub(super) fn reload(&self, auth: &AuthConfig) -> anyhow::Result<()> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let files: Vec<_> = last.stamps.iter().map(|stamp| stamp.0.clone()).collect();
        // Taken before reading: what is written meanwhile is read once more.
        let before = stamps(&files);
        let read = read(auth, self.web_config_file.as_deref(), self.loopback)?;
        if read.tls.is_some() != self.tls.borrow().is_some() {
            bail!("TLS cannot be turned on or off without a restart");
        }
        last.auth = auth.clone();
        last.stamps = if read.files == files { before } else { stamps(&read.files) };
        self.access.send_replace(Arc::new(read.access));
        self.tls.send_replace(read.tls);
        Ok(())
    }

    /// Follows the web config file, and the certificates and keys it names. Never ends.
    pub(super) async fn follow(&self) {
        let mut pulse = interval(LOOK_EVERY);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pulse.tick().await;
            self.look();
        }
    }

    fn look(&self) {
        let auth = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let files: Vec<_> = last.stamps.iter().map(|stamp| stamp.0.clone()).collect();
            let now = stamps(&files);
            if now == last.stamps {
                return;
            }
            // Also if they turn out bad: that is told once for each change.
            last.stamps = now;
            last.auth.clone()
        };
        match self.reload(&auth) {
            Ok(()) => info!("web config file read again"),
            Err(problem) => error!("the web config file is not followed: {problem:#}"),
        }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let of = |meta: Metadata| Some((meta.modified().ok()?, meta.len(), meta.ino()));
    let stamp = |path: &PathBuf| Stamp(path.clone(), std::fs::metadata(path).ok().and_then(of));
    files.iter().map(stamp).collect()
}

fn read(auth: &AuthConfig, web_file: Option<&Path>, loopback: bool) -> anyhow::Result<Read> {
    let web = match web_file {
        None => WebConfig::default(),
        Some(path) => web::load(path).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("{}", lines.join("\n"))
        })?,
    };
    let mut files: Vec<PathBuf> = web_file.map(Path::to_owned).into_iter().collect();
    let tls = match &web.tls {
        None => None,
        Some(tls) => {
            let settings = settings(tls, &mut files)?;
            let named = || web_file.unwrap_or(Path::new("")).display().to_string();
            Some(settings.server_config().with_context(named)?)
        }
    };
    Ok(Read { access: access(auth, &web, loopback)?, tls, files })
}

fn settings(tls: &WebTls, files: &mut Vec<PathBuf>) -> anyhow::Result<TlsSettings> {
    let mut pem = |source: &SecretSource| match source {
        SecretSource::Inline(text) => Ok(text.expose().as_bytes().to_vec()),
        SecretSource::File(path) => {
            files.push(path.clone());
            std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))
        }
    };
    let clients = match &tls.clients {
        clients if !clients.asked => None,
        clients => Some(ClientCerts {
            required: clients.required,
            ca_pem: clients.ca.as_ref().map(&mut pem).transpose()?,
            allowed_sans: clients.allowed_sans.clone(),
        }),
    };
    Ok(TlsSettings {
        chain_pem: pem(&tls.cert)?,
        key_pem: pem(&tls.key)?,
        clients,
        tls12: tls.tls12,
        tls13: tls.tls13,
        cipher_suites: tls.cipher_suites.clone(),
        curves: tls.curves.clone(),
        prefer_server_order: tls.prefer_server_order,
    })
}
