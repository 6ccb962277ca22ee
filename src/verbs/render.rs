//! `tap32 render WHAT`: configuration for others, printed. Each target has a file of its own, in `fabric`, `host` or
//! `guest`.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use super::{Common, Report};
use crate::addr::GuestMac;
use crate::config::Config;
pub use crate::fabric::render::switch_port::Form;
use crate::fabric::render::{frr, switch};
use crate::guest::libvirt_interface;
use crate::host::{ifupdown, networkd, sysctl_d};

/// What can be rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Frr,
    /// The switches' side of the uplinks: in both forms or one, for all of them or one.
    Switch {
        form: Option<Form>,
        uplink: Option<String>,
    },
    Sysctl,
    Networkd,
    Ifupdown,
    /// The `<interface>` element for the guest with this address.
    Libvirt(Ipv4Addr),
}

/// The words of `tap32 render WHAT`, for messages and help.
pub const WORDS: &str = "frr, switch [nxos|frr [UPLINK]], sysctl, networkd, ifupdown, libvirt ADDR";

/// Prints one target.
///
/// # Errors
/// As [`render`].
pub fn run(request: &Request, common: &Common) -> Result<Report> {
    Ok(render(&common.config()?, request).context("render")?.into())
}

/// # Errors
/// One line that names the key that the target needs and the configuration lacks.
pub fn render(config: &Config, request: &Request) -> Result<String> {
    match request {
        Request::Frr => frr::render(config),
        Request::Switch { form, uplink } => switch::render(config, *form, uplink.as_deref()),
        Request::Sysctl => sysctl_d::render(config),
        Request::Networkd => networkd::render(config),
        Request::Ifupdown => ifupdown::render(config),
        Request::Libvirt(address) => {
            libvirt_interface::render(config, GuestMac::from_address(*address, config.mac_prefix))
        }
    }
}
