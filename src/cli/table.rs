//! The one table of verbs, from which parsing, `--help`, usage errors, man page and completions come.

use std::fmt::Write as _;

use super::options::{BRIDGE, CHECK, COMMON, DRY_RUN, JSON, MAC, Opt};
use super::requests::{self, Words};
use crate::verbs::Verb;

/// One verb: what it takes and what it is for.
pub struct Spec {
    pub name: &'static str,
    /// The positional arguments, as in the usage line; `X...` may be repeated, `[X]` left out.
    pub arguments: &'static str,
    pub summary: &'static str,
    pub details: &'static str,
    pub options: &'static [&'static Opt],
    /// Makes the verb's request.
    pub read: fn(&Words) -> Result<Verb, String>,
}

/// Every verb, in the order in which help lists them.
pub const VERBS: &[Spec] = &[
    Spec {
        name: "up",
        arguments: "IFNAME",
        summary: "attach a tap to its bridge and route its guest",
        details: "QEMU calls it as qemu-ifup. The guest's MAC comes from --mac, else from the command line of the\n\
                  QEMU that calls, else from the tap's own MAC if somebody set it. Running it twice does no harm.\n\
                  What is refused changes nothing; a step that fails takes back the earlier ones.",
        options: &[&MAC, &BRIDGE, &DRY_RUN],
        read: requests::up,
    },
    Spec {
        name: "down",
        arguments: "IFNAME",
        summary: "take a guest's route away and detach its tap",
        details: "QEMU calls it as qemu-ifdown. What is gone already is not an error. Of a tap that is gone, only\n\
                  --mac says which route was its.",
        options: &[&MAC, &DRY_RUN],
        read: requests::down,
    },
    Spec {
        name: "reconcile",
        arguments: "",
        summary: "bring every tap and every route of ours in order",
        details: "Adds what is missing, also of guests that ran before tap32 came; deletes our routes that no tap accounts\n\
                  for; takes back claims whose claimer is dead. Touches nothing that is not ours. Prints what it did; with\n\
                  nothing to do it prints nothing.",
        options: &[&DRY_RUN],
        read: requests::reconcile,
    },
    Spec {
        name: "watch",
        arguments: "",
        summary: "reconcile now, on every change, and every `resync`",
        details: "The daemon (tap32-watch.service). SIGHUP rereads the configuration, SIGTERM ends it and leaves the routes.\n\
                  What it mends it logs, one line a step; [watch] metrics = \"FILE.prom\" writes figures for Prometheus.",
        options: &[],
        read: requests::watch,
    },
    Spec {
        name: "status",
        arguments: "[IFNAME]",
        summary: "show each tap, its guest, and what became of its route",
        details: "ROUTE is settled, claimed (the guest has just arrived), missing, shadowed (another host's route\n\
                  wins, NEXT HOP says whose) or refused. An orphan is a route of ours without a tap.\n\
                  With IFNAME it explains that tap step by step: MAC, address, port, routes, the kernel's and FRR's choice.",
        options: &[&JSON, &CHECK],
        read: requests::status,
    },
    Spec {
        name: "uplink",
        arguments: "WHAT [NAME]",
        summary: "list the uplinks, drain NAME, restore NAME",
        details: "drain takes an uplink out of the fabric without a lost packet, and waits until nothing is routed over it; it\n\
                  refuses unless another one has its neighbour Full or Established with BFD up and routes over it. restore brings\n\
                  it back, and waits until routes lead over it. Both change FRR's running configuration, by vtysh, and\n\
                  print how.",
        options: &[&JSON, &DRY_RUN],
        read: requests::uplink,
    },
    Spec {
        name: "libvirt",
        arguments: "DOMAIN OP SUBOP EXTRA",
        summary: "what libvirt calls as its hook, with the domain's XML on stdin",
        details: "prepare checks the policy, start routes, stopped and release take the routes away by MAC, reconnect\n\
                  repairs, migrate waits for the guest to arrive and claims its address. Anything else does nothing.",
        options: &[],
        read: requests::libvirt,
    },
    Spec {
        name: "setup",
        arguments: "",
        summary: "make the bridges, the uplinks' addresses and the sysctls as configured",
        details: "Each [[bridge]] with a gateway, each [[uplink]], the router-id on the loopback, and what the kernel needs to\n\
                  route between them. Prints each change as the command a person would type; with nothing to do it prints\n\
                  nothing. Takes nothing away, and leaves interfaces alone that systemd-networkd, NetworkManager or\n\
                  ifupdown has: it says what to write there.",
        options: &[&DRY_RUN],
        read: requests::setup,
    },
    Spec {
        name: "doctor",
        arguments: "",
        summary: "check the host, its hooks, FRR and each guest, and print what mends it",
        details: "Shows what is not as it should be, each with the shell command that mends it; exit 1 with any fail. Changes\n\
                  nothing by itself. What it mends in FRR lasts until FRR restarts: `vtysh -c 'write memory'` keeps it.\n\
                  What needs root is a warn for anybody else.",
        options: &[&JSON],
        read: requests::doctor,
    },
    Spec {
        name: "render",
        arguments: "WHAT...",
        summary: "print configuration for FRR, the switches, sysctl.d and others",
        details: "frr                            the host's /etc/frr/frr.conf, OSPF or BGP as fabric.protocol says\n\
                  switch [nxos|frr [UPLINK]]     the switches' side of the uplinks\n\
                  sysctl                         what setup sets, for /etc/sysctl.d\n\
                  networkd, ifupdown             what setup makes, for who has the interfaces\n\
                  libvirt ADDR                   the <interface> element for a guest",
        options: &[],
        read: requests::render,
    },
    Spec {
        name: "arrival",
        arguments: "MAC...",
        summary: "wait for guests that migrate here, and claim (up and libvirt start it)",
        details: "The claimer: waits until the bridge learns the guest's MAC, claims its address, settles, goes.",
        options: &[],
        read: requests::arrival,
    },
    Spec {
        name: "decode",
        arguments: "MAC",
        summary: "print the address that a guest MAC carries",
        details: "02:42:AA:BB:CC:DD is AA.BB.CC.DD, each octet in hexadecimal.",
        options: &[],
        read: requests::decode,
    },
    Spec {
        name: "encode",
        arguments: "ADDR",
        summary: "print the guest MAC for an address",
        details: "10.0.0.10 is 02:42:0a:00:00:0a.",
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

    pub fn help(&self) -> String {
        let mut text = format!("{}: {}\n\nUsage: {}\n\n{}\n\n", self.name, self.summary, self.usage(), self.details);
        text.push_str(&option_lines(self.options.iter().chain(COMMON)));
        text
    }
}

/// `tap32 --help`.
pub fn overview() -> String {
    let mut text = format!(
        "tap32 {}: turns each tap of a KVM host into one routed /32\n\nUsage: tap32 VERB [ARGUMENT] [OPTIONS]\n\n",
        env!("CARGO_PKG_VERSION")
    );
    for spec in VERBS {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:<31}{}", format!("{} {}", spec.name, spec.arguments), spec.summary);
    }
    text.push_str("\nOptions of every verb (tap32 VERB --help shows the others):\n");
    text.push_str(&option_lines(COMMON.iter()));
    text.push_str(
        "\nCalled as qemu-ifup or qemu-ifdown it is up or down; as .../hooks/qemu or .../hooks/qemu.d/ANY it is libvirt.\n\
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

/// All verbs, for a message.
pub fn names() -> String {
    VERBS.iter().map(|spec| spec.name).collect::<Vec<_>>().join(", ")
}
