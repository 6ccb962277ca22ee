//! `doctor` and firewalls that drop what the host forwards: each firewall is real, its own program made it, and packets
//! between three namespaces judge it. What doctor prints lets them pass, and nothing else is needed. They need root and
//! nftables, iptables, ufw, firewalld, dbus-daemon: `sudo tests/run`.

mod common;

use common::forward::{NOTHING, Net, table};

/// Docker's rules as its daemon made them; also the input of a golden case.
const DOCKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/doctor/forward-docker/firewall/iptables-nft");
const DOCKER_28: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/doctor/forward-docker-28/firewall/iptables-nft");

#[test]
#[ignore = "needs root: sudo tests/run"]
fn nftables_that_drop_are_named_and_opened() {
    let net = Net::new();
    let chain = "forward chain inet filter forward";
    let fix = "nft 'insert rule inet filter forward iifname \"br-l2\" accept'";
    let survives = |inject: &str, verdict: &str, blocked| {
        net.survives(inject, chain, verdict, fix, blocked);
        net.view.ok("nft delete table inet filter");
    };
    survives(&table("policy drop;"), "fail", NOTHING);
    survives(&table("iifname \"docker0\" accept; counter drop;"), "fail", NOTHING);
    survives(
        &table("ct state vmap { established : accept, related : accept, invalid : drop }; reject;"),
        "fail",
        NOTHING,
    );
    survives(&table("policy drop; iifname \"br-l2\" accept;"), "fail", [false, false, true]);
    survives(
        &table("policy drop; ct state established,related accept; iifname \"br-l2\" accept;"),
        "fail",
        [false, true, true],
    );
    survives(
        &table("policy drop; iifname \"br-l2\" oifname \"eth0\" accept; iifname \"eth0\" oifname \"br-l2\" accept;"),
        "fail",
        [true, true, false],
    );
    survives(&table("policy drop; icmp type echo-request accept; ct state established accept;"), "fail", NOTHING);
    survives(
        &table("policy drop; ct state established accept; tcp dport 80 accept; icmp type echo-request accept;"),
        "warn",
        [true; 3],
    );
    // In a table that has iptables' name, where iptables would read a rule with a set as one for all packets.
    net.survives(
        "nft 'table ip filter { chain forward { type filter hook forward priority 0; policy drop; }; }'",
        "forward chain ip filter forward",
        "fail",
        "nft 'insert rule ip filter forward iifname \"br-l2\" accept'",
        NOTHING,
    );
    net.view.ok("nft delete table ip filter");
    net.survives(
        "nft 'table ip filter { set s { type ifname; elements = { lo }; }; chain FORWARD { type filter hook forward \
         priority 0; policy drop; iifname @s accept; }; }'",
        "forward chain ip filter FORWARD",
        "fail",
        "FORWARD",
        NOTHING,
    );
    net.view.ok("nft delete table ip filter");
    // Through another chain, at another priority.
    net.survives(
        "nft 'table ip fw { chain deny { reject; }; chain passing { type filter hook forward priority 50; jump deny; }; }'",
        "forward chain ip fw passing",
        "fail",
        "nft 'insert rule ip fw passing iifname \"br-l2\" accept'",
        NOTHING,
    );
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn nftables_that_let_guests_pass_are_left_alone() {
    let net = Net::new();
    let sets = "set ours { type ifname; elements = { br-l2, lo }; }; map verdicts { type ifname : verdict; elements = \
                { br-l2 : accept }; }; set nets { type ipv4_addr; flags interval; elements = { 10.0.0.0/23 }; }; \
                set pairs { type ifname . ifname; elements = { br-l2 . eth0, eth0 . br-l2, br-l2 . br-l2 }; }; \
                chain yes { accept; }; chain no { iifname lo accept; };";
    for rules in [
        "policy drop; iifname br-l2 accept; oifname br-l2 accept;",
        "iif br-l2 accept; oif br-l2 accept; reject;",
        "policy drop; iifname \"br-*\" accept; oifname \"br*\" counter accept;",
        "policy drop; iifname { docker0, br-l2 } accept; oifname @ours accept;",
        "policy drop; iifname vmap @verdicts; oifname vmap { br-l2 : goto yes };",
        "policy drop; iifname . oifname @pairs accept;",
        "policy drop; jump no; ip saddr @nets accept; ip daddr { 10.0.0.0/24, 192.168.0.0/16 } jump yes;",
        "policy drop; ct state established,related accept; iifname br-l2 accept; oifname br-l2 accept;",
        "iifname != br-l2 oifname != br-l2 drop;",
        "ip saddr 203.0.113.0/24 drop; tcp dport 25 drop;",
        "ip6 saddr ::1 drop; meta nfproto ipv6 drop; meta mark 0x7 drop;",
    ] {
        let inject = format!(
            "nft 'table inet filter {{ {sets} chain forward {{ type filter hook forward priority 0; {rules} }}; }}'"
        );
        net.view.ok(&inject);
        net.is_well(rules);
        net.view.ok("nft delete table inet filter");
    }
    // A table that does nothing.
    net.view.ok("nft 'table ip off { flags dormant; chain f { type filter hook forward priority 0; policy drop; }; }'");
    net.is_well("a dormant table");
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn both_iptables_are_named_and_opened() {
    let net = Net::new();
    for (program, family) in [("iptables-nft", "ip"), ("iptables-legacy", "iptables-legacy")] {
        let filter = format!("forward chain {family} filter FORWARD");
        let survives = |rules: &str, check: &str, fix: &str, blocked| {
            let inject: Vec<_> = rules.split("; ").map(|rule| format!("{program} {rule}")).collect();
            net.survives(&inject.join(" && "), check, "fail", &format!("{program} {fix}"), blocked);
            net.view.ok(&format!("for t in filter mangle; do {program} -t $t -P FORWARD ACCEPT; {program} -t $t -F; {program} -t $t -X; done"));
        };
        let fix = "-I FORWARD -i br-l2 -j ACCEPT";
        survives("-P FORWARD DROP", &filter, fix, NOTHING);
        survives(
            "-A FORWARD -i docker0 -j ACCEPT; -A FORWARD -j REJECT --reject-with icmp-host-prohibited",
            &filter,
            fix,
            NOTHING,
        );
        survives(
            "-P FORWARD DROP; -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; -A FORWARD -m physdev --physdev-is-bridged -j ACCEPT",
            &filter,
            fix,
            NOTHING,
        );
        survives(
            "-N OUT; -A OUT -m comment --comment \"no -j ACCEPT\" -j DROP; -A FORWARD -g OUT",
            &filter,
            fix,
            NOTHING,
        );
        survives(
            "-t mangle -A FORWARD ! -o lo -j DROP",
            &format!("forward chain {family} mangle FORWARD"),
            "-t mangle -I FORWARD -i br-l2 -j ACCEPT",
            NOTHING,
        );
        for rules in [
            "-P FORWARD DROP; -A FORWARD -i br-l2 -j ACCEPT; -A FORWARD -o br+ -j ACCEPT",
            "-P FORWARD DROP; -N G; -A G -j ACCEPT; -A FORWARD -s 10.0.0.0/8 -j G; -A FORWARD -d 10.0.0.0/255.255.255.0 -j G",
            "-A FORWARD ! -i br-l2 ! -o br-l2 -j DROP; -A FORWARD -p tcp -m tcp --dport 25 -j REJECT",
            "-A FORWARD -m mark --mark 0x8/0x8 -j DROP; -A FORWARD -i br-l2 -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT",
        ] {
            net.is_well_with(program, rules);
        }
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn docker_is_told_in_its_own_chain() {
    let net = Net::new();
    for (program, family) in [("iptables-nft", "ip"), ("iptables-legacy", "iptables-legacy")] {
        for rules in [DOCKER, DOCKER_28] {
            net.survives(
                &format!("{program}-restore <{rules}"),
                &format!("forward chain {family} filter FORWARD"),
                "fail",
                &format!("{program} -I DOCKER-USER -i br-l2 -j ACCEPT && {program} -I DOCKER-USER -o br-l2 -j ACCEPT"),
                NOTHING,
            );
            net.view.ok(&format!("{program} -P FORWARD ACCEPT; {program} -F; {program} -X"));
        }
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn ufw_is_told_by_its_own_command() {
    let net = Net::new();
    net.survives(
        "ufw --force enable",
        "forward chain ip filter FORWARD",
        "fail",
        "ufw route allow in on br-l2 && ufw route allow out on br-l2",
        NOTHING,
    );
    // What it keeps.
    net.view.ok("ufw reload");
    net.is_well("ufw reload");
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn firewalld_is_told_by_its_own_command() {
    let net = Net::new();
    net.view.ok("mkdir -p /run/dbus && dbus-daemon --system --fork --nosyslog --nopidfile --print-pid >/run/dbus/pid");
    let start = "firewalld --nofork --nopid >/run/firewalld.log 2>&1 & echo $! >/run/firewalld.pid; \
                 for i in $(seq 100); do firewall-cmd --state >/dev/null 2>&1 && exit; sleep 0.1; done; exit 1";
    let chain = "forward chain inet firewalld filter_FORWARD";
    net.survives(start, chain, "fail", "firewall-cmd -q --permanent --zone=tap32 --change-interface=br-l2", NOTHING);
    net.view.ok("firewall-cmd --complete-reload");
    net.is_well("firewall-cmd --complete-reload");
    // The host itself is as closed to the guests as before.
    assert!(net.view.ok("firewall-cmd --zone=tap32 --list-all").contains("target: default"));
    net.view.ok("kill $(cat /run/firewalld.pid /run/dbus/pid)");
}
