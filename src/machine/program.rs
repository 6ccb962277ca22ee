//! Other programs: vtysh, and the firewall's, which only list.

use std::io::ErrorKind;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;
use tokio::process::Command;
use tokio::time::timeout;

use super::wait::wait;

/// What a program prints, or why it prints nothing; `None` where there is no such program. `line` is how a person would
/// call it. After `patience` the program is killed.
pub fn ask(line: &str, program: &str, arguments: &[&str], patience: Duration) -> Option<Result<String, String>> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = match wait(async { timeout(patience, command.output()).await }) {
        Err(error) => return Some(Err(format!("{error:#}"))),
        Ok(Err(_)) => return Some(Err(format!("`{line}` gave no answer in {} s", patience.as_secs()))),
        Ok(Ok(Err(error))) if error.kind() == ErrorKind::NotFound => return None,
        Ok(Ok(Err(error))) => return Some(Err(format!("cannot run `{line}`: {error}"))),
        Ok(Ok(Ok(output))) => output,
    };
    if output.status.success() {
        return Some(Ok(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim_end_matches('.');
    Some(Err(format!("`{line}` failed ({}): {said}", output.status)))
}
