//! Every option, once.

/// One option of the command line.
pub struct Opt {
    /// Its name, without `--`.
    pub long: &'static str,
    /// Its one letter, if it has one.
    pub short: Option<char>,
    /// What help calls its value; empty for a switch.
    pub value: &'static str,
    /// A line for people.
    pub help: &'static str,
}

const fn switch(short: Option<char>, long: &'static str, help: &'static str) -> Opt {
    Opt { long, short, value: "", help }
}

const fn valued(long: &'static str, value: &'static str, help: &'static str) -> Opt {
    Opt { long, short: None, value, help }
}

const CONFIG_HELP: &str = "the configuration; else $TAP32_CONFIG, else /etc/tap32.toml, else defaults";

pub(super) const MAC: Opt = valued("mac", "MAC", "the guest's MAC");
pub(super) const BRIDGE: Opt = valued("bridge", "BR", "the managed bridge to use");
pub(super) const CONFIG: Opt = valued("config", "FILE", CONFIG_HELP);
pub(super) const JSON: Opt = switch(None, "json", "print JSON");
pub(super) const CHECK: Opt = switch(None, "check", "exit 1 if anything is wrong");
pub(super) const ALL: Opt = switch(None, "all", "show each tap, however many there are");
pub(super) const DRY_RUN: Opt = switch(Some('n'), "dry-run", "print the steps and change nothing");
pub(super) const VERBOSE: Opt = switch(Some('v'), "verbose", "print each step on stderr");
pub(super) const HELP: Opt = switch(Some('h'), "help", "print this help");
pub(super) const VERSION: Opt = switch(Some('V'), "version", "print the version");

/// Options that every verb takes.
pub const COMMON: &[&Opt] = &[&CONFIG, &VERBOSE, &HELP, &VERSION];
pub(super) const OWN: &[&Opt] = &[&MAC, &BRIDGE, &JSON, &CHECK, &ALL, &DRY_RUN];
