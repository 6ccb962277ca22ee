"""The second measuring part of tests/bench: a host with thousands of taps. Runs inside an empty namespace.

A pass over the whole host against `ip -batch` adding the same routes, passes with nothing to do against an earlier tap32's,
`watch` at rest, 500 `up` at once, and 300 guests that arrive."""

import fcntl
import multiprocessing
import os
import random
import re
import resource
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time

from bench_lib import row, wait

TAP32, FLOOR, SEED, ROUNDS = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
# Another tap32 to compare with, or nothing.
EARLIER = sys.argv[5] if len(sys.argv) > 5 else None
WORK = tempfile.mkdtemp(prefix="tap32-bench-")
CONFIG, METRICS = f"{WORK}/tap32.toml", f"{WORK}/tap32.prom"
METRIC = 4026531940
BRIDGES = range(5)
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
# The taps that this process has open.
OPEN = []


def write(name, lines):
    path = f"{WORK}/{name}"
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")
    return path


def run(*command):
    """Milliseconds from spawn to exit."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1e3


def run_alone(*command):
    """The same without what subprocess itself takes, about a millisecond."""
    start = time.perf_counter()
    _, status = os.waitpid(os.posix_spawn(command[0], command, os.environ), 0)
    took = time.perf_counter() - start
    if status:
        sys.exit(f"bench: {' '.join(command)}: status {status}")
    return took * 1e3


def index(name):
    with open(f"/sys/class/net/{name}/ifindex") as file:
        return file.read().strip()


def flush():
    subprocess.run(["ip", "route", "flush", "proto", "132"], check=False, capture_output=True)


def octets(number):
    """Bridge, third and fourth octet of the guest with this number: 800 guests a bridge, or 1,000 on the first."""
    bridge, rest = divmod(number, PER_BRIDGE)
    return bridge, 1 + rest // 250, 1 + rest % 250


def populate(count):
    lines = []
    for number in range(count):
        bridge, third, fourth = octets(number)
        mac = f"fe:42:0a:{bridge:02x}:{third:02x}:{fourth:02x}"
        lines += [f"tuntap add t{number} mode tap", f"link set t{number} address {mac} master br{bridge} up"]
    run("ip", "-batch", write("taps", lines))
    # A guest's QEMU has its tap open; of one that nobody has open a pass asks whether somebody had.
    most = max(count + 1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for number in range(count):
        OPEN.append(os.open("/dev/net/tun", os.O_RDWR))
        fcntl.ioctl(OPEN[-1], TUNSETIFF, struct.pack("16sH22x", f"t{number}".encode(), IFF_TAP | IFF_NO_PI))


def batches(count):
    routes, isolated, open_again = [], [], []
    for number in range(count):
        bridge, third, fourth = octets(number)
        route = f"10.{bridge}.{third}.{fourth}/32 dev br{bridge} proto 132 scope link metric {METRIC}"
        routes.append(f"route add {route}")
        isolated.append(f"link set dev t{number} isolated on")
        open_again.append(f"link set dev t{number} isolated off")
    return write("routes", routes), write("isolated", isolated), write("open", open_again)


def owned():
    return subprocess.run(["ip", "-o", "route", "show", "proto", "132"], capture_output=True, text=True).stdout.count("\n")


def passes():
    """Seconds and number of the passes that `watch` has made."""
    with open(METRICS) as file:
        text = file.read()
    value = lambda name: float(re.search(rf"^tap32_pass_duration_seconds_{name} (\S+)", text, re.M)[1])
    return value("sum"), value("count")


def one_pass(cause):
    """Milliseconds of the next pass that `watch` makes of itself."""
    seconds, number = passes()
    cause()
    wait("a pass", lambda: passes()[1] > number)
    # What it does itself is no news to it: one pass, unless the kernel had something to add.
    after, later = passes()
    return (after - seconds) / (later - number) * 1e3


def cpu(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def versus(what, ours, theirs, target):
    ours, theirs = statistics.median(ours), statistics.median(theirs)
    row(what, ours / theirs, target, f"{ours:.1f} ms / {theirs:.1f} ms")


def against_earlier(count):
    """Passes with nothing to do over guarded taps: after an event on one tap, and full ones, against an earlier tap32's."""
    listed = write("guards", [f"filter show dev t{number} ingress" for number in range(count)])
    shown = subprocess.run(["tc", "-batch", listed], check=True, capture_output=True, text=True).stdout
    if shown.count("handle 0x84") != count:
        sys.exit(f"bench: {shown.count('handle 0x84')} guards instead of {count}")
    event, full = {TAP32: [], EARLIER: []}, {TAP32: [], EARLIER: []}
    for number in range(ROUNDS):
        for binary in random.sample([TAP32, EARLIER], 2):
            # Two cannot watch one namespace.
            watch = subprocess.Popen([binary, "watch", "--config", CONFIG])
            wait("the metrics", lambda: os.path.exists(METRICS))
            for again in range(3):
                alias = f"{number}-{again}-{binary}"
                event[binary].append(one_pass(lambda: run("ip", "link", "set", "t0", "alias", alias)))
                full[binary].append(one_pass(lambda: watch.send_signal(signal.SIGHUP)))
            watch.terminate()
            watch.wait()
            os.unlink(METRICS)
    versus("  nothing to do: a pass of watch after an event / earlier", event[TAP32], event[EARLIER], 1.1)
    versus("  nothing to do: a full pass of watch / earlier", full[TAP32], full[EARLIER], 1.8)


def measure(count, where):
    populate(count)
    routes, isolated, open_again = batches(count)
    reconcile = (TAP32, "reconcile", "--config", CONFIG)
    run(*reconcile)
    everything, nothing, batch, first, first_batch, floor = [], [], [], [], [], []
    for _ in range(ROUNDS):
        flush()
        everything.append(run(*reconcile))
        nothing.append(run(*reconcile))
        floor.append(run(FLOOR, "ports"))
        flush()
        batch.append(run("ip", "-batch", routes))
        flush()
        run("bridge", "-batch", open_again)
        first.append(run(*reconcile))
        flush()
        run("bridge", "-batch", open_again)
        first_batch.append(run("bridge", "-batch", isolated) + run("ip", "-batch", routes))
    if owned() != count:
        sys.exit(f"bench: {owned()} routes instead of {count}")
    watch = subprocess.Popen([TAP32, "watch", "--config", CONFIG])
    wait("the metrics", lambda: os.path.exists(METRICS))
    idle, full = [], []
    for number in range(ROUNDS):
        idle.append(one_pass(lambda: run("ip", "addr", "add", f"10.99.0.{number}/32", "dev", "lo")))
        run("ip", "addr", "del", f"10.99.0.{number}/32", "dev", "lo")
        time.sleep(0.3)
        full.append(one_pass(flush))
        wait("all routes", lambda: owned() == count)
    print(f"{count:,} taps on {where}")
    versus("  everything to do: a pass of watch / ip -batch", full, batch, 1.5)
    versus("  everything to do: reconcile, as a process / ip -batch", everything, batch, 1.5)
    versus("  isolation as well: reconcile / ip -batch and bridge -batch", first, first_batch, 1.5)
    versus("  nothing to do: a pass of watch / ip -batch", idle, batch, 0.1)
    versus("  nothing to do: reconcile, as a process / ip -batch", nothing, batch, 0.1)
    versus("    the kernel alone, telling ports and routes / ip -batch", floor, batch, 0.1)
    time.sleep(2)
    before = cpu(watch.pid)
    time.sleep(5)
    ticks = cpu(watch.pid) - before
    with open(f"/proc/{watch.pid}/status") as file:
        resident = int(re.search(r"VmRSS:\s+(\d+)", file.read())[1])
    row("  watch at rest: resident / 6 MiB", resident / 6144, 1.0, f"{resident} KiB")
    row("  watch at rest: clock ticks of CPU in 5 s", ticks, 0.0, f"{ticks}")
    watch.terminate()
    watch.wait()
    os.unlink(METRICS)
    if EARLIER:
        against_earlier(count)
    if owned() != count:
        sys.exit("bench: watch took routes along when it ended")
    while OPEN:
        os.close(OPEN.pop())
    run("ip", "-batch", write("gone", [f"link del t{number}" for number in range(count)]))
    flush()


def failures(lines):
    children = [subprocess.Popen(line, stdout=subprocess.DEVNULL) for line in lines]
    return sum(child.wait() != 0 for child in children)


def together(lines):
    """Milliseconds until all of them, started at once, have ended well. Each core starts its share: one alone takes
    200 ms to start 500 of an empty program."""
    cores = os.cpu_count()
    with multiprocessing.Pool(cores) as starters:
        start = time.perf_counter()
        failed = sum(starters.map(failures, [lines[core::cores] for core in range(cores)], chunksize=1))
        took = time.perf_counter() - start
    if failed:
        sys.exit(f"bench: {failed} of {len(lines)} failed")
    return took * 1e3


def guard_of(tap, mac):
    """The guard's program as the kernel takes it, in hex; every guest's costs the same."""
    line = [TAP32, "up", tap, "--mac", mac, "--config", CONFIG, "--bridge", "br0", "-n"]
    shown = subprocess.run(line, check=True, capture_output=True, text=True).stdout
    _, *instructions = re.search(r"bytecode '([^']*)'", shown)[1].split(",")
    return b"".join(struct.pack("=HBBI", *map(int, line.split())) for line in instructions).hex()


def at_once(count):
    """`up` finds bare taps, and the seed's script what libvirt leaves: attached, MAC set."""
    macs = [f"42:0a:00:01:{1 + number:02x}" if number < 250 else f"42:0a:00:02:{number - 249:02x}" for number in range(count)]
    add = write("add", [f"tuntap add t{number} mode tap" for number in range(count)])
    attach = write("attach", [f"link set t{n} address fe:{mac} master br0 up" for n, mac in enumerate(macs)])
    gone = write("gone", [f"link del t{number}" for number in range(count)])
    ours, seed, floor = [], [], []
    for _ in range(ROUNDS):
        run("ip", "-batch", add)
        options = ["--config", CONFIG, "--bridge", "br0"]
        ours.append(together([[TAP32, "up", f"t{n}", "--mac", f"02:{mac}", *options] for n, mac in enumerate(macs)]))
        if owned() != count:
            sys.exit(f"bench: {owned()} of {count} routes")
        run("ip", "-batch", gone)
        flush()
        run("ip", "-batch", add)
        guard = guard_of("t0", f"02:{macs[0]}")
        places = [(index(f"t{n}"), index("br0"), mac[3:].replace(":", "")) for n, mac in enumerate(macs)]
        floor.append(together([[FLOOR, "up", *place, guard] for place in places]))
        run("ip", "-batch", gone)
        flush()
        run("ip", "-batch", add)
        run("ip", "-batch", attach)
        seed.append(together([["bash", SEED, f"t{n}"] for n in range(count)]))
        run("ip", "-batch", gone)
        subprocess.run(["ip", "route", "flush", "dev", "br-l2", "proto", "boot"], capture_output=True)
    versus(f"{count} up at once / the seed's script {count} times at once", ours, seed, 0.125)
    versus(f"{count} up at once / the floor {count} times at once", ours, floor, 1.5)


def arrivals(count):
    """`up` of each of `count` guests that arrive, and what their waiting claimers cost together."""
    macs = [f"02:42:0a:00:{1 + number // 250:02x}:{1 + number % 250:02x}" for number in range(count)]
    claimers = [subprocess.Popen([TAP32, "arrival", mac, "--config", CONFIG], stdout=subprocess.PIPE) for mac in macs]
    for claimer in claimers:
        claimer.stdout.read(1)

    def seconds():
        # What the scheduler counts, in nanoseconds: a clock tick is more than one claimer takes.
        return sum(int(open(f"/proc/{claimer.pid}/schedstat").read().split()[0]) for claimer in claimers) / 1e9

    before, took = seconds(), []
    for number, mac in enumerate(macs):
        run("ip", "tuntap", "add", f"t{number}", "mode", "tap")
        took.append(run_alone(TAP32, "up", f"t{number}", "--mac", mac, "--config", CONFIG, "--bridge", "br0"))
    took, cpu_seconds = statistics.median(took), seconds() - before
    row(f"{count} guests arrive: up of one / 3 ms", took / 3, 1.0, f"{took:.1f} ms")
    row(f"{count} guests arrive: CPU of all claimers / 0.5 s", cpu_seconds / 0.5, 1.0, f"{cpu_seconds:.2f} s")
    run("ip", "-batch", write("gone", [f"link del t{number}" for number in range(count)]))
    # A claimer goes with its tap.
    for claimer in claimers:
        claimer.wait(30)
    flush()


# At the end of a port's forward delay, 15 s after it came up, the kernel tells of it, and `watch` would not be at rest
# (br_forward_delay_timer_expired).
NEW_BRIDGE = ("type", "bridge", "forward_delay", "0")
for number in BRIDGES:
    run("ip", "link", "add", f"br{number}", "address", f"02:00:00:00:00:0{number + 1}", *NEW_BRIDGE)
    run("ip", "addr", "add", f"10.{number}.0.1/16", "dev", f"br{number}")
    run("ip", "link", "set", f"br{number}", "up")
    run("sysctl", "-qw", f"net.ipv4.conf.br{number}.proxy_arp_pvlan=1")
# The seed's script routes through br-l2 by name.
run("ip", "link", "add", "br-l2", "type", "bridge")
run("ip", "link", "set", "br-l2", "up")
tables = [f'[[bridge]]\nname = "br{number}"' for number in BRIDGES]
write("tap32.toml", [f'[watch]\nmetrics = "{METRICS}"', *tables])
for PER_BRIDGE, total, place in ((1000, 1000, "one bridge"), (800, 4000, "five bridges")):
    measure(total, place)
PER_BRIDGE = 1000
at_once(500)
arrivals(300)
