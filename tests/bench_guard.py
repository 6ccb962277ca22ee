"""The guard's part of tests/bench: what it costs a frame, and what a guest's start under libvirt costs with it.

    bench_guard.py frames TAP32 FRAMES-PROGRAM CLEAN-TRAFFIC ROUNDS     makes and removes namespaces of its own
    bench_guard.py start HOOK TAP32 PLAIN-XML FILTERED-XML ROUNDS NAMESPACE VIRSH...
"""

import json
import os
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time

from bench_lib import row, wait

MAC, ADDRESS = "02:42:0a:00:00:0a", "10.0.0.10"


def sh(line, text=None):
    done = subprocess.run(line, shell=True, input=text, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench: {line}: {done.stderr.strip()}")
    return done.stdout


def versus(what, ours, theirs, target, unit):
    row(what, ours / theirs, target, f"{ours:.0f} {unit} / {theirs:.0f} {unit}")


# Frames.

HOST_MAC, OWN_MAC, OTHER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("02420a00000a"), bytes.fromhex("02420a00000b")
HOST, OWN, OTHER = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 10]), bytes([10, 0, 0, 11])


def ipv4(source, protocol, payload, mac=OWN_MAC):
    head = bytes([0x45, 0]) + (20 + len(payload)).to_bytes(2, "big") + bytes([0, 1, 0, 0, 64, protocol])
    total = sum(struct.unpack("!9H", head + source + HOST))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = (0xFFFF - (total & 0xFFFF) - (total >> 16)).to_bytes(2, "big")
    return HOST_MAC + mac + b"\x08\x00" + head + checksum + source + HOST + payload


def arp(sender):
    return HOST_MAC + OWN_MAC + b"\x08\x06" + bytes([0, 1, 8, 0, 6, 4, 0, 2]) + OWN_MAC + sender + HOST_MAC + HOST


TCP, UDP = bytes(20), bytes.fromhex("0fa00035001c0000") + bytes(20)
# name: the frame, and whether the guest may send it.
FRAMES = {
    "own TCP, 54 octets": (ipv4(OWN, 6, TCP), True),
    "own TCP, 1,514 octets": (ipv4(OWN, 6, bytes(1480)), True),
    "own UDP, 62 octets": (ipv4(OWN, 17, UDP), True),
    "own ARP": (arp(OWN), True),
    "TCP with another's address": (ipv4(OTHER, 6, TCP), False),
    "TCP with another's MAC": (ipv4(OWN, 6, TCP, OTHER_MAC), False),
    "ARP with another's address": (arp(OTHER), False),
}

# As one writes it by hand. The elements beside the first stand for the other guests of the host.
NFT_SET = """table bridge guard {
  set guests { type ifname . ether_addr . ipv4_addr; }
  chain guests {
    type filter hook prerouting priority -300; policy accept;
    ether type ip iifname . ether saddr . ip saddr @guests accept
    ether type arp iifname . arp saddr ether . arp saddr ip @guests accept
    ether type 0x8035 accept
    drop
  }
}
add element bridge guard guests { "vnet0" . 02:42:0a:00:00:0a . 10.0.0.10 }
""" + "\n".join(
    f'add element bridge guard guests {{ "other{n}" . 02:42:0a:00:01:{n:02x} . 10.0.1.{n} }}' for n in range(100)
)


def frames(tap32, program, clean_traffic, rounds):
    # Rules of nftables and ebtables are of a whole namespace, so each way has one, with one bridge and one tap.
    namespaces = {way: f"tap32-{os.getppid()}-{way}" for way in ("none", "guard", "nft", "libvirt")}
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as unguarded:
            unguarded.write('[[bridge]]\nname = "br-l2"\nguard = false\n')
            unguarded.flush()
            for way, namespace in namespaces.items():
                sh(f"ip netns add {namespace}; ip -n {namespace} link add br-l2 address 02:00:00:00:00:01 type bridge")
                sh(f"ip -n {namespace} addr add 10.0.0.1/24 dev br-l2; ip -n {namespace} link set br-l2 up")
                # br_netfilter, where it is loaded, would run all of iptables as well.
                sh(f"ip netns exec {namespace} sysctl -qwe net.bridge.bridge-nf-call-iptables=0")
                sh(f"ip -n {namespace} tuntap add vnet0 mode tap")
                config = "" if way == "guard" else f"--config {unguarded.name}"
                sh(f"ip netns exec {namespace} {tap32} up vnet0 --mac {MAC} {config}")
            sh(f"ip netns exec {namespaces['nft']} nft -f -", NFT_SET)
            sh(f"ip netns exec {namespaces['libvirt']} ebtables-restore <{clean_traffic}")
        measure_frames(program, namespaces, rounds)
    finally:
        for namespace in namespaces.values():
            subprocess.run(["ip", "netns", "del", namespace], stderr=subprocess.DEVNULL)


def measure_frames(program, namespaces, rounds):
    batch = 1000

    def arrived():
        show = lambda way: json.loads(sh(f"ip -s -j -n {namespaces[way]} link show br-l2"))[0]
        return {way: show(way)["stats64"]["rx"]["packets"] for way in namespaces}

    def forwards(namespace):
        return json.loads(sh(f"bridge -n {namespace} -j link show"))[0]["state"] == "forwarding"

    line = [program, str(rounds), str(batch), *namespaces.values()]
    writer = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    writer.stdout.readline()
    wait("the ports forward", lambda: all(map(forwards, namespaces.values())))
    print("one frame from a tap up to the bridge, CPU time of the writer,", end=" ")
    print(f"medians of {rounds} interleaved rounds of {batch:,}")
    for name, (frame, is_own) in FRAMES.items():
        before = arrived()
        writer.stdin.write(frame.hex() + "\n")
        writer.stdin.flush()
        none, guard, nft, libvirt = map(float, writer.stdout.readline().split())
        for way, count in arrived().items():
            passed = count - before[way]
            # Now and then the host sends something by itself, and the frames of the round that warms come on top.
            if (passed >= rounds * batch) != (is_own or way == "none") or 0 < passed < rounds * batch:
                sys.exit(f"bench: {name}: {passed} of {rounds * batch} passed with {way}")
        verb = "passes" if is_own else "is dropped"
        print(f"  {name}, {verb}")
        versus("    guard / no guard", guard, none, 1.2 if is_own else 1.0, "ns")
        versus("    guard / an nft bridge set", guard, nft, 1.0, "ns")
        versus("    guard / libvirt's clean-traffic, ebtables", guard, libvirt, 1.0, "ns")
    writer.stdin.close()
    writer.wait()


# A guest's start.


def start(hook, tap32, nothing, plain, filtered, rounds, namespace, *virsh):
    ways = {
        "no hook": (None, plain),
        "an empty hook": (nothing, plain),
        "tap32": (tap32, plain),
        "clean-traffic": (None, filtered),
    }

    def create(way, judge=False):
        """Milliseconds of `virsh create`, from spawn to exit."""
        program, xml = ways[way]
        if os.path.lexists(hook):
            os.unlink(hook)
        if program:
            os.symlink(program, hook)
        begin = time.perf_counter()
        subprocess.run([*virsh, "create", xml], check=True)
        took = time.perf_counter() - begin
        if judge:
            routes = sh(f"ip -n {namespace} route show proto 132")
            tap = json.loads(sh(f"bridge -n {namespace} -j link show"))[0]["ifname"]
            guard = sh(f"ip netns exec {namespace} tc filter show dev {tap} ingress")
            rules = sh(f"ip netns exec {namespace} ebtables -t nat -L")
            seen = (ADDRESS in routes, "bytecode" in guard, "libvirt-I-" in rules)
            if seen != (way == "tap32", way == "tap32", way == "clean-traffic"):
                sys.exit(f"bench: a start with {way}: route, guard, rules: {seen}")
        subprocess.run([*virsh, "destroy", "g1"], check=True)
        return took * 1e3

    taken = {way: [] for way in ways}
    for way in ways:
        # The first start also asks QEMU what it can.
        create(way, judge=True)
    for _ in range(rounds):
        for way in random.sample(list(ways), len(ways)):
            taken[way].append(create(way))
    print(f"a guest's start under libvirt, `virsh create`, medians of {rounds} interleaved starts")
    none, empty, guard, filtered = (statistics.median(taken[way]) for way in ways)
    versus("  tap32 with the guard / no hook", guard, none, 1.03, "ms")
    # What libvirt itself takes to call a hook is in both.
    versus("  tap32 with the guard / a hook that does nothing", guard, empty, 1.03, "ms")
    versus("  tap32 with the guard / libvirt's clean-traffic", guard, filtered, 1.0, "ms")
    spread = ", ".join(f"{way} {min(taken[way]):.0f} to {max(taken[way]):.0f} ms" for way in ways)
    print(f"  spread: {spread}")


if sys.argv[1] == "frames":
    frames(*sys.argv[2:5], int(sys.argv[5]))
else:
    start(*sys.argv[2:7], int(sys.argv[7]), *sys.argv[8:])
