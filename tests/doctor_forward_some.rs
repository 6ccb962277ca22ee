//! `doctor` and rules that drop some of the packets of guests, or none that matter: each is a real rule, and packets
//! judge it as in tests/doctor_forward.rs. They need root and nftables, iptables, ufw: `sudo tests/run`.

mod common;

use common::forward::{NOTHING, Net, table};

/// In one row doctor names the rule, and what it prints takes all packets past it.
fn may_drop(net: &Net, inject: &str, check: &str, rule: &str) {
    net.view.ok(inject);
    let rows = net.rows();
    let [[of, is, seen, command]] = &rows[..] else { panic!("{inject}: {rows:?}") };
    assert_eq!((of.as_str(), is.as_str()), (check, "warn"), "{inject}: {seen}");
    assert!(seen.contains(rule) && seen.contains(" may drop ") && !seen.contains("most"), "{inject}: {seen}");
    println!("{inject}\n    {seen}");
    net.view.ok(command);
    net.is_well(&format!("after {command}"));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn rules_that_drop_some_of_guests_packets_are_named() {
    let net = Net::new();
    for rule in [
        "ip daddr 10.0.0.10 drop",
        "ip saddr 10.0.0.10 drop",
        "ip daddr { 10.0.0.10, 10.0.0.11 } drop",
        "ip daddr 10.0.0.0/25 reject",
        "ip daddr 10.0.0.2-10.0.0.200 drop",
        "ip saddr 128.0.0.0/1 drop",
        "ct direction reply drop",
        "ct original ip daddr 10.0.0.0/24 drop",
        "tcp flags & (syn|ack) == syn drop",
        "tcp flags syn drop",
        "tcp flags & (fin|syn|rst|ack) != syn ct state new drop",
        "tcp dport 1024-65535 drop",
        "tcp dport >= 1024 drop",
        "meta hour >= \"00:00\" drop",
        "numgen random mod 2 0 drop",
        "meta random & 1 == 0 drop",
        "meta l4proto udp drop",
        "limit rate over 1/minute drop",
        "ip daddr vmap { 10.0.0.10 : drop }",
        "tcp flags { syn, syn|ack } drop",
        "ether saddr 02:42:0a:00:00:0a drop",
    ] {
        let field: Vec<_> = rule.split(' ').take(2).collect();
        let inject = table(&format!("iifname \"docker0\" drop; {rule};"));
        may_drop(&net, &inject, "forward chain inet filter forward", &format!("`{} ", field.join(" ")));
        net.view.ok("nft delete table inet filter");
    }
    // A chain in place; nft's JSON does not show it.
    let inject = table("iifname \"docker0\" drop; jump { ip daddr 10.0.0.10 drop; };");
    may_drop(&net, &inject, "forward chain inet filter forward", "the rule with handle ");
    net.view.ok("nft delete table inet filter");
    // The chain of a guest.
    let guest = "chain guest { tcp dport 22 accept; drop; }; chain forward { type filter hook forward priority 0;";
    let inject = format!("nft 'table inet filter {{ {guest} ip daddr 10.0.0.10 jump guest; }}; }}'");
    may_drop(&net, &inject, "forward chain inet filter forward", "`drop` (handle ");
    net.view.ok("nft delete table inet filter");
    for (program, family) in [("iptables-nft", "ip"), ("iptables-legacy", "iptables-legacy")] {
        for rule in [
            "-d 10.0.0.10/32 -j DROP",
            "-s 10.0.0.10/32 -j REJECT",
            "-m iprange --dst-range 10.0.0.2-10.0.0.200 -j DROP",
            "-m conntrack --ctdir REPLY -j DROP",
            "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j DROP",
            "-m statistic --mode random --probability 0.50000000000 -j DROP",
            "-p tcp -m tcp --dport 1024:65535 -j DROP",
        ] {
            let inject = format!("{program} -A FORWARD {rule}");
            let check = format!("forward chain {family} filter FORWARD");
            // What needs no extension of iptables nft prints as its own.
            let words = if family == "ip" && (["-d", "-p"].contains(&&rule[..2])) {
                " counter drop` (handle ".to_owned()
            } else {
                format!("`-A FORWARD {rule}")
            };
            may_drop(&net, &inject, &check, &words);
            net.view.ok(&format!("{program} -F"));
        }
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn ordinary_policy_is_left_alone() {
    let net = Net::new();
    for rules in [
        "tcp dport { 25, 445 } drop; udp dport 137-139 drop; tcp dport < 20 drop; icmp type redirect drop;",
        "ip daddr 10.0.1.10 drop; ip saddr 203.0.113.0/24 drop; ip saddr 10.0.0.1 drop; ip daddr 10.9.0.0/16 drop;",
        "iifname \"wg0\" ip daddr 10.0.0.10 drop; ip daddr 10.0.0.10 tcp dport 25 drop;",
        "tcp flags & (fin|syn) == (fin|syn) drop; tcp flags & (fin|syn|rst|psh|ack|urg) == 0 drop;",
        "ip frag-off & 0x1fff != 0 drop; meta pkttype broadcast drop; fib saddr type { broadcast, multicast } drop;",
        "fib saddr . iif oif missing drop; icmp type echo-request limit rate over 50/second drop;",
        "policy drop; fib daddr type unicast accept;",
    ] {
        net.view.ok(&table(rules));
        net.is_well(rules);
        net.view.ok("nft delete table inet filter");
    }
    for program in ["iptables-nft", "iptables-legacy"] {
        for rules in [
            "-A FORWARD -f -j DROP; -A FORWARD -p tcp -m multiport --dports 25,445,6000:6010 -j DROP",
            "-A FORWARD -p tcp --tcp-flags ALL NONE -j DROP; -A FORWARD -p tcp --tcp-flags SYN,RST SYN,RST -j DROP",
            "-A FORWARD -m pkttype --pkt-type broadcast -j DROP; -A FORWARD -p icmp --icmp-type redirect -j DROP",
            "-P FORWARD DROP; -A FORWARD -m addrtype --dst-type UNICAST -j ACCEPT",
        ] {
            net.is_well_with(program, rules);
        }
    }
}

/// An inactive ufw takes `ufw route allow` and changes no chain.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn chains_of_an_inactive_ufw_are_opened_without_it() {
    let net = Net::new();
    net.survives(
        "ufw --force enable && sed -i s/^ENABLED=.*/ENABLED=no/ /etc/ufw/ufw.conf",
        "forward chain ip filter FORWARD",
        "fail",
        "iptables-nft -I FORWARD -i br-l2 -j ACCEPT",
        NOTHING,
    );
}
