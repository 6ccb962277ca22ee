//! What FRR is asked and what it answers: one type for each answer, so that everybody who asks reads it alike.
//!
//! Pure: `vtysh` asks. The types name the fields that tap32 needs and ignore the others, for every version adds some. Where
//! versions from 8.4 to 10.8 differ, the type says how; each was compared with FRR's source or with a recorded answer.

pub mod bfd;
pub mod bgp;
pub mod ospf;
pub mod zebra;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::config::{Config, FabricProtocol};
use crate::fabric::running_config::Running;

/// A vtysh command that shows something, and by its type what it shows.
pub struct Question<T> {
    pub command: Cow<'static, str>,
    answer: PhantomData<fn() -> T>,
}

impl<T: Answer> Question<T> {
    const fn new(command: &'static str) -> Self {
        Self { command: Cow::Borrowed(command), answer: PhantomData }
    }

    fn about(command: String) -> Self {
        Self { command: Cow::Owned(command), answer: PhantomData }
    }

    fn text(&self) -> String {
        self.command.to_string()
    }

    /// Reads what vtysh printed.
    ///
    /// # Errors
    /// What it printed instead of an answer.
    pub fn read(&self, printed: &str) -> Result<T, String> {
        T::read(printed.trim()).map_err(|why| format!("`{}` {why}", self.command))
    }
}

/// What FRR shows, read from what vtysh printed. An error is the rest of a sentence about the command.
pub trait Answer: Sized {
    fn read(printed: &str) -> Result<Self, String>;
}

/// The answers in JSON.
impl<T: DeserializeOwned> Answer for T {
    fn read(printed: &str) -> Result<Self, String> {
        serde_json::from_str(printed).map_err(|error| {
            if error.is_data() {
                return format!("printed JSON that this tap32 cannot read ({error})");
            }
            // A daemon that is not there says so in words, and so does one without a configuration.
            format!("printed {:?}", printed.lines().next().unwrap_or("nothing"))
        })
    }
}

pub const VERSION: Question<Version> = Question::new("show version");
pub const DAEMONS: Question<Daemons> = Question::new("show daemons");
pub const RUNNING: Question<Running> = Question::new("show running-config");

/// The first line of `show version`: `FRRouting 8.4.4 (vm) on Linux(6.1.0).`
pub struct Version(pub String);

impl Answer for Version {
    fn read(printed: &str) -> Result<Self, String> {
        Ok(Self(printed.lines().next().unwrap_or_default().to_owned()))
    }
}

impl Version {
    /// Major and minor; `None` where the line names no version.
    pub fn number(&self) -> Option<(u32, u32)> {
        let mut words = self.0.split_whitespace().skip_while(|word| *word != "FRRouting");
        let mut parts = words.nth(1)?.split(|c: char| !c.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

impl Answer for Running {
    fn read(printed: &str) -> Result<Self, String> {
        let shows = printed.contains("Current configuration");
        shows.then(|| Self::parse(printed)).ok_or_else(|| "printed no configuration".to_owned())
    }
}

/// The daemons to which vtysh is connected: ` zebra ospfd bfdd`.
pub struct Daemons(Vec<String>);

impl Answer for Daemons {
    fn read(printed: &str) -> Result<Self, String> {
        Ok(Self(printed.split_whitespace().map(str::to_owned).collect()))
    }
}

impl Daemons {
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|daemon| daemon == name)
    }
}

/// What vtysh printed, or why it printed nothing, by command.
#[derive(Debug, Default)]
pub struct Answers(pub BTreeMap<String, Result<String, String>>);

impl Answers {
    /// # Errors
    /// Why there is no answer.
    pub fn get<T: Answer>(&self, question: &Question<T>) -> Result<T, String> {
        match self.0.get(question.command.as_ref()) {
            Some(Ok(printed)) => question.read(printed),
            Some(Err(error)) => Err(error.clone()),
            None => Err(format!("`{}` was not asked", question.command)),
        }
    }
}

/// The commands that show how the uplinks stand.
pub fn about_uplinks(protocol: FabricProtocol) -> Vec<String> {
    match protocol {
        FabricProtocol::Ospf => vec![bfd::SESSIONS.text(), ospf::NEIGHBOURS.text(), ospf::INTERFACES.text()],
        FabricProtocol::Bgp => vec![bfd::SESSIONS.text(), bgp::NEIGHBOURS.text()],
    }
}

/// All that doctor asks, the command first that any FRR answers.
pub fn about_everything(config: &Config) -> Vec<String> {
    let mut commands = vec![VERSION.text(), DAEMONS.text(), RUNNING.text(), zebra::KERNEL_ROUTES.text()];
    commands.extend(about_uplinks(config.fabric.protocol));
    match config.fabric.protocol {
        FabricProtocol::Ospf => commands.push(ospf::LSAS.text()),
        FabricProtocol::Bgp => commands.extend(config.uplinks.iter().map(|uplink| bgp::advertised(uplink.peer).text())),
    }
    commands
}
