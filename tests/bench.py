"""The measuring part of tests/bench: runs inside its namespace, where vnet0, vnet1 and br-l2 wait."""

import os
import random
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time

from bench_lib import row

TAP32, FLOOR, SEED, ROUNDS = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
# Another tap32 to compare with, or nothing.
EARLIER = sys.argv[5] if len(sys.argv) > 5 else None
ENVIRONMENT = {"PATH": os.environ["PATH"]}
MAC, TAP_MAC, ADDRESS = "02:42:0a:00:00:0a", "fe:42:0a:00:00:0a", "10.0.0.10/32"
METRIC = "4026531940"


def index(name):
    with open(f"/sys/class/net/{name}/ifindex") as file:
        return file.read().strip()


def run(line):
    """Microseconds from spawn to exit of one program, which must succeed."""
    words = line.split()
    start = time.perf_counter()
    pid = os.posix_spawnp(words[0], words, ENVIRONMENT)
    _, status = os.waitpid(pid, 0)
    took = time.perf_counter() - start
    if status:
        sys.exit(f"bench: {line}: status {status}")
    return took * 1e6


def guard():
    """The guard's program as the kernel takes it, in hex, from what `tap32 up -n` would have a person type."""
    shown = subprocess.run([TAP32, "up", "vnet0", "--mac", MAC, "-n"], check=True, capture_output=True, text=True).stdout
    _, *instructions = re.search(r"bytecode '([^']*)'", shown)[1].split(",")
    return b"".join(struct.pack("=HBBI", *map(int, line.split())) for line in instructions).hex()


def configuration(name, line):
    path = f"{WORK}/{name}.toml"
    with open(path, "w") as file:
        file.write(f"[[bridge]]\n{line}\n")
    return path


WORK = tempfile.mkdtemp(prefix="tap32-bench-")
GUARDED, UNGUARDED = configuration("guarded", "guard = true"), configuration("unguarded", "guard = false")
FLOOR_UP = f"{FLOOR} up {index('vnet0')} {index('br-l2')} 0a00000a {guard()}"
FLOOR_DOWN = f"{FLOOR} down {index('vnet0')} {index('br-l2')} 0a00000a guard"
ROUTE = f"{ADDRESS} dev br-l2 proto 132 scope link metric {METRIC}"
ATTACH = f"ip link set dev vnet0 address {TAP_MAC} mtu 1500 master br-l2 up"
DETACH = "ip link set dev vnet0 nomaster down"

# name: lines that are timed. The seed's script expects a tap that libvirt attached, so it gets one, untimed.
WAYS = {
    "tap32": [f"{TAP32} up vnet0 --mac {MAC}", f"{TAP32} down vnet0"],
    "guarded": [f"{TAP32} up vnet0 --mac {MAC} --config {GUARDED}", f"{TAP32} down vnet0 --config {GUARDED}"],
    "unguarded": [f"{TAP32} up vnet0 --mac {MAC} --config {UNGUARDED}", f"{TAP32} down vnet0 --config {UNGUARDED}"],
    "floor": [FLOOR_UP, FLOOR_DOWN],
    "iproute2": [ATTACH, "bridge link set dev vnet0 isolated on", f"ip route add {ROUTE}", f"ip route del {ROUTE}", DETACH],
    "seed": [f"bash {SEED} vnet0", f"ip route del {ADDRESS} dev br-l2"],
}
if EARLIER:
    WAYS["earlier"] = [f"{EARLIER} up vnet0 --mac {MAC}", f"{EARLIER} down vnet0"]


def one(way):
    """Microseconds of each of its lines."""
    if way == "seed":
        run(ATTACH)
    took = [run(line) for line in WAYS[way]]
    if way == "seed":
        run(DETACH)
    return took


def measure(ways, rounds):
    for way in ways:
        one(way)
    taken = {way: [] for way in ways}
    for _ in range(rounds):
        # A random order: what one way leaves the kernel to clean up must not always meet the same next one.
        for way in random.sample(ways, len(ways)):
            taken[way].append(one(way))
    return taken


def medians(ways, rounds):
    return {way: statistics.median(map(sum, times)) for way, times in measure(ways, rounds).items()}


def crowd(add):
    """500 other taps and 50,000 other routes come, or go."""
    lines = []
    verb = "add" if add else "del"
    for number in range(500):
        lines.append(f"tuntap {verb} crowd{number} mode tap")
        if add:
            lines.append(f"link set crowd{number} master br-l2 up")
    if add:
        lines += [f"route add 10.{100 + i // 62500}.{i // 250 % 250}.{i % 250}/32 dev br-l2" for i in range(50000)]
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        subprocess.run(["ip", "-batch", file.name], check=True)


def peak_memory(line):
    """KiB, as /usr/bin/time -v reports it."""
    seen = subprocess.run(["/usr/bin/time", "-f", "%M", *line.split()], check=True, capture_output=True, text=True)
    return int(seen.stderr.split()[-1])


def compare_guard(times, where=""):
    for place, verb in enumerate(("up", "down")):
        guarded, unguarded = (statistics.median(both[place] for both in times[way]) for way in ("guarded", "unguarded"))
        row(f"{verb} with the guard / without{where}", guarded / unguarded, 1.25, f"{guarded:.0f} us / {unguarded:.0f} us")


# Another guest runs, as on most hosts. The kernel patches its own code when the first clsact of all comes and when the
# last one goes (static_branch_inc), which is a tenth of `up`.
run(f"{TAP32} up vnet1 --mac 02:42:0a:00:00:0b")
lines = measure(list(WAYS), ROUNDS)
alone = {way: statistics.median(map(sum, times)) for way, times in lines.items()}
# The crowd must come between two measurements of the same minute: a machine's speed drifts.
before = medians(["tap32"], ROUNDS)["tap32"]
crowd(True)
crowded = medians(["tap32"], ROUNDS)["tap32"]
crowd(False)
run(f"{TAP32} down vnet1")
first = measure(["guarded", "unguarded"], ROUNDS)
memory = max(peak_memory(line) for line in WAYS["tap32"])
size = os.path.getsize(TAP32)

model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
print(f"up + down of one tap, medians of {ROUNDS} interleaved runs, each of whole processes from spawn to exit")
print(f"on {os.cpu_count()} cores of {model}, Linux {os.uname().release}\n")
print(f"{'':<58} {'ratio':>7}   {'target':<9} {'':<4} medians")
show = lambda way: f"{alone[way]:.0f} us"
row("tap32 / the seed's script + ip route del", alone["tap32"] / alone["seed"], 0.125, f"{show('tap32')} / {show('seed')}")
row("tap32 / ip link, bridge link, ip route", alone["tap32"] / alone["iproute2"], 1.0, f"{show('tap32')} / {show('iproute2')}")
row("tap32 / floor: the same eight requests in C", alone["tap32"] / alone["floor"], 1.5, f"{show('tap32')} / {show('floor')}")
if EARLIER:
    row("tap32 / an earlier tap32", alone["tap32"] / alone["earlier"], 1.05, f"{show('tap32')} / {show('earlier')}")
compare_guard(lines)
compare_guard(first, ", the first guest of a host")
row("with 500 taps and 50,000 routes / alone", crowded / before, 1.2, f"{crowded:.0f} us / {before:.0f} us")
row("peak memory / 4 MiB", memory / 4096, 1.0, f"{memory} KiB")
row("binary / 3 MiB", size / (3 << 20), 1.0, f"{size / 1024:.0f} KiB")
