//! Arguments: reads them by the table of verbs in `table`, and knows the names that stand for a verb.

pub mod table;

use std::ffi::OsString;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use lexopt::Arg;
use macaddr::MacAddr6;

use crate::addr;
use crate::config::is_interface_name;
use crate::fabric::render::{self, Form, What};
use crate::verbs::uplink;
use table::{
    BRIDGE, CHECK, COMMON, CONFIG, DRY_RUN, FIX, HELP, JSON, MAC, OWN, Opt, Spec, VERBOSE, VERSION, WATCH, names,
    overview,
};

pub use table::VERBS;

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
    Status(StatusRequest),
    Decode { mac: MacAddr6 },
    Encode { address: Ipv4Addr },
    Libvirt(Hook),
    Reconcile,
    Watch,
    Render(What),
    SetUp,
    Doctor(DoctorRequest),
    Uplink(uplink::Request),
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

#[derive(Debug, Default, PartialEq, Eq)]
pub struct StatusRequest {
    /// One tap to explain, instead of a table of all.
    pub tap: Option<String>,
    pub json: bool,
    pub check: bool,
    pub watch: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct DoctorRequest {
    pub json: bool,
    pub fix: bool,
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
        if let Some(missing) = places.get(self.values.len()).filter(|place| !place.starts_with('[')) {
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
            "status" if self.has(&CHECK) && self.has(&WATCH) => {
                return Err("--check ends at once, --watch never".into());
            }
            "status" => Verb::Status(StatusRequest {
                tap: values.first().map(|tap| interface(tap)).transpose()?,
                json: self.has(&JSON),
                check: self.has(&CHECK),
                watch: self.has(&WATCH),
            }),
            "decode" => Verb::Decode { mac: mac(argument)? },
            "encode" => Verb::Encode { address: address(argument)? },
            "reconcile" => Verb::Reconcile,
            "watch" => Verb::Watch,
            "libvirt" => Verb::Libvirt(Hook { domain: argument.to_owned(), operation: values[1].to_owned() }),
            "render" => Verb::Render(what(&values)?),
            "setup" => Verb::SetUp,
            "doctor" => Verb::Doctor(DoctorRequest { json: self.has(&JSON), fix: self.has(&FIX) }),
            "uplink" => Verb::Uplink(self.uplink(&values)?),
            "arrival" => Verb::Arrival { macs: values.iter().map(|value| mac(value)).collect::<Result<_, _>>()? },
            other => return Err(format!("{other} is in the table of verbs, but nothing does it")),
        })
    }
}

impl Raw {
    fn uplink(&self, words: &[&str]) -> Result<uplink::Request, String> {
        match words {
            ["drain" | "restore", ..] if self.has(&JSON) => Err("--json is for `tap32 uplink list`".into()),
            ["list", ..] if self.has(&DRY_RUN) => {
                Err("--dry-run is for drain and restore: list changes nothing".into())
            }
            ["list"] => Ok(uplink::Request::List { json: self.has(&JSON) }),
            ["drain", name] => Ok(uplink::Request::Drain((*name).to_owned())),
            ["restore", name] => Ok(uplink::Request::Restore((*name).to_owned())),
            ["drain" | "restore"] => Err("NAME is missing: `tap32 uplink list` shows the uplinks".into()),
            other => Err(format!(
                "{:?} is nothing that can be done; there are list, drain NAME, restore NAME",
                other.join(" ")
            )),
        }
    }
}

fn address(value: &str) -> Result<Ipv4Addr, String> {
    value.parse().map_err(|_| format!("{value:?} is not an IPv4 address such as 10.0.0.10"))
}

fn what(words: &[&str]) -> Result<What, String> {
    let form = |word| match word {
        "nxos" => Ok(Form::Nxos),
        "frr" => Ok(Form::Frr),
        other => Err(format!("{other:?} is no form of a switch's configuration; there are nxos and frr")),
    };
    match words {
        ["frr"] => Ok(What::Frr),
        ["switch"] => Ok(What::Switch { form: None, uplink: None }),
        ["switch", word] => Ok(What::Switch { form: Some(form(word)?), uplink: None }),
        ["switch", word, uplink] => Ok(What::Switch { form: Some(form(word)?), uplink: Some((*uplink).to_owned()) }),
        ["sysctl"] => Ok(What::Sysctl),
        ["networkd"] => Ok(What::Networkd),
        ["ifupdown"] => Ok(What::Ifupdown),
        ["libvirt"] => Err("ADDR is missing".into()),
        ["libvirt", value] => Ok(What::Libvirt(address(value)?)),
        other => Err(format!("{:?} is nothing that can be rendered; WHAT is {}", other.join(" "), render::WORDS)),
    }
}

fn text(value: &OsString) -> Result<&str, String> {
    value.to_str().ok_or_else(|| format!("{value:?} is not text"))
}

fn version() -> Verb {
    Verb::Version(concat!("tap32 ", env!("CARGO_PKG_VERSION"), "\n").to_owned())
}
