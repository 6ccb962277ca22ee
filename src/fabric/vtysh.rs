//! FRR's vtysh, run as a person runs it. `answers` knows what to ask and how to read what is printed.

use std::borrow::Cow;
use std::time::Duration;

use anyhow::{Error, Result, anyhow};

use super::answers::{Answers, Question};
use crate::machine::program;
use crate::text::quote;

/// vtysh waits for each daemon without a limit of its own.
const PATIENCE: Duration = Duration::from_secs(5);

/// What FRR answers to one question; `None` where there is no vtysh.
///
/// # Errors
/// No daemon answers, none in time, or what it says is no answer.
pub fn ask<T>(question: &Question<T>) -> Result<Option<T>> {
    let printed = vtysh(&[&question.command])?;
    printed.map(|printed| question.read(&printed)).transpose().map_err(Error::msg)
}

/// What vtysh prints to each command, or why it prints nothing; `None` where there is no vtysh. If the first command
/// fails, no daemon runs, and the others are not asked.
pub fn ask_all(commands: Vec<Cow<'static, str>>) -> Option<Answers> {
    let mut answers = Answers::default();
    for command in commands {
        let answer = vtysh(&[&command]).transpose()?.map_err(|error| format!("{error:#}"));
        let is_over = answers.0.is_empty() && answer.is_err();
        answers.0.insert(command.into_owned(), answer);
        if is_over {
            break;
        }
    }
    Some(answers)
}

/// Runs vtysh commands one after the other and returns what they print; `None` where there is no vtysh.
///
/// # Errors
/// A command failed, or had not ended in time and was killed.
pub fn vtysh(commands: &[impl AsRef<str>]) -> Result<Option<String>> {
    let arguments: Vec<&str> = commands.iter().flat_map(|command| ["-c", command.as_ref()]).collect();
    let answer = program::ask(&command_line(commands), "vtysh", &arguments, PATIENCE);
    let with_fix = |said: String| anyhow!("{said}{}", fix(&said, nix::unistd::geteuid().is_root()));
    answer.transpose().map_err(with_fix)
}

/// What makes vtysh answer. To another user than root it says that no daemon runs where he may not speak to one.
pub fn fix(said: &str, is_root: bool) -> &'static str {
    match (said.contains("failed to connect to any daemons"), is_root) {
        (true, true) => ": start FRR with `systemctl start frr`",
        (true, false) => ": run this as root, and if that says so too start FRR with `systemctl start frr`",
        (false, false) if said.contains("ermission denied") => ": run this as root or in the group frrvty",
        _ if said.contains("gave no answer") => ": `systemctl status frr` shows which daemon hangs",
        _ => "",
    }
}

/// The shell line that runs these commands.
pub fn command_line(commands: &[impl AsRef<str>]) -> String {
    commands.iter().fold("vtysh".to_owned(), |line, command| format!("{line} -c {}", quote(command.as_ref())))
}
