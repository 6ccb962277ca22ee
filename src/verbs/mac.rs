//! `tap32 decode` and `tap32 encode`: guest MAC to address and back.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use macaddr::MacAddr6;

use super::{Common, Report};
use crate::addr::GuestMac;
use crate::guest::policy;

#[derive(Debug, PartialEq, Eq)]
pub struct Decode(pub MacAddr6);

#[derive(Debug, PartialEq, Eq)]
pub struct Encode(pub Ipv4Addr);

/// # Errors
/// The MAC has another prefix than guests'.
pub fn decode(request: &Decode, common: &Common) -> Result<Report> {
    let guest = policy::guest_mac(&common.config()?, request.0).context("decode")?;
    Ok(format!("{}\n", guest.address()).into())
}

pub fn encode(request: &Encode, common: &Common) -> Result<Report> {
    Ok(format!("{}\n", GuestMac::from_address(request.0, common.config()?.mac_prefix)).into())
}
