//! Every option, once.

/// One option; `value` is empty for a switch.
pub struct Opt {
    pub long: &'static str,
    pub short: Option<char>,
    pub value: &'static str,
    pub help: &'static str,
}

pub const MAC: Opt = Opt { long: "mac", short: None, value: "MAC", help: "the guest's MAC" };
pub const BRIDGE: Opt = Opt { long: "bridge", short: None, value: "BR", help: "the managed bridge to use" };
pub const JSON: Opt = Opt { long: "json", short: None, value: "", help: "print JSON" };
pub const CHECK: Opt = Opt { long: "check", short: None, value: "", help: "exit 1 if anything is wrong" };
pub const DRY_RUN: Opt =
    Opt { long: "dry-run", short: Some('n'), value: "", help: "print the steps and change nothing" };
pub const CONFIG: Opt = Opt {
    long: "config",
    short: None,
    value: "FILE",
    help: "the configuration; else $TAP32_CONFIG, else /etc/tap32.toml, else defaults",
};
pub const VERBOSE: Opt = Opt { long: "verbose", short: Some('v'), value: "", help: "print each step on stderr" };
pub const HELP: Opt = Opt { long: "help", short: Some('h'), value: "", help: "print this help" };
pub const VERSION: Opt = Opt { long: "version", short: Some('V'), value: "", help: "print the version" };

/// Options that every verb takes.
pub const COMMON: &[&Opt] = &[&CONFIG, &VERBOSE, &HELP, &VERSION];
pub const OWN: &[&Opt] = &[&MAC, &BRIDGE, &JSON, &CHECK, &DRY_RUN];
