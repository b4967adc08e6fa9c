//! `completions` and `man`: what a package ships beside the binary, made from the arguments
//! themselves.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::{CommandError, EXIT_OK};

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell to write for.
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for each command into this directory, instead of the first page to the output.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints the completions of `command` for a shell.
///
/// # Errors
/// When the output cannot be written.
pub fn completions(
    mut command: Command,
    args: &CompletionsArgs,
    out: &mut impl Write,
) -> Result<u8, CommandError> {
    // The generator panics where it cannot write, so it writes to memory.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "rollbackd", &mut text);
    out.write_all(&text)?;
    Ok(EXIT_OK)
}

/// Writes the man pages of `command`: `rollbackd.1`, `rollbackd-run.1`, …
///
/// # Errors
/// When a page cannot be written.
pub fn man(command: Command, args: &ManArgs, out: &mut impl Write) -> Result<u8, CommandError> {
    match &args.out {
        None => clap_mangen::Man::new(command).render(out)?,
        Some(directory) => {
            let named = |error: io::Error| {
                io::Error::new(error.kind(), format!("{}: {error}", directory.display()))
            };
            clap_mangen::generate_to(command, directory).map_err(named)?;
        }
    }
    Ok(EXIT_OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        Command::new("rollbackd").about("Takes back").subcommand(
            Command::new("pause").about("Leaves alone").arg(clap::arg!(--reason <WHY> "Why")),
        )
    }

    #[test]
    fn completions_know_the_commands_and_their_options() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut out = Vec::new();
            let code = completions(command(), &CompletionsArgs { shell }, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert_eq!(code, EXIT_OK);
            assert!(text.contains("pause") && text.contains("reason"), "{shell}: {text}");
        }
    }

    #[test]
    fn there_is_a_man_page_for_each_command() {
        let directory = tempfile::tempdir().unwrap();
        let args = ManArgs { out: Some(directory.path().to_owned()) };
        man(command(), &args, &mut Vec::new()).unwrap();
        let page = std::fs::read_to_string(directory.path().join("rollbackd-pause.1")).unwrap();
        assert!(page.contains("Leaves alone"), "{page}");
        assert!(directory.path().join("rollbackd.1").exists());

        let nowhere = ManArgs { out: Some(directory.path().join("not/there")) };
        let error = man(command(), &nowhere, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("not/there"), "{error}");
    }
}
