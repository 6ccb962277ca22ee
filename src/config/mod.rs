//! `/etc/tap32.toml`: every key optional, unknown keys an error with its line.
//!
//! Reads and checks, nothing else. The faces call `Config::load`; the removing ones go on with
//! `Config::salvaged` when it fails, for a guest's route must go also while somebody is editing the file.

mod bridge;
mod check;
mod fabric;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnet::Ipv4Net;
use serde::{Deserialize, Deserializer};

use crate::addr::MacPrefix;
use crate::text::printable;
pub use bridge::BridgeConfig;
pub use fabric::{Bfd, Fabric, FabricProtocol, Uplink};

pub const DEFAULT_PATH: &str = "/etc/tap32.toml";
pub const DEFAULT_BRIDGE: &str = "br-l2";

/// Metric of a claim: distance 0 in zebra's eyes, so it beats every other route to the /32.
pub const CLAIM_METRIC: u32 = 10;

/// Low 24 bits of a settled route's metric. They must differ from the claim's, or zebra 8.4 loses the
/// settled route when the claim is deleted (measured), and must not be 20, zebra's own metric (rt_netlink.h).
const SETTLED_LOW_BITS: u32 = 100;

/// Of a duration in the configuration: nothing here is meant to last longer, and sums of them must not overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    pub mac_prefix: MacPrefix,
    /// rtm_protocol of every route that is ours.
    pub protocol: u8,
    /// zebra's administrative distance of a settled route; 0 means the seed's metric 0, which never yields.
    pub distance: u8,
    #[serde(rename = "bridge")]
    pub bridges: Vec<BridgeConfig>,
    pub migration: Migration,
    pub watch: Watch,
    pub fabric: Fabric,
    #[serde(rename = "uplink")]
    pub uplinks: Vec<Uplink>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mac_prefix: MacPrefix::default(),
            protocol: 132,
            distance: 240,
            bridges: vec![BridgeConfig::named(DEFAULT_BRIDGE)],
            migration: Migration::default(),
            watch: Watch::default(),
            fabric: Fabric::default(),
            uplinks: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Migration {
    #[serde(deserialize_with = "duration")]
    pub settle: Duration,
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
}

impl Default for Migration {
    fn default() -> Self {
        Self { settle: Duration::from_secs(10), timeout: Duration::from_secs(3600) }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Watch {
    #[serde(deserialize_with = "duration")]
    pub resync: Duration,
    /// Where figures for Prometheus go; nowhere by default.
    pub metrics: Option<PathBuf>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { resync: Duration::from_secs(60), metrics: None }
    }
}

impl Config {
    /// The file that `--config`, else `TAP32_CONFIG`, else [`DEFAULT_PATH`] names. Only the last may be missing.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, or holds a value that cannot be meant; the line is named.
    pub fn load(option: Option<&Path>) -> Result<Self> {
        let named = Self::named(option);
        let path = named.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).with_context(|| format!("configuration {}", path.display())),
            Err(e) if named.is_none() && e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => bail!("configuration {}: tap32 cannot read it: {e}", path.display()),
        }
    }

    /// What `down` goes on with where the file is broken: the defaults, with what says which guests and routes are
    /// ours, where that much can be read. A guest must be able to go while somebody is editing.
    pub fn salvaged(option: Option<&Path>) -> Self {
        let path = Self::named(option).unwrap_or_else(|| DEFAULT_PATH.into());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let table: toml::Table = text.parse().unwrap_or_default();
        let kept = ["mac-prefix", "protocol"].iter().filter_map(|key| table.get_key_value(*key));
        let kept = toml::Value::Table(kept.map(|(key, value)| (key.clone(), value.clone())).collect());
        kept.try_into().ok().filter(|config: &Self| config.check().is_ok()).unwrap_or_default()
    }

    /// The file that somebody asked for, by option or by environment.
    pub fn named(option: Option<&Path>) -> Option<PathBuf> {
        let environment = || std::env::var_os("TAP32_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
        option.map(Path::to_owned).or_else(environment)
    }

    /// Reads the text of a configuration file.
    pub fn parse(text: &str) -> Result<Self> {
        let mut config: Self = toml::from_str(text).map_err(|e| locate(text, &e))?;
        if config.bridges.is_empty() {
            config.bridges = Self::default().bridges;
        }
        config.check()?;
        Ok(config)
    }

    /// Metric of a settled route: zebra reads it as (administrative distance << 24) | metric.
    pub fn settled_metric(&self) -> u32 {
        match self.distance {
            0 => 0,
            distance => u32::from(distance) << 24 | SETTLED_LOW_BITS,
        }
    }

    pub fn bridge(&self, name: &str) -> Option<&BridgeConfig> {
        self.bridges.iter().find(|bridge| bridge.name == name)
    }

    /// The bridges that `setup` makes, with their gateways. One without a gateway is another program's, which the
    /// configuration merely tells apart from the rest of the host.
    pub fn described_bridges(&self) -> impl Iterator<Item = (&BridgeConfig, Ipv4Net)> {
        self.bridges.iter().filter_map(|bridge| Some((bridge, bridge.gateway?)))
    }

    /// Whether the configuration describes anything that `setup` makes.
    pub fn describes_host(&self) -> bool {
        self.described_bridges().next().is_some() || !self.uplinks.is_empty() || self.fabric.router_id.is_some()
    }
}

/// What to say where the configuration describes no host.
pub const NOTHING_DESCRIBED: &str = "the configuration describes nothing to set up: write in /etc/tap32.toml a gateway under [[bridge]], such as gateway = \
     \"10.0.0.1/24\", and one [[uplink]] for each uplink";

/// What the kernel takes as an interface name (dev_valid_name), and a shell line without quotes.
pub fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':')
}

/// One line for a toml error: the crate prints a drawing of several.
fn locate(text: &str, error: &toml::de::Error) -> anyhow::Error {
    let message = match error.message().trim_end().replace('\n', ", ") {
        // Of `[bridge]`; serde's own words are a programmer's.
        message if message.starts_with("invalid type: map, expected a sequence") => {
            "write the name of this table in two brackets, [[bridge]] or [[uplink]], since there can be several".into()
        }
        message => printable(&message),
    };
    match error.span() {
        Some(span) => {
            let line = 1 + text[..span.start.min(text.len())].matches('\n').count();
            anyhow::anyhow!("line {line}: {message}")
        }
        None => anyhow::anyhow!(message),
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let duration = humantime::parse_duration(&text)
        .map_err(|e| serde::de::Error::custom(format!("{text:?} is not a duration such as \"10s\" or \"1h\": {e}")))?;
    if duration > LONGEST {
        return Err(serde::de::Error::custom(format!("{text:?} is more than a year")));
    }
    Ok(duration)
}
