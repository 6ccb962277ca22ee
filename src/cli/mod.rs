//! Reads the arguments, by the tables of verbs (`table`) and of options (`options`). `requests` makes each verb's request.

pub mod options;
mod requests;
pub mod table;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use lexopt::Arg;

use crate::text::printable;
use crate::verbs::{Common, Verb};
use options::{COMMON, CONFIG, DRY_RUN, HELP, OWN, Opt, VERBOSE, VERSION};
use table::{Spec, overview};

pub use table::VERBS;

/// What the command line asks for.
pub struct Command {
    /// What to do.
    pub verb: Verb,
    /// The options of every verb.
    pub common: Common,
}

/// The words of a command line, sorted into values and options.
#[derive(Default)]
struct Raw {
    values: Vec<OsString>,
    options: Vec<(&'static Opt, OsString)>,
}

/// Reads `argv`, whose first word can stand for the verb.
///
/// # Errors
/// One line that says what is wrong with which argument, and the usage of the verb.
pub fn parse(argv: &[OsString]) -> Result<Command> {
    let arguments = argv.get(1..).unwrap_or_default();
    let face = argv.first().and_then(|name| face(Path::new(name)));
    let mut raw = match face {
        // libvirt's words are never options: a domain may be called -n.
        Some("libvirt") => Raw { values: arguments.to_vec(), ..Raw::default() },
        _ => read(arguments)?,
    };
    let name = match face {
        Some(face) => Some(face.into()),
        None if raw.values.is_empty() => None,
        None => Some(raw.values.remove(0)),
    };
    let names = || VERBS.iter().map(|spec| spec.name).collect::<Vec<_>>().join(", ");
    let find = |name: OsString| {
        let spec = VERBS.iter().find(|spec| name == spec.name);
        spec.with_context(|| format!("there is no verb {name:?}: use one of {} (see tap32 --help)", names()))
    };
    let verb = match name.map(find).transpose()? {
        spec if raw.has(&HELP) => Verb::Print(spec.map_or_else(overview, Spec::help)),
        _ if raw.has(&VERSION) => Verb::Print(concat!("tap32 ", env!("CARGO_PKG_VERSION"), "\n").to_owned()),
        None => bail!("no verb given: use one of {} (see tap32 --help)", names()),
        Some(spec) => {
            request(spec, &raw).map_err(|problem| anyhow!("{}: {problem}; usage: {}", spec.name, spec.usage()))?
        }
    };
    let config = raw.value(&CONFIG).map(PathBuf::from);
    Ok(Command { verb, common: Common::new(config, raw.has(&DRY_RUN), raw.has(&VERBOSE)) })
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

fn read(arguments: &[OsString]) -> Result<Raw> {
    let unreadable = |error: lexopt::Error| anyhow!("{}: see tap32 --help", printable(&error.to_string()));
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

/// The request of the verb that `spec` describes.
fn request(spec: &Spec, raw: &Raw) -> Result<Verb> {
    let allowed = |option: &Opt| spec.options.iter().chain(COMMON).any(|allowed| allowed.long == option.long);
    if let Some((option, _)) = raw.options.iter().find(|(option, _)| !allowed(option)) {
        bail!("this verb takes no --{}", option.long);
    }
    let places: Vec<&str> = spec.arguments.split_whitespace().collect();
    if let Some(missing) = places.get(raw.values.len()).filter(|place| !place.starts_with('[')) {
        bail!("{missing} is missing");
    }
    if let Some(extra) = raw.values.get(places.len()).filter(|_| !spec.arguments.ends_with("...")) {
        bail!("{extra:?} is one argument too many");
    }
    let values = raw.values.iter().map(requests::text).collect::<Result<_, _>>()?;
    (spec.read)(&requests::Words { raw, values })
}

impl Raw {
    fn has(&self, option: &Opt) -> bool {
        self.options.iter().any(|(given, _)| given.long == option.long)
    }

    /// The value given last.
    fn value(&self, option: &Opt) -> Option<&OsString> {
        self.options.iter().rev().find(|(given, _)| given.long == option.long).map(|(_, value)| value)
    }
}
