//! From the words of a command line to what each verb asks for. An error is the middle of a sentence about the verb.

use std::ffi::OsString;
use std::net::Ipv4Addr;

use macaddr::MacAddr6;

use super::Raw;
use super::options::{BRIDGE, CHECK, DRY_RUN, JSON, MAC};
use crate::addr;
use crate::config::is_interface_name;
use crate::verbs::render::{self, Form, Request as What};
use crate::verbs::{Verb, arrival, doctor, libvirt, mac, status, up_down, uplink};

/// The values of one call, text all of them, as many as the verb takes.
pub struct Words<'a> {
    pub(super) raw: &'a Raw,
    pub(super) values: Vec<&'a str>,
}

pub fn up(words: &Words) -> Result<Verb, String> {
    Ok(Verb::Up(words.tap()?))
}

pub fn down(words: &Words) -> Result<Verb, String> {
    Ok(Verb::Down(words.tap()?))
}

pub fn reconcile(_: &Words) -> Result<Verb, String> {
    Ok(Verb::Reconcile)
}

pub fn watch(_: &Words) -> Result<Verb, String> {
    Ok(Verb::Watch)
}

pub fn status(words: &Words) -> Result<Verb, String> {
    let tap = words.values.first().map(|tap| interface(tap)).transpose()?;
    Ok(Verb::Status(status::Request { tap, json: words.raw.has(&JSON), check: words.raw.has(&CHECK) }))
}

pub fn uplink(words: &Words) -> Result<Verb, String> {
    let json = words.raw.has(&JSON);
    Ok(Verb::Uplink(match words.values[..] {
        ["drain" | "restore", ..] if json => return Err("only `tap32 uplink list` takes --json".into()),
        ["list", ..] if words.raw.has(&DRY_RUN) => {
            return Err("only drain and restore take --dry-run: list changes nothing".into());
        }
        ["list"] => uplink::Request::List { json },
        ["drain", name] => uplink::Request::Drain(name.to_owned()),
        ["restore", name] => uplink::Request::Restore(name.to_owned()),
        ["drain" | "restore"] => return Err("NAME is missing: `tap32 uplink list` shows the uplinks".into()),
        _ => {
            let said = words.values.join(" ");
            return Err(format!("tap32 cannot do {said:?} to an uplink: use list, drain NAME or restore NAME"));
        }
    }))
}

pub fn libvirt(words: &Words) -> Result<Verb, String> {
    let word = |at: usize| words.values.get(at).copied().unwrap_or_default().to_owned();
    Ok(Verb::Libvirt(libvirt::Request { domain: word(0), operation: word(1) }))
}

pub fn setup(_: &Words) -> Result<Verb, String> {
    Ok(Verb::SetUp)
}

pub fn doctor(words: &Words) -> Result<Verb, String> {
    Ok(Verb::Doctor(doctor::Request { json: words.raw.has(&JSON) }))
}

pub fn render(words: &Words) -> Result<Verb, String> {
    Ok(Verb::Render(match words.values[..] {
        ["frr"] => What::Frr,
        ["switch"] => What::Switch { form: None, uplink: None },
        ["switch", word] => What::Switch { form: Some(form(word)?), uplink: None },
        ["switch", word, uplink] => What::Switch { form: Some(form(word)?), uplink: Some(uplink.to_owned()) },
        ["sysctl"] => What::Sysctl,
        ["networkd"] => What::Networkd,
        ["ifupdown"] => What::Ifupdown,
        ["libvirt"] => return Err("ADDR is missing".into()),
        ["libvirt", value] => What::Libvirt(address(value)?),
        _ => {
            let said = words.values.join(" ");
            return Err(format!("tap32 cannot render {said:?}: WHAT is {}", render::WORDS));
        }
    }))
}

pub fn arrival(words: &Words) -> Result<Verb, String> {
    let macs = words.values.iter().map(|value| mac(value)).collect::<Result<_, _>>()?;
    Ok(Verb::Arrival(arrival::Request { macs }))
}

pub fn decode(words: &Words) -> Result<Verb, String> {
    Ok(Verb::Decode(mac::Decode(mac(words.first())?)))
}

pub fn encode(words: &Words) -> Result<Verb, String> {
    Ok(Verb::Encode(mac::Encode(address(words.first())?)))
}

impl Words<'_> {
    fn first(&self) -> &str {
        self.values.first().copied().unwrap_or_default()
    }

    /// What `up` and `down` are told; `down` takes no --bridge.
    fn tap(&self) -> Result<up_down::Request, String> {
        Ok(up_down::Request {
            tap: interface(self.first())?,
            mac: self.raw.value(&MAC).map(|value| mac(text(value)?)).transpose()?,
            bridge: self.raw.value(&BRIDGE).map(|value| interface(text(value)?)).transpose()?,
        })
    }
}

fn mac(value: &str) -> Result<MacAddr6, String> {
    addr::parse_mac(value).map_err(|error| error.to_string())
}

fn address(value: &str) -> Result<Ipv4Addr, String> {
    value.parse().map_err(|_| format!("{value:?} is not an IPv4 address such as 10.0.0.10"))
}

fn interface(value: &str) -> Result<String, String> {
    let fits = is_interface_name(value).then(|| value.to_owned());
    fits.ok_or_else(|| format!("{value:?} is not an interface name (at most 15 characters, no / and no space)"))
}

fn form(word: &str) -> Result<Form, String> {
    match word {
        "nxos" => Ok(Form::Nxos),
        "frr" => Ok(Form::Frr),
        other => Err(format!("tap32 knows no switch configuration {other:?}: use nxos or frr")),
    }
}

pub fn text(value: &OsString) -> Result<&str, String> {
    value.to_str().ok_or_else(|| format!("{value:?} is not UTF-8 text"))
}
