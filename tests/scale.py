"""The measuring part of tests/scale: the lab's routers run, no guest does.

A guest moves between two hosts: its new host claims, and the time from the claim in that host's kernel to the core's route
towards that host's rack counts. So does a cabinet's evacuation, 50 claims at once. At the end FRR restarts on a host with
1,000 guests."""

import contextlib
import ctypes
import fcntl
import glob
import json
import os
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

FABRIC, PREFIX, DIR = sys.argv[1:4]
COUNTS = [int(word) for word in " ".join(sys.argv[4:]).split()]
CLAIMS = int(os.environ.get("TAP32_CLAIMS", 12))
BUSY = int(os.environ.get("TAP32_BUSY", 0))
RACKS = {"h1": ("sw1a", "sw1b"), "h2": ("sw2a", "sw2b")}
ROUTERS = ("core", "sw1a", "sw1b", "sw2a", "sw2b", "h1", "h2")
DAEMON = {"ospf": "ospfd", "bgp": "bgpd"}[FABRIC]
SETTLED, CLAIM = 4026531940, 10
GUEST = ["10.0.200.1"]
CABINET = [f"10.0.201.{number}" for number in range(1, 51)]
THOUSAND = [f"10.0.{210 + number // 250}.{1 + number % 250}" for number in range(1000)]
# Longer than this and a claim is looked into.
SLOW = 0.5
LIMIT = 60
LIBC = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def inside(node):
    """In the node's network namespace."""
    with open("/proc/self/ns/net") as home, open(f"/run/netns/{PREFIX}{node}") as there:
        if LIBC.setns(there.fileno(), 0):
            sys.exit(f"scale: cannot enter {node}: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            LIBC.setns(home.fileno(), 0)


class Watch:
    """The node's changes of routes, as its kernel tells them."""

    def __init__(self, node):
        self.node = node
        with inside(node):
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            # SO_RCVBUFFORCE: none of 48,000 may be lost.
            self.socket.setsockopt(socket.SOL_SOCKET, 33, 256 << 20)
            self.socket.bind((0, 0x40))  # RTMGRP_IPV4_ROUTE
            self.names = dict(socket.if_nameindex())

    def events(self):
        """What is there now: (new, address, metric, the next hops' interfaces) each."""
        with contextlib.suppress(BlockingIOError):
            while True:
                yield from self.parse(self.socket.recv(1 << 18, socket.MSG_DONTWAIT))

    def parse(self, data):
        at = 0
        while at < len(data):
            length, kind = struct.unpack_from("=IH", data, at)
            if kind in (24, 25) and data[at + 17] == 32:  # RTM_NEWROUTE, RTM_DELROUTE; dst_len
                yield (kind == 24, *self.route(data[at + 28 : at + length]))
            at += (length + 3) & ~3

    def route(self, data):
        address, metric, via, at = None, 0, [], 0
        while at + 4 <= len(data):
            length, kind = struct.unpack_from("=HH", data, at)
            value = data[at + 4 : at + length]
            if kind == 1:  # RTA_DST
                address = socket.inet_ntoa(value)
            elif kind == 6:  # RTA_PRIORITY
                metric = struct.unpack("=I", value)[0]
            elif kind == 4:  # RTA_OIF
                via = [self.names[struct.unpack("=I", value)[0]]]
            elif kind == 9:  # RTA_MULTIPATH
                hop = 0
                while hop < len(value):
                    size, _, _, index = struct.unpack_from("=HBBI", value, hop)
                    via.append(self.names[index])
                    hop += (size + 3) & ~3
            at += (length + 3) & ~3
        return address, metric, via

    def quiet(self, seconds):
        """Until no route has changed for so long."""
        end = time.monotonic() + 10 * LIMIT
        while select.select([self.socket], [], [], seconds)[0]:
            for _ in self.events():
                pass
            if time.monotonic() > end:
                sys.exit(f"scale: {self.node} never comes to rest")


def ip(node, lines):
    with tempfile.NamedTemporaryFile("w", suffix=".batch") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        subprocess.run(["ip", "-n", PREFIX + node, "-batch", file.name], check=True)


def route(verb, address, metric):
    return f"route {verb} {address}/32 dev br-l2 proto 132 scope link metric {metric}"


def other(number):
    """Its address and its host."""
    return f"10.0.{number // 250}.{2 + number % 250}", ("h1", "h2")[number % 2]


def vtysh(node, command):
    line = ["vtysh", "--vty_socket", f"{DIR}/{node}", "-c", command]
    return json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout or "{}")


def unacknowledged(node):
    """LSAs that the node's neighbours have not acknowledged yet."""
    several = vtysh(node, "show ip ospf neighbor json")["neighbors"].values()
    return sum(neighbour["linkStateRetransmissionListCounter"] for neighbours in several for neighbour in neighbours)


def at_rest(core, seconds):
    """Until no route changes at the core, and no LSA is on its way."""
    core.quiet(seconds)
    for node in ROUTERS if FABRIC == "ospf" else ():
        while unacknowledged(node):
            time.sleep(0.1)


def until_all(watch, addresses, new, via=None):
    """Seconds on the clock at which the node had, or had no longer, the first and the last of them."""
    missing, first = set(addresses), None
    end = time.monotonic() + 2 * LIMIT
    while missing:
        if not select.select([watch.socket], [], [], max(0, end - time.monotonic()))[0]:
            sys.exit(f"scale: {len(missing)} routes are late at {watch.node}, such as {min(missing)}")
        for is_new, address, _, hops in watch.events():
            if is_new == new and address in missing and (via is None or set(hops) <= set(via)):
                missing.discard(address)
                first = first or time.monotonic()
    return first, time.monotonic()


def at_core(address):
    """The interfaces of the core's route."""
    line = ["ip", "-j", "-n", PREFIX + "core", "route", "show", address]
    routes = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    return {hop["dev"] for one in routes for hop in one.get("nexthops", [one])}


def faults():
    """What may have held a claim up: packets that a router's socket dropped, and sessions of BFD that were lost."""
    found = {}
    for node in ROUTERS:
        with inside(node), open("/proc/self/net/raw") as file:
            found[f"{node} drops"] = sum(int(line.split()[-1]) for line in file.readlines()[1:])
        peers = vtysh(node, "show bfd peers counters json")
        found[f"{node} BFD"] = sum(peer["session-down"] for peer in peers)
    return found


def move(watches, addresses, source, target):
    """Milliseconds from each claim to the core's route, and what is known about the slow ones."""
    while any(at_core(address) != set(RACKS[source]) for address in addresses):
        time.sleep(0.1)
    before = faults()
    for watch in watches.values():
        for _ in watch.events():
            pass
    batch = subprocess.Popen(["ip", "-n", PREFIX + target, "-batch", "-"], stdin=subprocess.PIPE, text=True)
    batch.stdin.write("".join(f"{route('add', address, metric)}\n" for address in addresses for metric in (CLAIM, SETTLED)))
    batch.stdin.close()
    seen = {node: {} for node in watches}
    end = time.monotonic() + LIMIT
    looked_at = [watches[node] for node in (target, *RACKS[target], "core")]
    while len(seen["core"]) < len(addresses):
        ready = select.select([watch.socket for watch in looked_at], [], [], max(0, end - time.monotonic()))[0]
        now = time.monotonic()
        if not ready:
            sys.exit(f"scale: {len(addresses) - len(seen['core'])} claims are not at the core within {LIMIT} s: {faults()}")
        for watch in looked_at:
            wanted = {"core": set(RACKS[target]), target: {"br-l2"}}.get(watch.node, {target})
            for is_new, address, metric, hops in watch.events():
                if is_new and address in addresses and set(hops) <= wanted and metric != SETTLED and (
                    watch.node == target or address in seen[target]
                ):
                    seen[watch.node].setdefault(address, now)
    batch.wait()
    took = {address: seen["core"][address] - seen[target][address] for address in addresses}
    slowest = max(took, key=took.get)
    if took[slowest] > SLOW:
        way = {node: round((when[slowest] - seen[target][slowest]) * 1e3) for node, when in seen.items() if slowest in when}
        after = faults()
        held = {what: after[what] - before[what] for what in after if after[what] != before[what]}
        print(f"    slow: {way} ms, {held or 'no packet dropped, no session lost'}", flush=True)
    ip(source, [route("del", address, SETTLED) for address in addresses])
    watches["core"].quiet(0.5)
    ip(target, [route("del", address, CLAIM) for address in addresses])
    at_rest(watches["core"], 1)
    return [seconds * 1e3 for seconds in took.values()]


def moves(watches, addresses, number):
    """There and back again."""
    ip("h1", [route("add", address, SETTLED) for address in addresses])
    until_all(watches["core"], addresses, True)
    at_rest(watches["core"], 1)
    took = []
    for there in range(number):
        took += move(watches, addresses, *(("h1", "h2") if there % 2 == 0 else ("h2", "h1")))
    for host in RACKS:
        # Only one of them has the routes.
        line = ["ip", "-n", PREFIX + host, "-force", "-batch", "-"]
        lines = "\n".join(route("del", address, SETTLED) for address in addresses)
        subprocess.run(line, input=lines + "\n", text=True, stderr=subprocess.DEVNULL)
    at_rest(watches["core"], 1)
    return took


def resident(node):
    """MiB of the routing daemon."""
    with open(f"{DIR}/{node}/{DAEMON}.pid") as pid, open(f"/proc/{pid.read().strip()}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def others(watches, have, want):
    """Seconds until the core has so many other guests, or has them no longer."""
    addresses = [other(number) for number in range(min(have, want), max(have, want))]
    if not addresses:
        return 0.0
    for _ in watches["core"].events():
        pass
    start = time.monotonic()
    batches = []
    for host in RACKS:
        lines = [route("add" if want > have else "del", address, SETTLED) for address, of in addresses if of == host]
        batch = subprocess.Popen(["ip", "-n", PREFIX + host, "-batch", "-"], stdin=subprocess.PIPE, text=True)
        batches.append((batch, lines))
    for batch, lines in batches:
        batch.stdin.write("\n".join(lines) + "\n")
        batch.stdin.close()
    _, end = until_all(watches["core"], [address for address, _ in addresses], want > have)
    for batch, _ in batches:
        batch.wait()
    at_rest(watches["core"], 3)
    return end - start


def busy(number):
    """Loops of the same priority as the routers', which end with this program."""

    def child():
        LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        os.setpriority(os.PRIO_PROCESS, 0, -15)

    return [subprocess.Popen(["sh", "-c", "while :; do :; done"], preexec_fn=child) for _ in range(number)]


def table(watches):
    print(f"{FABRIC}, {os.cpu_count()} cores, {BUSY} busy loops; claim to core in ms: {CLAIMS} claims, twice 50 at once")
    heads = {"others": 7, "all there": 9, "min": 6, "median": 6, "max": 6, "ratio": 6, "  50: median": 13, "50: max": 8,
             "50: ratio": 9, f"{DAEMON} MiB": 10, "load": 5}
    print(" ".join(f"{head:>{width}}" for head, width in heads.items()), flush=True)
    have, first = 0, None
    # At the end once more without others: what differs from the first row is not theirs.
    for want in [*COUNTS, *([0] if any(COUNTS) else [])]:
        there = others(watches, have, want)
        have = want
        loops = busy(BUSY)
        one, cabinet = moves(watches, GUEST, CLAIMS), moves(watches, CABINET, 2)
        for loop in loops:
            loop.kill()
            loop.wait()
        first = first or (statistics.median(one), max(cabinet))
        print(f"{want:7,} {there:7.1f} s {min(one):6.0f} {statistics.median(one):6.0f} {max(one):6.0f} "
              f"{statistics.median(one) / first[0]:6.2f} {statistics.median(cabinet):13.0f} {max(cabinet):8.0f} "
              f"{max(cabinet) / first[1]:9.2f} {resident('core'):10.0f} {os.getloadavg()[0]:5.1f}", flush=True)


def restart(watches):
    """FRR on a host with 1,000 guests, as `systemctl restart frr` does it: how long the core is without them."""
    core = watches["core"]
    ip("h1", [route("add", address, SETTLED) for address in THOUSAND])
    until_all(core, THOUSAND, True)
    at_rest(core, 1)
    for _ in range(3):
        pids = [open(path).read().strip() for path in glob.glob(f"{DIR}/h1/*.pid")]
        start = time.monotonic()
        for pid in pids:
            os.kill(int(pid), signal.SIGINT)
        _, gone = until_all(core, THOUSAND, False)
        while any(os.path.exists(f"/proc/{pid}") for pid in pids):
            time.sleep(0.01)
        again = time.monotonic()
        script = "rm $1/h1/*.pid $1/h1/*.vty; . tests/lab/lib.sh && frr_start h1"
        subprocess.run(["bash", "-c", script, "bash", DIR], check=True)
        first, last = until_all(core, THOUSAND, True)
        print(f"FRR restarts on a host with 1,000 guests: the last is gone from the core {(gone - start) * 1e3:.0f} ms "
              f"after its end; {first - again:.1f} to {last - again:.1f} s after its start all are back", flush=True)
        at_rest(core, 1)


def carrier(host):
    """A tap on the bridge that is open: FRR 10.3 ignores routes through a bridge without carrier."""
    with inside(host):
        tap = open("/dev/net/tun", "r+b", buffering=0)
        fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", b"guest", 0x1002))  # TUNSETIFF; IFF_TAP, IFF_NO_PI
    ip(host, ["link set guest master br-l2 up"])
    return tap


def main():
    taps = [carrier(host) for host in RACKS]
    watches = {node: Watch(node) for node in ROUTERS}
    table(watches)
    restart(watches)
    for tap in taps:
        tap.close()


main()
