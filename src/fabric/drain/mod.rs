//! How one uplink leaves the fabric and comes back, in each protocol's words.

pub mod bgp;
pub mod ospf;
