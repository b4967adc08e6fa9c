//! One command, from start to end or timeout.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::task::JoinHandle;

use super::argv::{Argv, Placeholder, Values};

/// How much of a command's last output an error repeats, in bytes.
const OUTPUT_BYTES_MAX: usize = 8 << 10;

/// How long to wait for the rest of the output of a command that has ended.
const OUTPUT_GRACE: Duration = Duration::from_millis(200);

/// Runs the command; the error says how it ended and what it said last.
pub(super) async fn run(argv: &Argv, values: &Values, timeout: Duration) -> Result<(), String> {
    let program = &argv.program;
    let arguments = argv.fill(values)?;
    let mut child = Command::new(program)
        .args(arguments)
        .env("ROLLBACKD_EFFECT", values.get(Placeholder::Effect))
        .env("ROLLBACKD_FLEET", values.get(Placeholder::Fleet))
        .env("ROLLBACKD_VERSION", values.get(Placeholder::Version))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A Ctrl-C meant for rollbackd must not reach what the command has started.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("`{program}` could not be run: {error}"))?;
    let tail = Tail::default();
    let readers = [
        child.stdout.take().map(|out| tail.follow(out)),
        child.stderr.take().map(|err| tail.follow(err)),
    ];
    let Ok(ended) = tokio::time::timeout(timeout, child.wait()).await else {
        // Only the command itself is ended: its children may be workers with calls on them.
        let killed = match child.kill().await {
            Ok(()) => "was ended",
            Err(_gone) => "is gone",
        };
        let said = tail.text();
        return Err(format!("`{program}` was not done after {timeout:?} and {killed}{said}"));
    };
    let status = ended.map_err(|error| format!("`{program}` could not be waited for: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let rest = async {
        for reader in readers.into_iter().flatten() {
            // It only ends; nothing in it can fail.
            drop(reader.await);
        }
    };
    // A child left behind may hold the output open for ever.
    drop(tokio::time::timeout(OUTPUT_GRACE, rest).await);
    Err(format!("`{program}` failed: {status}{}", tail.text()))
}

/// The last bytes of everything a command said.
#[derive(Clone, Default)]
struct Tail(Arc<Mutex<Vec<u8>>>);

impl Tail {
    /// Reads to the end even when nobody listens any more, so that no writer meets a closed pipe.
    fn follow(&self, mut output: impl AsyncRead + Send + Unpin + 'static) -> JoinHandle<()> {
        let tail = self.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; OUTPUT_BYTES_MAX];
            while let Ok(read @ 1..) = output.read(&mut buffer).await {
                tail.push(&buffer[..read]);
            }
        })
    }

    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        let excess = kept.len().saturating_sub(OUTPUT_BYTES_MAX);
        kept.drain(..excess);
    }

    /// Ready to stand behind a sentence; empty when nothing was said.
    fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said = String::from_utf8_lossy(&kept);
        if said.trim().is_empty() { String::new() } else { format!(": {}", said.trim()) }
    }
}
