//! Filters in the kernel for the sockets on which tap32 waits: they wake it for what concerns it only.
//!
//! A host that 300 guests arrive at has 300 claimers, and each tap that comes makes events for every one of them. The
//! kernel runs a socket's filter before it queues a message or wakes anybody (do_one_broadcast, net/netlink/af_netlink.c).

use std::net::Ipv4Addr;

use nix::libc;
use socket2::SockFilter;

/// Offsets in a message: struct nlmsghdr with its type, then struct ndmsg, which begins with the family, then attributes.
const TYPE: u32 = 4;
const PORT: u32 = 12;
const FAMILY: u32 = 16;
const ATTRIBUTES: u32 = 28;
/// ndm_state, 16 bits in the order of the host; the state that matters is in the lower half.
const STATE: u32 = if cfg!(target_endian = "little") { 24 } else { 25 };
const NUD_PERMANENT: u32 = 0x80;

const NDA_LLADDR: u32 = 2;
const NDA_PROTOCOL: u32 = 12;
/// Behind the attribute's header and the first two octets of the MAC: a guest's MAC and its tap's end in the address.
const ADDRESS: u32 = 4 + 2;

const ACCEPT: u32 = u32::MAX;
const DROP: u32 = 0;

/// Accepts what bridges say of these guests' MACs and their taps', and the message by which somebody with CAP_NET_ADMIN
/// dismisses the claimer. For a socket that listens to RTNLGRP_NEIGH.
///
/// Of a MAC the last four octets are compared; who is woken looks closer.
pub fn of_guests(addresses: &[Ipv4Addr]) -> Vec<SockFilter> {
    let load = libc::BPF_LD | libc::BPF_ABS;
    let find_attribute = (libc::SKF_AD_OFF + libc::SKF_AD_NLATTR) as u32;
    let mut program = vec![
        // Loads are in network order, and netlink's types are not.
        statement(load | libc::BPF_H, TYPE),
        skip_unless(u32::from((libc::NLMSG_NOOP as u16).to_be()), 1),
        statement(libc::BPF_RET, ACCEPT),
        statement(load | libc::BPF_B, FAMILY),
        jump(libc::AF_BRIDGE as u32, 1, 0),
        statement(libc::BPF_RET, DROP),
        // Where the first attribute of type X is, from A on; 0 without one.
        statement(libc::BPF_LD | libc::BPF_IMM, ATTRIBUTES),
        statement(libc::BPF_LDX | libc::BPF_IMM, NDA_LLADDR),
        statement(load | libc::BPF_W, find_attribute),
        skip_unless(0, 1),
        statement(libc::BPF_RET, DROP),
        statement(libc::BPF_MISC | libc::BPF_TAX, 0),
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_IND, ADDRESS),
    ];
    for address in addresses {
        program.push(skip_unless(u32::from(*address), 1));
        program.push(statement(libc::BPF_RET, ACCEPT));
    }
    program.push(statement(libc::BPF_RET, DROP));
    program
}

/// Of what is said of FDBs and neighbours accepts two things: that a bridge has lost a port's own MAC, and that a neighbour
/// entry is gone that somebody marked with a protocol, as tap32 does. It drops the rest, which a host says of each guest
/// again and again. Accepts all other messages, but none of what the kernel says was done through the socket with the port
/// `own`, which is no news: thousands of routes that a pass adds would fill the receive buffer.
pub fn of_host(own: u32) -> Vec<SockFilter> {
    let load = libc::BPF_LD | libc::BPF_ABS;
    let in_network_order = |kind: u16| u32::from(kind.to_be());
    let find_attribute = (libc::SKF_AD_OFF + libc::SKF_AD_NLATTR) as u32;
    vec![
        statement(load | libc::BPF_W, PORT),
        skip_unless(own.to_be(), 1),
        statement(libc::BPF_RET, DROP),
        statement(load | libc::BPF_H, TYPE),
        jump(in_network_order(libc::RTM_NEWNEIGH), 9, 0),
        jump(in_network_order(libc::RTM_DELNEIGH), 0, 9),
        statement(load | libc::BPF_B, FAMILY),
        jump(libc::AF_BRIDGE as u32, 0, 2),
        statement(load | libc::BPF_B, STATE),
        SockFilter::new((libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16, 5, 4, NUD_PERMANENT),
        statement(libc::BPF_LD | libc::BPF_IMM, ATTRIBUTES),
        statement(libc::BPF_LDX | libc::BPF_IMM, NDA_PROTOCOL),
        statement(load | libc::BPF_W, find_attribute),
        jump(0, 0, 1),
        statement(libc::BPF_RET, DROP),
        statement(libc::BPF_RET, ACCEPT),
    ]
}

fn statement(code: u32, value: u32) -> SockFilter {
    SockFilter::new(code as u16, 0, 0, value)
}

/// Leaves out so many instructions unless what was loaded is `value`.
fn skip_unless(value: u32, count: u8) -> SockFilter {
    jump(value, 0, count)
}

fn jump(value: u32, if_so: u8, else_: u8) -> SockFilter {
    SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, if_so, else_, value)
}
