//! Every option, once.

/// One option; `value` is empty for a switch.
pub struct Opt {
    pub long: &'static str,
    pub short: Option<char>,
    pub value: &'static str,
    pub help: &'static str,
}

pub const MAC: Opt = Opt { long: "mac", short: None, value: "MAC", help: "the guest's MAC, instead of looking for it" };
pub const BRIDGE: Opt = Opt { long: "bridge", short: None, value: "BR", help: "which of the configured bridges" };
pub const JSON: Opt = Opt { long: "json", short: None, value: "", help: "for programs" };
pub const CHECK: Opt =
    Opt { long: "check", short: None, value: "", help: "exit 1 when anything is not as it should be" };
pub const DRY_RUN: Opt = Opt { long: "dry-run", short: Some('n'), value: "", help: "print the steps, change nothing" };
pub const CONFIG: Opt = Opt {
    long: "config",
    short: None,
    value: "FILE",
    help: "else $TAP32_CONFIG, else /etc/tap32.toml, else built-in defaults",
};
pub const VERBOSE: Opt = Opt { long: "verbose", short: Some('v'), value: "", help: "say on stderr what is done" };
pub const HELP: Opt = Opt { long: "help", short: Some('h'), value: "", help: "this text" };
pub const VERSION: Opt = Opt { long: "version", short: Some('V'), value: "", help: "the version" };

/// Options that every verb takes.
pub const COMMON: &[&Opt] = &[&CONFIG, &VERBOSE, &HELP, &VERSION];
pub const OWN: &[&Opt] = &[&MAC, &BRIDGE, &JSON, &CHECK, &DRY_RUN];
