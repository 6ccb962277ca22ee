//! The processes of this network namespace, from /proc.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// USER_HZ, the unit of times in /proc: 100 except on Alpha (include/asm-generic/param.h).
const TICKS: f64 = 100.0;
/// TASK_COMM_LEN without its zero: the kernel keeps this much of a name.
const COMM: usize = 15;

/// The first process with one of these names in our network namespace, and when it started in seconds since the epoch.
/// Another user's process, whose namespace we may not see (EACCES), counts. One that is ending does not: it leaves its
/// namespace before it is a zombie (do_exit), and its link dangles (ENOENT).
pub fn find<'a>(names: &[&'a str]) -> Option<(&'a str, f64)> {
    let ours = fs::read_link("/proc/self/ns/net").ok();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let process = entry.path();
        let comm = fs::read_to_string(process.join("comm")).ok()?;
        let name = names.iter().find(|name| name.get(..COMM).unwrap_or(name) == comm.trim_end())?;
        match fs::read_link(process.join("ns/net")) {
            Ok(theirs) if Some(&theirs) != ours.as_ref() => return None,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            _ => {}
        }
        Some((*name, started(&process)?))
    })
}

/// The processes of our network namespace whose name begins so, each with its command line.
pub fn command_lines(beginning: &str) -> Vec<(u32, Vec<String>)> {
    let ours = fs::read_link("/proc/self/ns/net").ok();
    let of = |entry: fs::DirEntry| {
        let process = entry.path();
        let is_ours = fs::read_link(process.join("ns/net")).ok() == ours;
        let named = fs::read_to_string(process.join("comm")).ok().filter(|name| name.starts_with(beginning));
        named.filter(|_| is_ours)?;
        let line = fs::read(process.join("cmdline")).ok()?;
        let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        Some((entry.file_name().to_str()?.parse().ok()?, words.collect()))
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(of).collect()
}

/// Whether a signal has stopped the process (SIGSTOP).
pub fn is_stopped(pid: i32) -> bool {
    stat(Path::new(&format!("/proc/{pid}"))).is_some_and(|fields| fields[0] == "T")
}

/// Whether a process has a socket on the UDP port.
pub fn has_udp_port(pid: u32, port: u16) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    let table = fs::read_to_string(process.join("net/udp")).unwrap_or_default();
    // Of each socket the address and port in hexadecimal, and the inode by which a descriptor names it (proc(5)).
    let inode_on_port = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, own) = fields.get(1)?.split_once(':')?;
        (u16::from_str_radix(own, 16) == Ok(port)).then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
    };
    let sockets: Vec<String> = table.lines().filter_map(inode_on_port).collect();
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let mut targets = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
}

/// Seconds since the epoch: field 22 of stat counts from the boot (proc(5)). `None` if the process has ended.
fn started(process: &Path) -> Option<f64> {
    let fields = stat(process).filter(|fields| fields[0] != "Z")?;
    let ticks: f64 = fields.get(19)?.parse().ok()?;
    let uptime: f64 = fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    Some(now - uptime + ticks / TICKS)
}

/// The fields of stat from the third on, the state (proc(5)). The second is the name in parentheses, which may hold spaces.
fn stat(process: &Path) -> Option<Vec<String>> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let fields: Vec<String> = stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect();
    (!fields.is_empty()).then_some(fields)
}
