//! `tap32 decode` and `tap32 encode`: guest MAC to address and back.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use macaddr::MacAddr6;

use super::{Common, Report};
use crate::addr::GuestMac;
use crate::guest::policy;

pub struct Decode(pub MacAddr6);

pub struct Encode(pub Ipv4Addr);

/// # Errors
/// The MAC is not a guest MAC.
pub fn decode(request: &Decode, common: &Common) -> Result<Report> {
    let guest = policy::guest_mac(&common.config()?, request.0).context("decode")?;
    Ok(format!("{}\n", guest.address()).into())
}

pub fn encode(request: &Encode, common: &Common) -> Result<Report> {
    Ok(format!("{}\n", GuestMac::from_address(request.0, common.config()?.mac_prefix)).into())
}
