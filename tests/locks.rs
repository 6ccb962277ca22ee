//! The locks of `watch`, of claimers and of `uplink`: who is not root neither takes nor breaks one, and who holds one is
//! seen from other pid namespaces and with another /run. They need root: `sudo tests/run`.

mod common;

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::guard::Toml;
use common::slow::{limit, rounds};
use common::{Background, Guest, Host, SETTLED, TAP32, settled, text, wait_for};

const GUEST: &str = "02:42:0a:00:00:0a";

/// As nobody: binds every name that can be foreseen, in the form that tap32 gives them and without.
const SQUAT: &str = "import os, resource, socket, time
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
os.setgroups([]); os.setgid(65534); os.setuid(65534)
held = []
space = os.stat('/proc/self/ns/pid').st_ino
for lock in 'tap32/watch', 'tap32/uplink', 'tap32/arrival', 'tap32/arrival/10.0.0.10', 'tap32/arrival/10.0.0.10/come':
    names = [lock] + [f'{lock}/{os.getpid()}/{space}/0/{n:016x}' for n in range(2000)]
    for name in names:
        s = socket.socket(socket.AF_UNIX); s.bind('\\0' + name); s.listen(0); held.append(s)
print('bound', flush=True)
time.sleep(600)";

/// As nobody: asks the holders of the locks with these process ids to end, and knocks at their locks for three seconds.
const ATTACK: &str = "import os, socket, struct, sys, time
os.setgroups([]); os.setgid(65534); os.setuid(65534)
names = [line.split(' @')[1].strip() for line in open('/proc/net/unix') if ' @tap32/' in line]
names = [name for name in names if set(name.split('/')) & set(sys.argv[1:])]
assert len(names) == 3, names
waits = [name for name in names if name.startswith('tap32/arrival/') and '/come/' not in name]
for port in [int(name.split('/')[-2]) for name in waits]:
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    try:
        s.sendto(struct.pack('=IHHII', 16, 1, 0, 0, 0), (port, 0))
        sys.exit('sent')
    except PermissionError:
        pass
end = time.time() + 3
knocks = 0
while time.time() < end:
    for name in names:
        s = socket.socket(socket.AF_UNIX)
        s.setblocking(False)
        try:
            s.connect('\\0' + name)
            sys.exit('let in')
        except ConnectionRefusedError:
            knocks += 1
        s.close()
print(knocks)";

/// Runs Python that prints a line once it is where the test wants it.
fn python(host: &Host, script: &str) -> Background {
    let mut child = host.command("python3").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    Background(child)
}

/// A claimer that some program starts, whose claim lasts longer than a test does on a busy machine.
fn claimer(host: &Host, by: &[&str]) -> Background {
    let file = Toml::new(host, "[migration]\nsettle = \"300s\"\n");
    let config = file.to_string();
    let words: Vec<&str> = by.iter().copied().chain([TAP32, "arrival", GUEST]).chain(config.split(' ')).collect();
    let mut command = host.command(words[0]);
    let mut child = command.args(&words[1..]).stdout(Stdio::piped()).spawn().unwrap();
    // It says when it holds its lock.
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    Background(child)
}

fn up(host: &Host) -> Guest {
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    Guest::open(host, "vnet0")
}

fn claim(host: &Host, guest: &mut Guest) {
    guest.frame_from(GUEST);
    wait_for("the claim", 5, || host.owned() == claimed());
}

fn claimed() -> Vec<(String, String, u64)> {
    vec![("10.0.0.10".into(), "br-l2".into(), 10), settled("10.0.0.10")]
}

fn wait_for_end(process: &mut Background) {
    wait_for("its end", 5, || process.0.try_wait().unwrap().is_some());
}

fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<u64> =
        stat.rsplit(')').next().unwrap().split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
    fields[11] + fields[12]
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn who_is_not_root_takes_no_lock() {
    let host = Host::new();
    let mut guest = up(&host);
    let _squatter = python(&host, SQUAT);
    // Each starts as if nobody had taken anything, and soon.
    let start = Instant::now();
    let mut watch = Background(host.command(TAP32).arg("watch").stderr(Stdio::piped()).spawn().unwrap());
    let named = |lock: &str| {
        let sockets = host.ok("cat /proc/net/unix");
        let own = format!("@{lock}/{}/", watch.0.id());
        sockets.contains(&own)
    };
    wait_for("watch has its lock", 5, || named("tap32/watch"));
    assert!(host.refused("watch").contains(&format!("`kill {}`", watch.0.id())));
    let mut claimer = claimer(&host, &["env"]);
    claim(&host, &mut guest);
    assert_eq!(host.tap32("reconcile"), "");
    assert!(start.elapsed() < limit(Duration::from_secs(20)), "{:?}", start.elapsed());
    assert_eq!(host.owned(), claimed());
    let drain = host.run(&format!("{TAP32} uplink drain eth0"));
    assert!(!text(&drain.stderr).contains("is running"), "{}", text(&drain.stderr));

    let come = format!("@tap32/arrival/10.0.0.10/come/{}/", claimer.0.id());
    wait_for("its second lock", 5, || host.ok("cat /proc/net/unix").contains(&come));
    let before = ticks(claimer.0.id());
    let pids = [claimer.0.id(), watch.0.id()].map(|pid| pid.to_string());
    let attack = host.command("python3").args(["-c", ATTACK]).args(pids).output().unwrap();
    assert!(attack.status.success(), "{}", text(&attack.stderr));
    let ate = ticks(claimer.0.id()) - before;
    println!("{} knocks: {ate} ticks of the claimer's", text(&attack.stdout).trim());
    assert!(ate <= 2, "{ate} ticks");
    assert!(claimer.0.try_wait().unwrap().is_none() && watch.0.try_wait().unwrap().is_none());
    assert_eq!(host.owned(), claimed());

    host.tap32("down vnet0");
    wait_for_end(&mut claimer);
    wait_for("all routes gone", 5, || host.owned().is_empty());
}

/// The lock of `uplink` holds at all.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn one_uplink_at_a_time() {
    let host = Host::bare();
    let config = std::env::temp_dir().join(format!("{}.toml", host.name));
    let uplinks = "[fabric]\nrouter-id = \"10.47.176.132\"\n[[uplink]]\nname = \"eth0\"\naddress = \"10.47.175.10/30\"\n\
                   peer = \"10.47.175.9\"\n";
    std::fs::write(&config, uplinks).unwrap();
    let drain = || host.refused(&format!("uplink drain eth0 --config {}", config.display()));
    assert!(!drain().contains("is running"));
    let holder = python(
        &host,
        "import os, socket, time
space = os.stat('/proc/self/ns/pid').st_ino
s = socket.socket(socket.AF_UNIX); s.bind(f'\\0tap32/uplink/{os.getpid()}/{space}/0/1'); s.listen()
print('held', flush=True)
time.sleep(600)",
    );
    assert!(drain().contains(&format!("another `tap32 uplink` is running (process {})", holder.0.id())));
    drop(holder);
    assert!(!drain().contains("is running"));
    std::fs::remove_file(config).unwrap();
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_holder_in_another_pid_namespace_lives() {
    let host = Host::new();
    let mut guest = up(&host);
    let mut claimer = claimer(&host, &["unshare", "-pf", "--kill-child"]);
    claim(&host, &mut guest);
    assert_eq!(host.tap32("reconcile"), "");
    assert_eq!(host.owned(), claimed());
    let planned = host.tap32("down vnet0 -n");
    assert!(planned.contains("# end the claimer of 10.0.0.10, which runs in another pid namespace\n"), "{planned}");
    host.tap32("down vnet0");
    wait_for_end(&mut claimer);
    assert!(host.owned().is_empty());
}

/// libvirt in a container: what it starts sees the host's claimers, and ends them.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_holder_outside_of_the_pid_namespace_lives() {
    let host = Host::new();
    let mut guest = up(&host);
    let mut claimer = claimer(&host, &["env"]);
    claim(&host, &mut guest);
    let inside = |arguments: &str| host.ok(&format!("unshare -pf --mount-proc {TAP32} {arguments}"));
    assert_eq!(inside("reconcile"), "");
    assert_eq!(host.owned(), claimed());
    inside("down vnet0");
    wait_for_end(&mut claimer);
    assert!(host.owned().is_empty());
}

/// A claimer that still waits for its tap is ended without a signal too, as libvirt's `release` does.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn one_without_a_tap_makes_room() {
    let host = Host::new();
    let mut first = claimer(&host, &["unshare", "-pf", "--kill-child"]);
    let mut second = claimer(&host, &["env"]);
    wait_for_end(&mut first);
    host.tap32(&format!("down vnet0 --mac {GUEST}"));
    wait_for_end(&mut second);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_holder_with_another_run_lives_until_it_is_killed() {
    let host = Host::new();
    let mut guest = up(&host);
    let mount = "mount -t tmpfs none /run && exec \"$0\" \"$@\"";
    let mut claimer = claimer(&host, &["unshare", "-m", "sh", "-c", mount]);
    claim(&host, &mut guest);
    assert_eq!(host.tap32("reconcile"), "");
    assert_eq!(host.owned(), claimed());
    claimer.0.kill().unwrap();
    claimer.0.wait().unwrap();
    // At once.
    host.tap32("reconcile");
    assert_eq!(host.owned(), [("10.0.0.10".to_owned(), "br-l2".to_owned(), SETTLED)]);
}

/// Of several that start at the same moment one stays, whoever it is.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn of_several_that_start_together_one_stays() {
    for round in 0..rounds(10) {
        let host = Host::new();
        let watch = || {
            Background(
                Command::new("ip")
                    .args(["netns", "exec", &host.name, TAP32, "watch"])
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap(),
            )
        };
        let mut all: Vec<Background> = (0..8).map(|_| watch()).collect();
        let mut left = || all.iter_mut().filter_map(|one| one.0.try_wait().unwrap().is_none().then_some(())).count();
        wait_for("one is left", 10, || left() == 1);
        let held = || host.ok("cat /proc/net/unix").matches("@tap32/watch/").count();
        wait_for("one lock", 5, || held() == 1);
        assert_eq!((left(), held()), (1, 1), "round {round}");
    }
}
