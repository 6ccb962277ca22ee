//! doctor's facts of the DHCP server that `render dnsmasq` configures.

use std::fs;
use std::path::Path;

use crate::checks::facts::Dhcp;
use crate::host::dnsmasq::FILE;
use crate::machine::process;

/// What `systemctl enable tap32-dhcp` makes.
const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/tap32-dhcp.service";
/// What tap32-dhcp.service starts.
const PROGRAM: &str = "/usr/sbin/dnsmasq";
const SERVER_PORT: u16 = 67;

/// `None` unless somebody has enabled it or written its file.
pub fn server() -> Option<Dhcp> {
    let text = fs::read_to_string(FILE).ok();
    if text.is_none() && fs::symlink_metadata(ENABLED).is_err() {
        return None;
    }
    let names_file = |word: &String| word.trim_start_matches("--conf-file=") == FILE;
    let mut servers = process::command_lines("dnsmasq").into_iter().filter(|(_, words)| words.iter().any(names_file));
    let pid = servers.next().map(|(pid, _)| pid);
    let hears = pid.is_some_and(|pid| process::has_udp_port(pid, SERVER_PORT));
    let other = if hears { None } else { other(pid) };
    let not_installed = !Path::new(PROGRAM).exists();
    Some(Dhcp { not_installed, text, pid, hears, other })
}

/// Another program on the server's port. libvirt's dnsmasqs share it (bind-dynamic).
fn other(server: Option<u32>) -> Option<(u32, String)> {
    let is_other = |(pid, words): &(u32, Vec<String>)| {
        Some(*pid) != server
            && words.iter().all(|word| !word.contains("/libvirt/"))
            && process::has_udp_port(*pid, SERVER_PORT)
    };
    let (pid, words) = process::command_lines("").into_iter().find(is_other)?;
    let program = Path::new(words.first()?).file_name()?.to_string_lossy().into_owned();
    Some((pid, program))
}
