//! From the words of a command line to the verbs' requests. An error is the middle of a sentence about the verb.

use std::ffi::OsString;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::Raw;
use super::options::{ALL, BRIDGE, CHECK, DRY_RUN, JSON, MAC, Opt};
use crate::addr::parse_mac;
use crate::config::{INTERFACE_NAME, is_interface_name};
use crate::verbs::render::{self, Form, Request as What};
use crate::verbs::{Verb, arrival, mac, status, up_down, uplink};

/// The values of one call, as many as the verb takes, and its options.
pub(super) struct Words<'a> {
    pub(super) raw: &'a Raw,
    pub(super) values: Vec<&'a str>,
}

pub(super) fn status(words: &Words) -> Result<Verb> {
    let tap = words.values.first().map(|tap| (*tap).to_owned());
    let all = words.has(&ALL);
    if let (Some(tap), true) = (&tap, all) {
        bail!("--all shows every tap and {tap} is one: leave out either");
    }
    Ok(Verb::Status(status::Request { tap, all, json: words.has(&JSON), check: words.has(&CHECK) }))
}

pub(super) fn uplink(words: &Words) -> Result<Verb> {
    let json = words.has(&JSON);
    Ok(Verb::Uplink(match words.values[..] {
        ["drain" | "restore", ..] if json => bail!("only `tap32 uplink list` takes --json"),
        ["list", ..] if words.has(&DRY_RUN) => bail!("only drain and restore take --dry-run: list changes nothing"),
        ["list"] => uplink::Request::List { json },
        ["drain", name] => uplink::Request::Drain(name.to_owned()),
        ["restore", name] => uplink::Request::Restore(name.to_owned()),
        ["drain" | "restore"] => bail!("NAME is missing: `tap32 uplink list` shows the uplinks"),
        _ => {
            let said = words.values.join(" ");
            bail!("tap32 cannot do {said:?} to an uplink: use list, drain NAME or restore NAME")
        }
    }))
}

pub(super) fn render(words: &Words) -> Result<Verb> {
    Ok(Verb::Render(match words.values[..] {
        ["frr"] => What::Frr,
        ["switch"] => What::Switch { form: None, uplink: None },
        ["switch", word] => What::Switch { form: Some(form("switch", word)?), uplink: None },
        ["switch", word, uplink] => What::Switch { form: Some(form("switch", word)?), uplink: Some(uplink.to_owned()) },
        ["border"] => What::Border(None),
        ["border", word] => What::Border(Some(form("border", word)?)),
        ["sysctl"] => What::Sysctl,
        ["networkd"] => What::Networkd,
        ["ifupdown"] => What::Ifupdown,
        ["dnsmasq"] => What::Dnsmasq,
        ["libvirt"] | ["cloud-init"] => bail!("ADDR is missing"),
        ["libvirt", value] => What::Libvirt(address(value)?),
        ["cloud-init", ref values @ ..] => {
            What::CloudInit(values.iter().map(|value| address(value)).collect::<Result<_>>()?)
        }
        _ => bail!("tap32 cannot render {:?}: WHAT is {}", words.values.join(" "), render::WORDS),
    }))
}

pub(super) fn arrival(words: &Words) -> Result<Verb> {
    let macs = words.values.iter().map(|value| parse_mac(value)).collect::<Result<_>>()?;
    Ok(Verb::Arrival(arrival::Request { macs }))
}

pub(super) fn decode(words: &Words) -> Result<Verb> {
    Ok(Verb::Decode(mac::Decode(parse_mac(words.word(0))?)))
}

pub(super) fn encode(words: &Words) -> Result<Verb> {
    Ok(Verb::Encode(mac::Encode(address(words.word(0))?)))
}

impl Words<'_> {
    pub(super) fn has(&self, option: &Opt) -> bool {
        self.raw.has(option)
    }

    /// The value at this place; empty without one.
    pub(super) fn word(&self, at: usize) -> &str {
        self.values.get(at).copied().unwrap_or_default()
    }

    /// The request of `up` or `down`; `down` takes no --bridge.
    pub(super) fn tap(&self) -> Result<up_down::Request> {
        Ok(up_down::Request {
            tap: interface(self.word(0))?,
            mac: self.raw.value(&MAC).map(|value| parse_mac(text(value)?)).transpose()?,
            bridge: self.raw.value(&BRIDGE).map(|value| interface(text(value)?)).transpose()?,
        })
    }
}

fn address(value: &str) -> Result<Ipv4Addr> {
    value.parse().map_err(|_| anyhow!("{value:?} is not an IPv4 address such as 10.0.0.10"))
}

fn interface(value: &str) -> Result<String> {
    ensure!(is_interface_name(value), "{value:?} is not {INTERFACE_NAME}");
    Ok(value.to_owned())
}

/// `of`: whose configuration it is.
fn form(of: &str, word: &str) -> Result<Form> {
    match word {
        "nxos" => Ok(Form::Nxos),
        "frr" => Ok(Form::Frr),
        other => bail!("tap32 cannot write a {of} configuration for {other:?}: use nxos or frr"),
    }
}

pub(super) fn text(value: &OsString) -> Result<&str> {
    value.to_str().with_context(|| format!("{value:?} is not UTF-8 text"))
}
