//! The log: one event a line, on standard error.

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry};

/// What is logged, and in which form.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// What is logged: error, warn, info, debug, trace, or a list such as `warn,rollbackd=debug`.
    #[arg(
        long = "log.level",
        env = "ROLLBACKD_LOG",
        default_value = "info",
        value_name = "LEVEL",
        value_parser = parse_filter
    )]
    level: String,
    /// The form of a line.
    #[arg(long = "log.format", default_value = "logfmt", value_name = "FORMAT")]
    format: LogFormat,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `ts=… level=warn message="rolling back" fleet=voice version=v2 …`
    Logfmt,
    /// One object a line, with the same fields.
    Json,
}

fn parse_filter(text: &str) -> Result<String, ParseError> {
    EnvFilter::try_new(text).map(|_| text.to_owned())
}

/// Begins to log, for as long as the process lives.
///
/// # Errors
/// When something logs already.
pub fn init(args: &LogArgs) -> Result<(), TryInitError> {
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let form: Box<dyn Layer<Registry> + Send + Sync> = match args.format {
        LogFormat::Logfmt => tracing_logfmt::builder()
            .with_target(false)
            .with_span_name(false)
            .with_span_path(false)
            .with_ansi_color(colour)
            .layer()
            .with_writer(io::stderr)
            .boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_target(false)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(io::stderr)
            .boxed(),
    };
    // Checked when the arguments were read.
    let filter = EnvFilter::new(&args.level);
    tracing_subscriber::registry().with(form.with_filter(filter)).try_init()
}
