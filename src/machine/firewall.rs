//! Asks the firewall's own programs for its rules. They only list; doctor alone calls this.

use std::io::ErrorKind;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// A ruleset of 50,000 elements takes a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a program prints, or why it prints nothing; `None` where there is no such program.
pub async fn ask(program: &str, arguments: &[&str]) -> Option<Result<String, String>> {
    let line = [&[program], arguments].concat().join(" ");
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = match timeout(PATIENCE, command.output()).await {
        Err(_) => return Some(Err(format!("`{line}` gave no answer in {} s", PATIENCE.as_secs()))),
        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => return None,
        Ok(Err(error)) => return Some(Err(format!("cannot run `{line}`: {error}"))),
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Some(Ok(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Some(Err(format!("`{line}` failed ({}): {said}", output.status)))
}
