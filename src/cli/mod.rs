//! Arguments: reads them by the tables of verbs (`table`) and of options (`options`), and knows the names that stand for a
//! verb. `requests` makes of them what each verb asks for.

pub mod options;
mod requests;
pub mod table;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use lexopt::Arg;

use crate::text::printable;
use crate::verbs::{Common, Verb};
use options::{COMMON, CONFIG, DRY_RUN, HELP, OWN, Opt, VERBOSE, VERSION};
use table::{Spec, names, overview};

pub use table::VERBS;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    pub verb: Verb,
    pub config: Option<PathBuf>,
    pub dry_run: bool,
    pub verbose: bool,
}

impl Command {
    pub fn common(&self) -> Common {
        Common::new(self.config.clone(), self.dry_run, self.verbose)
    }
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
            () if raw.has(&HELP) => Ok(raw.command(Verb::Print(overview()))),
            () if raw.has(&VERSION) => Ok(raw.command(version())),
            () => Err(Usage(format!("no verb given: use one of {} (see tap32 --help)", names()))),
        };
    };
    let Some(spec) = VERBS.iter().find(|spec| verb == spec.name) else {
        return Err(Usage(format!("there is no verb {verb:?}: use one of {} (see tap32 --help)", names())));
    };
    if raw.has(&HELP) {
        return Ok(raw.command(Verb::Print(spec.help())));
    }
    if raw.has(&VERSION) {
        return Ok(raw.command(version()));
    }
    let verb = request(spec, &raw);
    let verb = verb.map_err(|problem| Usage(format!("{}: {problem}; usage: {}", spec.name, spec.usage())))?;
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
    let unreadable = |error: lexopt::Error| Usage(format!("{}: see tap32 --help", printable(&error.to_string())));
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
fn request(spec: &Spec, raw: &Raw) -> Result<Verb, String> {
    let allowed = |option: &Opt| spec.options.iter().chain(COMMON).any(|allowed| allowed.long == option.long);
    if let Some((option, _)) = raw.options.iter().find(|(option, _)| !allowed(option)) {
        return Err(format!("this verb takes no --{}", option.long));
    }
    let places: Vec<&str> = spec.arguments.split_whitespace().collect();
    if let Some(missing) = places.get(raw.values.len()).filter(|place| !place.starts_with('[')) {
        return Err(format!("{missing} is missing"));
    }
    if let Some(extra) = raw.values.get(places.len()).filter(|_| !spec.arguments.ends_with("...")) {
        return Err(format!("{extra:?} is one argument too many"));
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

    fn command(&self, verb: Verb) -> Command {
        Command {
            verb,
            config: self.value(&CONFIG).map(PathBuf::from),
            dry_run: self.has(&DRY_RUN),
            verbose: self.has(&VERBOSE),
        }
    }
}

fn version() -> Verb {
    Verb::Print(concat!("tap32 ", env!("CARGO_PKG_VERSION"), "\n").to_owned())
}
