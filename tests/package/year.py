"""Does to two hosts what stands in the table of tap32-design(7), "A HOST'S YEAR", and judges what the table says.

year.py MANAGER PID PID    in the core's network namespace; the pids are the first processes of the hosts without
                           tap32-watch and with it. Prints a line an operation: lost without watch / with watch. Ends
                           with 1 where it was not as the table says.

A cell of the table: `0`; `N ms` or `N s`, at most; `all`, until somebody acts; and `broken`, what is not as it should be
afterwards.
"""

import concurrent.futures
import json
import re
import select
import socket
import struct
import subprocess
import sys
import threading
import time

PAGE = "packaging/man/tap32-design.7"
INTERVAL = 0.010
# discard, which no guest serves.
PORT = 9
SYN, RST, ACK = 2, 4, 16
# An answer that comes later is lost.
LATE = 2.0
# So long after an operation its effects may still come: udev and networkd act on events.
AFTERMATH = 1.0
# So long a host may take until its packets arrive again, and so long is looked at one that nobody fixes.
PATIENCE = 20
UNFIXED = 3

# What the table says in words, as commands.
COMMANDS = {
    "upgrade of systemd": "dpkg -i /debs/systemd_*.deb /debs/udev_*.deb",
    "upgrade of libvirt": "dpkg -i /debs/libvirt-daemon-system_*.deb",
    "upgrade of FRR": "dpkg -i /debs/frr_*.deb",
    # The host's tap32.toml is its own, about which dpkg would ask.
    "upgrade of tap32": "dpkg --force-confold -i /debs/tap32.deb",
    # Of network interfaces only: other devices are the machine's.
    "udevadm trigger": "udevadm trigger --subsystem-match=net; udevadm settle --timeout=5",
    "udevadm trigger -c add": "udevadm trigger --action=add --subsystem-match=net; udevadm settle --timeout=5",
    "the same, interfaces trusted": "systemctl start firewalld",
    "ufw enable": "ufw --force enable",
    "uplink set down and up": "ip link set UPLINK down; ip link set UPLINK up",
    "bridge set down and up": "ip link set BRIDGE down; ip link set BRIDGE up",
    "bridge's address flushed and added": "ip addr flush dev BRIDGE; ip addr add 10.0.0.1/24 dev BRIDGE",
    "tap taken off the bridge": "ip link set vnet0 nomaster",
    # As udev's MACAddressPolicy=persistent does.
    "tap given another MAC": "ip link set vnet0 address 6e:8a:11:22:33:44",
    "a .network for Type=ether":
        "printf '[Match]\\nType=ether\\n[Network]\\nDHCP=yes\\n' >/etc/systemd/network/70-all.network; networkctl reload",
    "networkctl down BRIDGE, and up": "networkctl down BRIDGE; networkctl up BRIDGE",
    "nmcli networking off, and on": "nmcli networking off; nmcli networking on",
}
# What is done before an operation and after it, unmeasured.
BEFORE = {
    "the same, interfaces trusted": "firewall-offline-cmd -q --zone=trusted --add-interface=br-l2 --add-interface=core",
}
AFTER = {
    "systemctl start firewalld": "systemctl stop firewalld",
    "ufw enable": "ufw --force disable",
    "a .network for Type=ether": "rm /etc/systemd/network/70-all.network; networkctl reload",
}
NAMES = {"BRIDGE": "br-l2", "UPLINK": "core"}


class Packets(threading.Thread):
    """A numbered SYN to a closed port of each address every 10 ms, which the guest answers with a RST.

    Each is a connection of its own, so that no firewall lets it pass for another's sake; and firewalls pass pings.
    """

    def __init__(self, addresses):
        super().__init__(daemon=True)
        self.addresses = addresses
        # When each was sent, and which were answered.
        self.sent = []
        self.answered = {address: set() for address in addresses}
        self.newest = dict.fromkeys(addresses, -1)

    def run(self):
        sources = {address: source_to(address) for address in self.addresses}
        wire = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
        wire.setblocking(False)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        due = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= due:
                number = len(self.sent)
                self.sent.append(now)
                for address, source in sources.items():
                    try:
                        wire.sendto(syn(source, address, number), (address, 0))
                    except OSError:
                        pass  # No route: as good as lost.
                due = max(due + INTERVAL, now)
            select.select([wire], [], [], max(0, due - time.monotonic()))
            self.receive(wire)

    def receive(self, wire):
        while True:
            try:
                packet, (address, _) = wire.recvfrom(2048)
            except OSError:
                return
            source, _, _, acknowledged, _, flags = struct.unpack_from(">HHIIBB", packet, (packet[0] & 15) * 4)
            if source == PORT and flags == RST | ACK and address in self.answered:
                self.answered[address].add(acknowledged - 1)
                self.newest[address] = max(self.newest[address], acknowledged - 1)

    def well(self, address, count):
        """Whether the last packets were answered, but for those that are still on their way."""
        newest, answered = self.newest[address], self.answered[address]
        return len(self.sent) - newest < 30 and all(number in answered for number in range(newest - count, newest + 1))

    def lost(self, address, first, end):
        """How many of [first, end) were not answered, and the longest time in ms between two that were."""
        answered = [number for number in range(first, end) if number in self.answered[address]]
        # What was answered before the operation and after it bounds the gap.
        edges = [first - 1, *answered, end]
        gap = max(b - a for a, b in zip(edges, edges[1:]))
        return end - first - len(answered), round(gap * INTERVAL * 1000)


def source_to(address):
    """From where packets to an address go out now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.connect((address, PORT))
        return asked.getsockname()[0]


def syn(source, address, number):
    """A TCP segment that asks for a connection, from a port of its own; the number is its sequence number."""
    header = struct.pack(">HHIIBBHHH", 1024 + number % 60000, PORT, number, 0, 5 << 4, SYN, 1024, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(address) + struct.pack(">HH", socket.IPPROTO_TCP, len(header))
    total = sum(struct.unpack(">16H", pseudo + header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return header[:16] + struct.pack(">H", ~total & 0xFFFF) + header[18:]


class Host:
    def __init__(self, number, pid, watch):
        self.pid, self.watch = pid, watch
        self.name = "with watch" if watch else "without watch"
        self.guests = {"tap0": f"10.0.0.{number}0", "vnet0": f"10.0.0.{number}1"}

    def run(self, command):
        """In the host's namespaces; returns the exit code and what it said."""
        shell = ["nsenter", "-a", "-t", self.pid, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                 "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "sh", "-c", command]
        done = subprocess.run(shell, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=60)
        return done.returncode, done.stdout

    def ask(self, *command):
        """This machine's program in the host's network namespace."""
        inside = ["nsenter", f"--net=/proc/{self.pid}/ns/net", *command]
        done = subprocess.run(inside, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return json.loads(done.stdout or "[]") if done.returncode == 0 else []

    def wrong(self):
        """What is not as it should be, judged by ip, bridge and tc here and at the core."""
        routes = self.ask("ip", "-j", "route", "show", "proto", "132")
        routes = {(it["dst"], it.get("dev"), it.get("metric")) for it in routes}
        ports = {it["ifname"]: it for it in self.ask("bridge", "-j", "-d", "link", "show")}
        neighbours = {it["dst"] for it in self.ask("ip", "-j", "neigh", "show", "dev", "br-l2", "nud", "permanent")}
        core = json.loads(subprocess.run(["ip", "-j", "route"], stdout=subprocess.PIPE, text=True).stdout)
        announced = {it["dst"] for it in core}
        for tap, address in self.guests.items():
            port = ports.get(tap, {})
            if port.get("master") != "br-l2":
                yield f"{tap} off the bridge"
            elif not port.get("isolated"):
                yield f"{tap} not isolated"
            if (address, "br-l2", 4026531940) not in routes:
                yield f"{tap} no route"
            filters = self.ask("tc", "-j", "filter", "show", "dev", tap, "ingress")
            if not any(it.get("kind") == "bpf" for it in filters):
                yield f"{tap} no guard"
            if address not in neighbours:
                yield f"{tap} no neighbour"
            if address not in announced:
                yield f"{tap} not announced"

    def fix(self):
        """What an operator would do."""
        self.run("ip link set br-l2 up; systemctl restart tap32-setup")
        for tap, address in self.guests.items():
            mac = "02:42:" + ":".join(f"{int(octet):02x}" for octet in address.split("."))
            self.run(f"tap32 up {tap} --mac {mac}")


class Cell:
    """What the table says of an operation on one of the hosts."""

    def __init__(self, text):
        self.text = text
        self.stays = text == "all"
        self.broken = text.endswith(", broken")
        number = re.match(r"(\d+)( s| ms)?", text)
        self.seconds = int(number[1]) * (0.001 if number[2] == " ms" else 1) if number else None

    def fits(self, seen):
        if self.text == "?":
            return True
        if self.stays:
            return not seen["well"]
        return seen["well"] and seen["lost"] * INTERVAL <= self.seconds and bool(seen["wrong"]) == self.broken


class Row:
    def __init__(self, manager, words, cells):
        self.manager, self.words, self.cells = manager, words, [Cell(text) for text in cells]
        self.command = COMMANDS.get(words, words)
        for name, interface in NAMES.items():
            self.command = self.command.replace(name, interface)
        # OSPF and BFD may notice an uplink's address that went only when their next packets do not come.
        self.aftermath = 2.5 if NAMES["UPLINK"] in self.command or self.cells[True].text[-2:] == " s" else AFTERMATH


def table():
    """The rows of the page's table."""
    with open(PAGE) as page:
        section = page.read().split('.SH "A HOST\'S YEAR"')[1]
    body = section.split(".TS\n")[1].split(".TE\n")[0].split("\n_\n")[1]
    manager = None
    for line in body.replace("\\-", "-").splitlines():
        made_by, words, *cells = line.split("\t")
        manager = made_by or manager
        yield Row(manager, words, cells)


def wait_until(true, seconds):
    end = time.monotonic() + seconds
    while not (seen := true()) and time.monotonic() < end:
        time.sleep(0.02)
    return seen


def do(host, row, packets):
    cell = row.cells[host.watch]
    addresses = host.guests.values()
    if row.words in BEFORE:
        host.run(BEFORE[row.words])
    first = len(packets.sent)
    code, said = host.run(row.command)
    end = time.monotonic() + row.aftermath
    well = wait_until(lambda: time.monotonic() > end and all(packets.well(address, 30) for address in addresses),
                      row.aftermath + (UNFIXED if cell.stays else PATIENCE))
    last = min(packets.newest[address] for address in addresses) + 1 if well else len(packets.sent)
    lost, gap = max(packets.lost(address, first, last) for address in addresses)
    # The fabric learns of a route a moment after the host has it.
    wait_until(lambda: not list(host.wrong()), 3 if well and not cell.broken else 0)
    wrong = list(host.wrong())
    if row.words in AFTER:
        host.run(AFTER[row.words])
    if not host.watch:
        # What it started, or an upgrade.
        host.run("systemctl stop tap32-watch")
    if wrong or not well:
        host.fix()
        if not wait_until(lambda: all(packets.well(address, 30) for address in addresses), PATIENCE):
            raise SystemExit(f"{row.words}: {host.name}: the guests do not come back: {list(host.wrong())}\n{said}")
    return {"sent": last - first, "lost": lost, "gap": gap, "well": well, "wrong": wrong, "code": code, "said": said}


def main():
    manager, *pids = sys.argv[1:]
    hosts = [Host(number, pid, watch) for number, pid, watch in zip((1, 2), pids, (False, True))]
    packets = Packets([address for host in hosts for address in host.guests.values()])
    packets.start()
    bad = []
    for host in hosts:
        if not wait_until(lambda: not list(host.wrong()), PATIENCE):
            bad.append(f"{manager}: boot, {host.name}: {', '.join(host.wrong())}")
        wait_until(lambda: all(packets.well(address, 30) for address in host.guests.values()), PATIENCE)
    for row in [row for row in table() if row.manager == manager]:
        with concurrent.futures.ThreadPoolExecutor() as both:
            seen = list(both.map(lambda host: do(host, row, packets), hosts))
        line = []
        for host, it in zip(hosts, seen):
            lost = it["lost"] if it["well"] else "all"
            line.append(f"{lost} of {it['sent']}, longest gap {it['gap']} ms, then {', '.join(it['wrong']) or 'right'}")
            cell = row.cells[host.watch]
            if it["code"] or not cell.fits(it):
                bad.append(f"{manager}: {row.words}: {host.name}: the table says {cell.text}, seen: {line[-1]}\n"
                           f"exit code {it['code']}: {it['said'][-400:]}")
        print(f"  {manager}: {row.words}: lost {' / '.join(line)}", flush=True)
    sys.exit("\n".join(bad) or 0)


if __name__ == "__main__":
    main()
