//! Arguments: one table of verbs from which parsing, `--help` and usage errors all come.

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use lexopt::Arg;
use macaddr::MacAddr6;

use crate::addr;
use crate::config::is_interface_name;

/// One verb: what it takes and what it is for.
pub struct Spec {
    pub name: &'static str,
    /// The positional arguments, as in the usage line; `X...` may be repeated.
    pub arguments: &'static str,
    pub summary: &'static str,
    pub details: &'static str,
    pub options: &'static [&'static Opt],
}

/// One option; `value` is empty for a switch.
pub struct Opt {
    pub long: &'static str,
    pub short: Option<char>,
    pub value: &'static str,
    pub help: &'static str,
}

const MAC: Opt = Opt { long: "mac", short: None, value: "MAC", help: "the guest's MAC, instead of looking for it" };
const BRIDGE: Opt = Opt { long: "bridge", short: None, value: "BR", help: "which of the configured bridges" };
const JSON: Opt = Opt { long: "json", short: None, value: "", help: "for programs" };
const DRY_RUN: Opt = Opt { long: "dry-run", short: Some('n'), value: "", help: "print the steps, change nothing" };
const CONFIG: Opt = Opt {
    long: "config",
    short: None,
    value: "FILE",
    help: "else $TAP32_CONFIG, else /etc/tap32.toml, else built-in defaults",
};
const VERBOSE: Opt = Opt { long: "verbose", short: Some('v'), value: "", help: "say on stderr what is done" };
const HELP: Opt = Opt { long: "help", short: Some('h'), value: "", help: "this text" };
const VERSION: Opt = Opt { long: "version", short: Some('V'), value: "", help: "the version" };

/// Options that every verb takes.
pub const COMMON: &[&Opt] = &[&CONFIG, &VERBOSE, &HELP, &VERSION];
const OWN: &[&Opt] = &[&MAC, &BRIDGE, &JSON, &DRY_RUN];

pub const VERBS: &[Spec] = &[
    Spec {
        name: "up",
        arguments: "IFNAME",
        summary: "attach a tap to its bridge and route its guest",
        details: "QEMU calls it as qemu-ifup. The guest's MAC comes from --mac, else from the command line of the\n\
                  QEMU that calls, else from the tap's own MAC if somebody set it. Running it twice does no harm.\n\
                  What is refused changes nothing; a step that fails takes back the earlier ones.",
        options: &[&MAC, &BRIDGE, &DRY_RUN],
    },
    Spec {
        name: "down",
        arguments: "IFNAME",
        summary: "take a guest's route away and detach its tap",
        details: "QEMU calls it as qemu-ifdown. What is gone already is not an error. Of a tap that is gone, only\n\
                  --mac says which route was its.",
        options: &[&MAC, &DRY_RUN],
    },
    Spec {
        name: "reconcile",
        arguments: "",
        summary: "bring every tap and every route of ours in order",
        details: "Adds what is missing, also of guests that ran before tap32 came; deletes our routes that no tap accounts\n\
                  for; takes back claims whose claimer is dead. Touches nothing that is not ours. Prints what it did; with\n\
                  nothing to do it prints nothing.",
        options: &[&DRY_RUN],
    },
    Spec {
        name: "status",
        arguments: "",
        summary: "show each tap, its guest, and what became of its route",
        details: "ROUTE is settled, claimed (the guest has just arrived), missing, shadowed (another host's route\n\
                  wins, NEXT HOP says whose) or refused. An orphan is a route of ours without a tap.",
        options: &[&JSON],
    },
    Spec {
        name: "libvirt",
        arguments: "DOMAIN OP SUBOP EXTRA",
        summary: "what libvirt calls as its hook, with the domain's XML on stdin",
        details: "prepare checks the policy, start routes, stopped and release take the routes away by MAC, reconnect\n\
                  repairs, migrate waits for the guest to arrive and claims its address. Anything else does nothing.",
        options: &[],
    },
    Spec {
        name: "render",
        arguments: "WHAT ADDR",
        summary: "print configuration: WHAT is libvirt, the <interface> element for an address",
        details: "tap32 render libvirt 10.0.0.10 prints what to put under <devices> in the domain's XML.",
        options: &[],
    },
    Spec {
        name: "arrival",
        arguments: "MAC...",
        summary: "wait for guests that migrate here, and claim (up and libvirt start it)",
        details: "The claimer: waits until the bridge learns the guest's MAC, claims its address, settles, goes.",
        options: &[],
    },
    Spec {
        name: "decode",
        arguments: "MAC",
        summary: "print the address that a guest MAC carries",
        details: "02:42:AA:BB:CC:DD is AA.BB.CC.DD, each octet in hexadecimal.",
        options: &[],
    },
    Spec {
        name: "encode",
        arguments: "ADDR",
        summary: "print the guest MAC for an address",
        details: "10.0.0.10 is 02:42:0a:00:00:0a.",
        options: &[],
    },
];

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    pub verb: Verb,
    pub config: Option<PathBuf>,
    pub dry_run: bool,
    pub verbose: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verb {
    Up(Request),
    Down(Request),
    Status { json: bool },
    Decode { mac: MacAddr6 },
    Encode { address: Ipv4Addr },
    Libvirt(Hook),
    Reconcile,
    RenderLibvirt { address: Ipv4Addr },
    Arrival { macs: Vec<MacAddr6> },
    Help(String),
    Version(String),
}

/// What `up` and `down` are told; `down` has no bridge.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub tap: String,
    pub mac: Option<MacAddr6>,
    pub bridge: Option<String>,
}

/// What libvirt tells its hook; SUBOP and EXTRA say nothing that we need.
#[derive(Debug, PartialEq, Eq)]
pub struct Hook {
    pub domain: String,
    pub operation: String,
}

/// Arguments that make no sense: one line, exit code 2.
#[derive(Debug, PartialEq, Eq)]
pub struct Usage(String);

impl std::error::Error for Usage {}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What stands on the command line, before it is known which verb it is for.
#[derive(Default)]
struct Raw {
    values: Vec<OsString>,
    options: Vec<(&'static Opt, OsString)>,
}

/// Reads `argv`; the name under which tap32 was called can stand for the verb.
///
/// # Errors
/// One line that says what is wrong with which argument, and the usage of the verb.
pub fn parse(argv: &[OsString]) -> Result<Command, Usage> {
    let arguments = argv.get(1..).unwrap_or_default();
    let face = argv.first().and_then(|name| face(Path::new(name)));
    let mut raw = match face {
        // libvirt's words are never options: a domain may be called -n.
        Some("libvirt") => Raw { values: arguments.to_vec(), ..Raw::default() },
        _ => read(arguments)?,
    };
    let verb = match face {
        Some(face) => Some(face.into()),
        None if raw.values.is_empty() => None,
        None => Some(raw.values.remove(0)),
    };
    let Some(verb) = verb else {
        return match () {
            () if raw.has(&HELP) => Ok(raw.command(Verb::Help(overview()))),
            () if raw.has(&VERSION) => Ok(raw.command(version())),
            () => Err(Usage(format!("no verb given; there are {}: see tap32 --help", names()))),
        };
    };
    let Some(spec) = VERBS.iter().find(|spec| verb == spec.name) else {
        return Err(Usage(format!("{verb:?} is no verb; there are {}: see tap32 --help", names())));
    };
    if raw.has(&HELP) {
        return Ok(raw.command(Verb::Help(spec.help())));
    }
    if raw.has(&VERSION) {
        return Ok(raw.command(version()));
    }
    let verb = raw.verb(spec).map_err(|problem| Usage(format!("{}: {problem}; usage: {}", spec.name, spec.usage())))?;
    Ok(raw.command(verb))
}

/// The verb that the name of the program stands for.
fn face(program: &Path) -> Option<&'static str> {
    let folder = program.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    match (folder, program.file_name()?.to_str()?) {
        (_, "qemu-ifup") => Some("up"),
        (_, "qemu-ifdown") => Some("down"),
        (Some("hooks"), "qemu") | (Some("qemu.d"), _) => Some("libvirt"),
        _ => None,
    }
}

fn read(arguments: &[OsString]) -> Result<Raw, Usage> {
    let unreadable = |error: lexopt::Error| Usage(format!("{error}: see tap32 --help"));
    let mut raw = Raw::default();
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(unreadable)? {
        let known = || OWN.iter().chain(COMMON);
        let option = match &argument {
            Arg::Value(value) => {
                raw.values.push(value.clone());
                continue;
            }
            Arg::Long(long) => known().find(|option| option.long == *long),
            Arg::Short(short) => known().find(|option| option.short == Some(*short)),
        };
        let Some(option) = option else {
            return Err(unreadable(argument.unexpected()));
        };
        let value = if option.value.is_empty() { OsString::new() } else { parser.value().map_err(unreadable)? };
        raw.options.push((option, value));
    }
    Ok(raw)
}

impl Raw {
    fn has(&self, option: &Opt) -> bool {
        self.options.iter().any(|(given, _)| given.long == option.long)
    }

    /// The value given last.
    fn value(&self, option: &Opt) -> Option<&OsString> {
        self.options.iter().rev().find(|(given, _)| given.long == option.long).map(|(_, value)| value)
    }

    fn command(&self, verb: Verb) -> Command {
        Command {
            verb,
            config: self.value(&CONFIG).map(PathBuf::from),
            dry_run: self.has(&DRY_RUN),
            verbose: self.has(&VERBOSE),
        }
    }

    fn verb(&self, spec: &Spec) -> Result<Verb, String> {
        let allowed = |option: &Opt| spec.options.iter().chain(COMMON).any(|allowed| allowed.long == option.long);
        if let Some((option, _)) = self.options.iter().find(|(option, _)| !allowed(option)) {
            return Err(format!("--{} is not for this verb", option.long));
        }
        let places: Vec<&str> = spec.arguments.split_whitespace().collect();
        if let Some(missing) = places.get(self.values.len()) {
            return Err(format!("{missing} is missing"));
        }
        if let Some(extra) = self.values.get(places.len()).filter(|_| !spec.arguments.ends_with("...")) {
            return Err(format!("{extra:?} is one argument too many"));
        }
        let values = self.values.iter().map(text).collect::<Result<Vec<&str>, String>>()?;
        let argument = values.first().copied().unwrap_or_default();
        let mac = |value: &str| addr::parse_mac(value).map_err(|error| error.to_string());
        let interface = |value: &str| {
            let fits = is_interface_name(value).then(|| value.to_owned());
            fits.ok_or_else(|| format!("{value:?} is not an interface name (at most 15 characters, no / and no space)"))
        };
        let request = || {
            Ok::<_, String>(Request {
                tap: interface(argument)?,
                mac: self.value(&MAC).map(|value| mac(text(value)?)).transpose()?,
                bridge: self.value(&BRIDGE).map(|value| interface(text(value)?)).transpose()?,
            })
        };
        Ok(match spec.name {
            "up" => Verb::Up(request()?),
            "down" => Verb::Down(request()?),
            "status" => Verb::Status { json: self.has(&JSON) },
            "decode" => Verb::Decode { mac: mac(argument)? },
            "encode" => Verb::Encode { address: address(argument)? },
            "reconcile" => Verb::Reconcile,
            "libvirt" => Verb::Libvirt(Hook { domain: argument.to_owned(), operation: values[1].to_owned() }),
            "render" if argument == "libvirt" => Verb::RenderLibvirt { address: address(values[1])? },
            "render" => return Err(format!("{argument:?} is nothing that can be rendered; WHAT is libvirt")),
            "arrival" => Verb::Arrival { macs: values.iter().map(|value| mac(value)).collect::<Result<_, _>>()? },
            other => return Err(format!("{other} is in the table of verbs, but nothing does it")),
        })
    }
}

fn address(value: &str) -> Result<Ipv4Addr, String> {
    value.parse().map_err(|_| format!("{value:?} is not an IPv4 address such as 10.0.0.10"))
}

fn text(value: &OsString) -> Result<&str, String> {
    value.to_str().ok_or_else(|| format!("{value:?} is not text"))
}

fn names() -> String {
    VERBS.iter().map(|spec| spec.name).collect::<Vec<_>>().join(", ")
}

fn version() -> Verb {
    Verb::Version(concat!("tap32 ", env!("CARGO_PKG_VERSION"), "\n").to_owned())
}

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
