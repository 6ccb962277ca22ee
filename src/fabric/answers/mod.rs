//! What FRR is asked and what it answers: one type for each answer, so that everybody who asks reads it alike.
//!
//! Pure: `vtysh` asks. The types ignore fields that tap32 does not need, for every version adds some. Where versions
//! from 8.4 to 10.8 differ, the type says how; each was compared with FRR's source or with a recorded answer.

pub(crate) mod bfd;
pub(crate) mod bgp;
pub(crate) mod ospf;
pub(crate) mod zebra;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use crate::config::{Config, FabricProtocol};
use crate::fabric::running_config::Running;

/// A vtysh command that shows something, and how to read what it prints.
pub(crate) struct Question<T> {
    pub command: Cow<'static, str>,
    /// From what vtysh printed, trimmed. An error is the rest of a sentence about the command.
    read: fn(&str) -> Result<T, String>,
}

impl<T: DeserializeOwned> Question<T> {
    const fn json(command: &'static str) -> Self {
        Self { command: Cow::Borrowed(command), read: json }
    }

    fn about(command: String) -> Self {
        Self { command: Cow::Owned(command), read: json }
    }
}

impl<T> Question<T> {
    /// Reads what vtysh printed. An error is what it printed instead of an answer.
    pub fn read(&self, printed: &str) -> Result<T, String> {
        (self.read)(printed.trim()).map_err(|why| format!("`{}` {why}", self.command))
    }
}

fn json<T: DeserializeOwned>(printed: &str) -> Result<T, String> {
    serde_json::from_str(printed).map_err(|error| match error.is_data() {
        true => format!("printed JSON that this tap32 cannot read ({error})"),
        // A daemon that does not run, or has no configuration, says so in words.
        false => format!("printed {:?}", printed.lines().next().unwrap_or("nothing")),
    })
}

/// The first line: `FRRouting 8.4.4 (vm) on Linux(6.1.0).`
pub(crate) const VERSION: Question<String> = Question {
    command: Cow::Borrowed("show version"),
    read: |printed| Ok(printed.lines().next().unwrap_or_default().to_owned()),
};

/// The daemons to which vtysh is connected: ` zebra ospfd bfdd`.
pub(crate) const DAEMONS: Question<Vec<String>> = Question {
    command: Cow::Borrowed("show daemons"),
    read: |printed| Ok(printed.split_whitespace().map(str::to_owned).collect()),
};

pub(crate) const RUNNING: Question<Running> = Question {
    command: Cow::Borrowed("show running-config"),
    read: |printed| match printed.contains("Current configuration") {
        true => Ok(Running::parse(printed)),
        false => Err("printed no configuration".to_owned()),
    },
};

/// Major and minor of a version's line; `None` where it names no version.
pub(crate) fn version_number(version: &str) -> Option<(u32, u32)> {
    let (_, number) = version.split_once("FRRouting ")?;
    let mut parts = number.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// What vtysh printed, or why it printed nothing, by command.
#[derive(Debug, Default)]
pub struct Answers(pub BTreeMap<String, Result<String, String>>);

impl Answers {
    /// The answer to a question. An error is why there is none.
    pub(crate) fn get<T>(&self, question: &Question<T>) -> Result<T, String> {
        match self.0.get(question.command.as_ref()) {
            Some(Ok(printed)) => question.read(printed),
            Some(Err(error)) => Err(error.clone()),
            None => Err(format!("`{}` was not asked", question.command)),
        }
    }
}

/// The commands that show how the uplinks stand.
pub(crate) fn about_uplinks(protocol: FabricProtocol) -> Vec<Cow<'static, str>> {
    match protocol {
        FabricProtocol::Ospf => vec![bfd::SESSIONS.command, ospf::NEIGHBOURS.command, ospf::INTERFACES.command],
        FabricProtocol::Bgp => vec![bfd::SESSIONS.command, bgp::NEIGHBOURS.command],
    }
}

/// All that doctor asks. The first command is one that any FRR answers.
pub(crate) fn about_everything(config: &Config) -> Vec<Cow<'static, str>> {
    let mut commands = vec![VERSION.command, DAEMONS.command, RUNNING.command, zebra::KERNEL_ROUTES.command];
    commands.extend(about_uplinks(config.fabric.protocol));
    match config.fabric.protocol {
        FabricProtocol::Ospf => commands.push(ospf::LSAS.command),
        FabricProtocol::Bgp => {
            commands.extend(config.uplinks.iter().map(|uplink| bgp::advertised(uplink.peer).command));
        }
    }
    commands
}
