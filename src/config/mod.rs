//! `/etc/tap32.toml`. Every key is optional; an unknown key is an error with its line.

mod bridge;
mod check;
mod fabric;
mod mdu;
mod salvage;
mod words;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnet::Ipv4Net;
use serde::{Deserialize, Deserializer};

use crate::addr::MacPrefix;
pub use bridge::BridgeConfig;
pub(crate) use fabric::{Bfd, Fabric, FabricProtocol, Uplink};
pub(crate) use mdu::{Backbone, Mdu};

pub(crate) const DEFAULT_PATH: &str = "/etc/tap32.toml";

/// The file that this process was told to read; a process reads one.
static NAMED: OnceLock<String> = OnceLock::new();

/// The configuration file, as a sentence names it.
pub(crate) fn file() -> &'static str {
    NAMED.get().map_or(DEFAULT_PATH, String::as_str)
}

/// Metric of a claim. zebra reads it as distance 0, so that the claim wins over every other route to the /32.
pub(crate) const CLAIM_METRIC: u32 = 10;

/// Low 24 bits of a settled route's metric. With the claim's own, zebra 8.4 loses the settled route when the claim is
/// deleted (measured). 20 is zebra's metric (rt_netlink.h).
const SETTLED_LOW_BITS: u32 = 100;

/// The longest duration in the configuration: sums of a few must not overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// The whole file. The names of the keys are a contract.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The first two octets of guest MACs.
    pub mac_prefix: MacPrefix,
    /// rtm_protocol of tap32's routes.
    pub protocol: u8,
    /// zebra's administrative distance of a settled route. 0 is the article's metric 0, and never yields.
    pub(crate) distance: u8,
    /// The managed bridges, at least one.
    #[serde(rename = "bridge")]
    pub bridges: Vec<BridgeConfig>,
    pub(crate) migration: Migration,
    pub(crate) watch: Watch,
    pub(crate) fabric: Fabric,
    /// The links to the switches.
    #[serde(rename = "uplink")]
    pub uplinks: Vec<Uplink>,
    pub(crate) mdu: Option<Mdu>,
    /// The links of the MDU's border to the backbone.
    #[serde(rename = "backbone")]
    pub(crate) backbones: Vec<Backbone>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mac_prefix: MacPrefix::default(),
            protocol: 132,
            distance: 240,
            bridges: vec![BridgeConfig::default()],
            migration: Migration::default(),
            watch: Watch::default(),
            fabric: Fabric::default(),
            uplinks: Vec::new(),
            mdu: None,
            backbones: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Migration {
    /// From the claim to its deletion.
    #[serde(deserialize_with = "duration")]
    pub settle: Duration,
    /// How long a claimer waits for a tap that somebody has open.
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
pub(crate) struct Watch {
    #[serde(deserialize_with = "duration")]
    pub resync: Duration,
    /// The file for Prometheus.
    pub metrics: Option<PathBuf>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { resync: Duration::from_secs(60), metrics: None }
    }
}

impl Config {
    /// Reads the file that `--config`, else `TAP32_CONFIG`, else [`DEFAULT_PATH`] names. Only the last may be missing.
    pub(crate) fn load(option: Option<&Path>) -> Result<Self> {
        let named = Self::named(option);
        let path = named.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        let _ = NAMED.set(path.display().to_string());
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).with_context(|| format!("configuration {}", path.display())),
            Err(e) if named.is_none() && e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => bail!("configuration {}: tap32 cannot read it: {e}", path.display()),
        }
    }

    /// The file that the option or the environment names.
    pub(crate) fn named(option: Option<&Path>) -> Option<PathBuf> {
        let environment = || std::env::var_os("TAP32_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
        option.map(Path::to_owned).or_else(environment)
    }

    /// Reads the text of a configuration file.
    ///
    /// # Errors
    /// The text is not TOML, or holds an unknown key or a value that cannot be meant; with the line.
    pub fn parse(text: &str) -> Result<Self> {
        let mut config: Self = toml::from_str(text).map_err(|error| words::sentence(text, &error))?;
        if config.bridges.is_empty() {
            config.bridges = Self::default().bridges;
        }
        config.check()?;
        Ok(config)
    }

    /// Metric of a settled route. zebra reads it as (administrative distance << 24) | metric.
    pub fn settled_metric(&self) -> u32 {
        match self.distance {
            0 => 0,
            distance => u32::from(distance) << 24 | SETTLED_LOW_BITS,
        }
    }

    pub(crate) fn bridge(&self, name: &str) -> Option<&BridgeConfig> {
        self.bridges.iter().find(|bridge| bridge.name == name)
    }

    /// Whether guests on a bridge are to be guarded; not where tap32 does not manage it.
    pub(crate) fn wants_guard(&self, bridge: &str) -> bool {
        self.bridge(bridge).is_some_and(|bridge| bridge.guard)
    }

    /// The bridges that `setup` makes, with their addresses. Another program makes a bridge without a gateway.
    pub(crate) fn described_bridges(&self) -> impl Iterator<Item = (&BridgeConfig, Ipv4Net)> {
        self.bridges.iter().filter_map(|bridge| Some((bridge, bridge.address()?)))
    }

    /// Whether the configuration describes anything that `setup` makes.
    pub(crate) fn describes_host(&self) -> bool {
        self.described_bridges().next().is_some() || self.routed_interfaces().next().is_some()
    }
}

/// The sentence for a configuration that describes no host.
pub(crate) fn nothing_described() -> String {
    format!(
        "the configuration describes nothing to set up: write in {} a gateway under [[bridge]], such as gateway = \
         \"10.0.0.1/24\", and one [[uplink]] for each uplink",
        file()
    )
}

/// What [`is_interface_name`] takes, for an error.
pub(crate) const INTERFACE_NAME: &str = "an interface name that tap32 takes: at most 15 letters, digits and \
     . _ - @ + = % , that do not begin with - and are not the kernel's own words all and default";

/// Whether the kernel takes the name (dev_valid_name), and a shell, XML and ifupdown without quotes. `all` and `default`
/// are whole hosts under /proc/sys/net/ipv4/conf.
pub(crate) fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && !matches!(name, "." | ".." | "all" | "default")
        && !name.starts_with('-')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@+=%,".contains(&b))
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let duration = humantime::parse_duration(&text)
        .map_err(|_| serde::de::Error::custom(format!("{text:?} is not a duration such as \"10s\" or \"1h\"")))?;
    if duration > LONGEST {
        return Err(serde::de::Error::custom(format!("{text:?} is more than a year")));
    }
    Ok(duration)
}
