//! FRR, through its own vtysh: questions answered in JSON. Knows nothing of routes; who asks knows what to ask.

use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// vtysh waits for each daemon without a limit of its own.
const PATIENCE: Duration = Duration::from_secs(5);

/// What FRR answers to a `show ... json`; `None` where there is no vtysh.
///
/// # Errors
/// No daemon answers, none in time, or the answer is not JSON.
pub fn ask(question: &str) -> Result<Option<Value>> {
    let Some(text) = vtysh(&[question])? else { return Ok(None) };
    let answer = serde_json::from_str(&text);
    answer.map(Some).with_context(|| format!("vtysh -c {question:?} printed no JSON"))
}

/// Runs vtysh commands one after the other and returns what they print; `None` where there is no vtysh.
pub fn vtysh(commands: &[&str]) -> Result<Option<String>> {
    let line = commands.iter().map(|command| format!(" -c {command:?}")).collect::<String>();
    let mut vtysh = Command::new("vtysh");
    vtysh.args(commands.iter().flat_map(|command| ["-c", command]));
    vtysh.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = match vtysh.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot start vtysh{line}")),
    };
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(PATIENCE) else {
        // It may have ended in this instant.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        bail!("vtysh{line}: no answer in {} s: `systemctl status frr` says which daemon hangs", PATIENCE.as_secs());
    };
    let output = output.with_context(|| format!("vtysh{line}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let mend = match said {
        said if said.contains("failed to connect to any daemons") => ": `systemctl start frr`, or root's rights",
        said if said.contains("ermission denied") => ": it takes root or the group frrvty",
        _ => "",
    };
    ensure!(output.status.success(), "vtysh{line} failed ({}): {said}{mend}", output.status);
    Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
}
