//! The table of verbs. Parsing, `--help`, usage errors, man page and completions come from it.

use std::fmt::Write as _;

use anyhow::Result;

use super::options::{ALL, BRIDGE, CHECK, COMMON, DRY_RUN, JSON, MAC, Opt};
use super::requests::{self, Words};
use crate::verbs::{Verb, doctor, libvirt};

/// One verb.
pub struct Spec {
    /// The word on the command line.
    pub name: &'static str,
    /// The positional arguments, as in the usage line; `X...` may be repeated, `[X]` left out.
    pub arguments: &'static str,
    /// The line in the list of verbs.
    pub summary: &'static str,
    /// The text of `--help`, in lines.
    pub details: &'static str,
    /// Its options, without those that every verb takes.
    pub options: &'static [&'static Opt],
    /// Makes the verb's request.
    pub(super) read: fn(&Words) -> Result<Verb>,
}

/// Every verb, in the order in which help lists them.
pub const VERBS: &[Spec] = &[
    Spec {
        name: "up",
        arguments: "IFNAME",
        summary: "attach a tap to its bridge and route its guest",
        details: "QEMU calls it as qemu-ifup. The guest MAC comes from --mac, else from the command line of the\n\
                  calling QEMU, else from the tap's own MAC if that was set. You can run it twice. If tap32 refuses\n\
                  the tap, it changes nothing. If a step fails, it takes the earlier steps back.",
        options: &[&MAC, &BRIDGE, &DRY_RUN],
        read: |words| Ok(Verb::Up(words.tap()?)),
    },
    Spec {
        name: "down",
        arguments: "IFNAME",
        summary: "delete a guest's route and detach its tap",
        details: "QEMU calls it as qemu-ifdown. A tap or route that is gone is not an error. If the tap no longer\n\
                  exists, give the guest's MAC with --mac.",
        options: &[&MAC, &DRY_RUN],
        read: |words| Ok(Verb::Down(words.tap()?)),
    },
    Spec {
        name: "reconcile",
        arguments: "",
        summary: "bring every tap and every tap32 route in order",
        details: "Adds what is missing, also for guests that ran before tap32 was installed. Deletes tap32's routes\n\
                  that no tap accounts for, and claims whose claimer is dead. Changes nothing that is not tap32's.\n\
                  Prints the steps it took; without any it prints nothing.",
        options: &[&DRY_RUN],
        read: |_| Ok(Verb::Reconcile),
    },
    Spec {
        name: "watch",
        arguments: "",
        summary: "reconcile at the start, on every change, and every `resync`",
        details: "The daemon (tap32-watch.service). SIGHUP makes it read the configuration again. SIGTERM ends it\n\
                  and leaves the routes. It logs each step it takes. With [watch] metrics = \"FILE.prom\" it writes\n\
                  figures for Prometheus.",
        options: &[],
        read: |_| Ok(Verb::Watch),
    },
    Spec {
        name: "status",
        arguments: "[IFNAME]",
        summary: "show each tap, its guest, and the state of its route",
        details: "ROUTE is settled, arriving (by live migration), claimed (the guest has just arrived), missing,\n\
                  shadowed (another route wins; NEXT HOP names the other host), refused or idle (nobody has the\n\
                  tap open). An orphan is a tap32 route without a guest. With more than 20 taps and orphans, what is\n\
                  wrong comes first, and taps that stand alike share a row that counts them. With IFNAME tap32\n\
                  explains that tap step by step: MAC, address, port, routes, and what the kernel and FRR chose.",
        options: &[&ALL, &JSON, &CHECK],
        read: requests::status,
    },
    Spec {
        name: "uplink",
        arguments: "WHAT [NAME]",
        summary: "list the uplinks, drain NAME, restore NAME",
        details: "drain takes an uplink out of the fabric without packet loss. It returns when no route uses the\n\
                  uplink. It refuses unless another uplink carries: neighbour Full or Established, BFD up, and\n\
                  routes. restore puts the uplink back, and returns when routes use it. Both change FRR's running\n\
                  configuration with vtysh and print the commands.",
        options: &[&JSON, &DRY_RUN],
        read: requests::uplink,
    },
    Spec {
        name: "libvirt",
        arguments: "DOMAIN OP SUBOP EXTRA",
        summary: "the hook that libvirt calls, with the domain's XML on stdin",
        details: "prepare checks the guest's address. start adds the route. stopped and release delete it, by MAC.\n\
                  reconnect repairs. migrate waits for the guest to arrive and claims its address. Every other\n\
                  operation does nothing.",
        options: &[],
        read: |words| {
            let (domain, operation) = (words.word(0).to_owned(), words.word(1).to_owned());
            Ok(Verb::Libvirt(libvirt::Request { domain, operation }))
        },
    },
    Spec {
        name: "setup",
        arguments: "",
        summary: "make the bridges, the uplinks' addresses and the sysctls as configured",
        details: "It makes each [[bridge]] with a gateway, gives each [[uplink]] its address and the loopback the\n\
                  router-id, and sets the sysctls for routing. It prints each change as the command a person would\n\
                  type; without a change it prints nothing. It removes nothing. If a bridge has a port that is no tap\n\
                  or is itself in a VRF, setup changes nothing at all. If systemd-networkd, NetworkManager or ifupdown\n\
                  manages an interface, setup leaves the interface alone and says what to write there.",
        options: &[&DRY_RUN],
        read: |_| Ok(Verb::SetUp),
    },
    Spec {
        name: "doctor",
        arguments: "",
        summary: "check the host, its hooks, FRR and each guest, and print the fixes",
        details: "Shows each fault with the shell command that fixes it, and exits 1 if a check failed. It changes\n\
                  nothing. A fix in FRR lasts until FRR restarts; `vtysh -c 'write memory'` keeps it. Checks that\n\
                  need root show `warn` without it.",
        options: &[&JSON],
        read: |words| Ok(Verb::Doctor(doctor::Request { json: words.has(&JSON) })),
    },
    Spec {
        name: "render",
        arguments: "WHAT...",
        summary: "print configuration for FRR, the switches, sysctl.d and others",
        details: "frr                            the host's /etc/frr/frr.conf, OSPF or BGP as fabric.protocol says\n\
                  switch [nxos|frr [UPLINK]]     the switches' side of the uplinks\n\
                  border [nxos|frr]              the MDU's border, towards the backbone\n\
                  sysctl                         the same settings as setup makes, for /etc/sysctl.d\n\
                  networkd, ifupdown             the same settings as networkd or ifupdown files\n\
                  dnsmasq                        a DHCP server's configuration, the same on every host\n\
                  libvirt ADDR                   the <interface> element for a guest\n\
                  cloud-init ADDR...             network-config for a guest with these NICs",
        options: &[],
        read: requests::render,
    },
    Spec {
        name: "arrival",
        arguments: "MAC...",
        summary: "wait for guests that migrate here, and claim their addresses",
        details: "`up` and libvirt's hook start it: the claimer. It waits until the bridge learns the guest's MAC,\n\
                  claims the address, waits `settle`, deletes the claim, and ends. `tap32 down` ends it sooner. SIGTERM\n\
                  ends it only while the guest has no tap here, so that a service's restart leaves a claim alone.",
        options: &[],
        read: requests::arrival,
    },
    Spec {
        name: "decode",
        arguments: "MAC",
        summary: "print the address that a guest MAC carries",
        details: "A guest MAC is mac-prefix and the four octets of the address, each in hexadecimal.",
        options: &[],
        read: requests::decode,
    },
    Spec {
        name: "encode",
        arguments: "ADDR",
        summary: "print the guest MAC for an address",
        details: "A guest MAC is mac-prefix and the four octets of the address, each in hexadecimal.",
        options: &[],
        read: requests::encode,
    },
];

impl Spec {
    /// `tap32 up IFNAME [--mac MAC] [--bridge BR] [-n]`
    pub fn usage(&self) -> String {
        let mut usage = format!("tap32 {}", self.name);
        if !self.arguments.is_empty() {
            usage = format!("{usage} {}", self.arguments);
        }
        for option in self.options {
            usage = match option.short {
                Some(short) => format!("{usage} [-{short}]"),
                None if option.value.is_empty() => format!("{usage} [--{}]", option.long),
                None => format!("{usage} [--{} {}]", option.long, option.value),
            };
        }
        usage
    }

    pub(super) fn help(&self) -> String {
        let mut text = format!("{}: {}\n\nUsage: {}\n\n{}\n\n", self.name, self.summary, self.usage(), self.details);
        text.push_str(&option_lines(self.options.iter().chain(COMMON)));
        text
    }
}

/// `tap32 --help`.
pub(super) fn overview() -> String {
    let mut text = format!(
        "tap32 {}: turns each tap of a KVM host into one routed /32\n\nUsage: tap32 VERB [ARGUMENT] [OPTIONS]\n\n",
        env!("CARGO_PKG_VERSION")
    );
    for spec in VERBS {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:<31}{}", format!("{} {}", spec.name, spec.arguments), spec.summary);
    }
    text.push_str("\nOptions of every verb (tap32 VERB --help shows its own):\n");
    text.push_str(&option_lines(COMMON.iter()));
    text.push_str(
        "\nCalled as qemu-ifup or qemu-ifdown, tap32 runs up or down; called as .../hooks/qemu or\n\
         .../hooks/qemu.d/ANY, it runs libvirt.\n\
         Exit codes: 0 done, 1 refused or failed (one line on stderr and in syslog says why), 2 wrong arguments.\n",
    );
    text
}

fn option_lines<'a>(options: impl Iterator<Item = &'a &'static Opt>) -> String {
    options.fold(String::new(), |mut text, option| {
        let short = option.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
        let _ = writeln!(text, "  {:<22}{}", format!("{short}--{} {}", option.long, option.value), option.help);
        text
    })
}
