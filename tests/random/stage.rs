//! The host on which the operations take place, with `watch`, guests and a client behind an uplink, and a shell in which
//! every line is one that a person could type.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value;

use crate::common::watch::{RELEASE, Watch};
use crate::common::{Background, Host};
use crate::model::{BRIDGES, GATEWAYS, Guest, SETTLE};
use crate::programs::{CLIENT, GUESTS};

/// A child that answers each line.
struct Program {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _process: Background,
}

impl Program {
    fn start(host: &Host, words: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = host.command(words[0]);
        command.args(&words[1..]).envs(environment.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { input, output, _process: Background(child) }
    }

    fn say(&mut self, line: &str) {
        self.input.write_all(line.as_bytes()).and_then(|()| self.input.write_all(b"\n")).unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        assert!(self.output.read_line(&mut line).unwrap() > 0, "the program has ended");
        line.trim_end().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.answer()
    }
}

pub struct Stage {
    shell: Program,
    guests: Program,
    client: Program,
    pub watch: Watch,
    /// What `ip monitor` has said of routes, and when.
    events: Events,
    _monitor: Background,
    _uplink: Host,
    pub host: Host,
}

/// What stands before the operations in a shell that replays them: `tap32` is the shipped one, `hook OPERATION MAC BRIDGE
/// [TAP]` calls it as libvirt does.
fn preamble(folder: &str) -> String {
    format!(
        "exec 2>&1
export TAP32_CONFIG={folder}/tap32.toml
tap32() {{ {RELEASE} \"$@\"; }}
hook() {{
    printf \"<domain type='kvm'><name>g</name><devices><interface type='bridge'><mac address='$2'/>\\
<source bridge='$3'/>${{4:+<target dev='$4'/>}}</interface></devices></domain>\" |
        {RELEASE} libvirt g $1 begin -
}}
forwards() {{
    for i in $(seq 1000); do
        read -r state </sys/class/net/$1/brport/state && [ $state = 3 ] && return
    done
    return 1
}}"
    )
}

pub fn toml(distance: u64, guard: bool) -> String {
    let bridge = |i: usize| {
        format!(
            "[[bridge]]\nname = \"{}\"\ngateway = \"{}\"\nmac = \"02:00:00:00:00:0{i}\"\nprefixes = [\"10.{i}.0.0/24\"]\n\
             guard = {guard}\n",
            BRIDGES[i], GATEWAYS[i]
        )
    };
    let settle = SETTLE.as_millis();
    // The root's keys come first.
    format!("distance = {distance}\n{}{}[migration]\nsettle = \"{settle}ms\"\n", bridge(0), bridge(1))
}

impl Stage {
    pub fn new(config: &str) -> Self {
        let (host, uplink) = (Host::bare(), Host::bare());
        host.ok(&format!("ip link add uplink type veth peer name eth0 netns {}", uplink.name));
        for (end, interface, address) in [(&host, "uplink", "192.0.2.1/24"), (&uplink, "eth0", "192.0.2.2/24")] {
            end.ok(&format!("ip addr add {address} dev {interface}"));
            end.ok(&format!("ip link set {interface} up"));
        }
        uplink.ok("ip route add 10.0.0.0/8 via 192.0.2.1");
        host.ok("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0");
        let folder = Watch::folder(&host);
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("tap32.toml");
        std::fs::write(&file, config).unwrap();
        host.ok(&format!("{RELEASE} setup --config {}", file.display()));
        let watch = Watch::start(&host);
        let mut shell = Program::start(&host, &["sh"], &[]);
        shell.say(&preamble(&folder.display().to_string()));
        let mut guests = Program::start(&host, &["python3", "-c", GUESTS], &[]);
        let mut client = Program::start(&uplink, &["python3", "-c", CLIENT], &[]);
        assert_eq!((guests.answer().as_str(), client.answer().as_str()), ("ready", "ready"));
        let (events, monitor) = monitor(&host);
        let stage = Self { shell, guests, client, watch, events, _monitor: monitor, _uplink: uplink, host };
        stage.configure(config);
        stage.reload();
        stage
    }

    /// Runs a line in the shell: whether it succeeded, and what it said.
    pub fn shell(&mut self, line: &str) -> (bool, String) {
        self.shell.say(&format!("{line}\necho \"::$?\""));
        let mut said = String::new();
        loop {
            let line = self.shell.answer();
            if let Some((rest, code)) = line.rsplit_once("::") {
                return (code == "0", said + rest);
            }
            said += &(line + "\n");
        }
    }

    /// What the guests answer.
    pub fn guests(&mut self, line: &str) -> String {
        self.guests.ask(line)
    }

    pub fn configure(&self, config: &str) {
        std::fs::write(self.watch.folder.join("tap32.toml"), config).unwrap();
    }

    pub fn reload(&self) {
        self.watch.signal("HUP");
        self.watch.told("RELOADING=1");
        self.watch.told("READY=1");
    }

    /// As systemd does after a crash.
    pub fn restart_watch(&mut self) {
        self.watch.signal("KILL");
        self.watch.process.0.wait().unwrap();
        let mut command = self.host.command(RELEASE);
        command.arg("watch").env("TAP32_CONFIG", self.watch.folder.join("tap32.toml"));
        command.env("NOTIFY_SOCKET", self.watch.folder.join("notify"));
        let stderr = std::fs::File::options().append(true).open(self.watch.folder.join("stderr")).unwrap();
        self.watch.process = Background(command.stderr(stderr).spawn().unwrap());
        self.watch.told("READY=1");
    }

    /// Kills the claimer of a guest, if it is still there.
    pub fn kill_claimer(&self, guest: Guest) {
        let pids = self.host.ok(&format!("ip netns pids {}", self.host.name));
        let is_its = |pid: &&str| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with(&format!("tap32\0arrival\0{}\0", guest.mac()))
        };
        for pid in pids.split_whitespace().filter(is_its) {
            self.host.run(&format!("kill -9 {pid}"));
        }
    }

    /// From now on each of these gets a packet each 10 ms.
    pub fn send(&mut self, addresses: &[String]) {
        self.guests.ask("zero");
        self.client.ask(&format!("send {}", addresses.join(" ")));
    }

    /// How many packets each address was sent until now, and no more are.
    pub fn stop(&mut self) -> BTreeMap<String, u64> {
        counts(&self.client.ask("stop"))
    }

    /// How many packets each tap got.
    pub fn received(&mut self) -> BTreeMap<String, u64> {
        counts(&self.guests.ask("count"))
    }

    /// What happened to routes since the last call.
    pub fn events(&self) -> Vec<(Instant, String)> {
        std::mem::take(&mut *self.events.lock().unwrap())
    }
}

fn counts(json: &str) -> BTreeMap<String, u64> {
    let all: Value = serde_json::from_str(json).unwrap_or_else(|_| panic!("{json}"));
    all.as_object().unwrap().iter().map(|(key, value)| (key.clone(), value.as_u64().unwrap())).collect()
}

type Events = Arc<Mutex<Vec<(Instant, String)>>>;

fn monitor(host: &Host) -> (Events, Background) {
    let mut ip = host.command("ip");
    // It stumbles over the name of the uplink's other end, which it does not need.
    ip.args(["monitor", "route"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = ip.spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let events = Events::default();
    let heard = Arc::clone(&events);
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            heard.lock().unwrap().push((Instant::now(), line.trim().to_owned()));
        }
    });
    (events, Background(child))
}
