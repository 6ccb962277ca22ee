//! `tap32 render WHAT` prints configuration for other programs. Each target has a file in `fabric`, `host` or `guest`.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use super::{Common, Report};
use crate::addr::GuestMac;
use crate::config::Config;
pub use crate::fabric::render::switch::Form;
use crate::fabric::render::{border, frr, switch};
use crate::guest::{cloud_init, libvirt_interface};
use crate::host::{dnsmasq, ifupdown, netplan, networkd, sysctl};
use crate::machine::network_managers;

/// What can be rendered.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// /etc/frr/frr.conf
    Frr,
    /// The switches' side of the uplinks.
    Switch {
        /// `None` for both.
        form: Option<Form>,
        /// `None` for all.
        uplink: Option<String>,
    },
    /// The backbone side of the MDU's border; `None` for both forms.
    Border(Option<Form>),
    /// sysctl.d(5)
    Sysctl,
    /// systemd.netdev(5) and systemd.network(5)
    Networkd,
    /// interfaces(5)
    Ifupdown,
    /// dnsmasq(8), as a DHCP server for the guests.
    Dnsmasq,
    /// The `<interface>` element for the guest with this address.
    Libvirt(Ipv4Addr),
    /// cloud-init's network-config for the guest whose NICs have these addresses.
    CloudInit(Vec<Ipv4Addr>),
}

/// The words of `tap32 render WHAT`, for messages and help.
pub(crate) const WORDS: &str = "frr, switch [nxos|frr [UPLINK]], border [nxos|frr], sysctl, networkd, ifupdown, dnsmasq, \
     libvirt ADDR, cloud-init ADDR...";

/// # Errors
/// As [`render`].
pub(crate) fn run(request: &Request, common: &Common) -> Result<Report> {
    let config = common.config()?;
    let text = render(&config, request).context("render")?;
    let netplan = network_managers::netplan_files();
    if *request != Request::Networkd || netplan.is_empty() {
        return Ok(text.into());
    }
    let files: Vec<_> = netplan.iter().map(|file| file.display().to_string()).collect();
    Ok((netplan::note(&config, &files) + "\n" + &text).into())
}

/// The text of one target.
///
/// # Errors
/// One line that names the key that the target needs and the configuration lacks.
pub fn render(config: &Config, request: &Request) -> Result<String> {
    if matches!(request, Request::Frr | Request::Switch { .. }) {
        config.check_mdu_protocol()?;
    }
    let guest = |address: &Ipv4Addr| GuestMac::from_address(*address, config.mac_prefix);
    match request {
        Request::Frr => frr::render(config),
        Request::Border(form) => border::render(config, *form),
        Request::Switch { form, uplink } => switch::render(config, *form, uplink.as_deref()),
        Request::Sysctl => sysctl::render(config),
        Request::Networkd => networkd::render(config),
        Request::Ifupdown => ifupdown::render(config),
        Request::Dnsmasq => dnsmasq::render(config),
        Request::Libvirt(address) => libvirt_interface::render(config, guest(address)),
        Request::CloudInit(addresses) => cloud_init::render(config, &addresses.iter().map(guest).collect::<Vec<_>>()),
    }
}
