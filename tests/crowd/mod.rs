//! The programs of a crowd: what its guests run, a client, and a hostile guest. Python's standard library does.

/// Everybody's guest program. A line of its file is a tap, the length of a prefix, and the addresses behind the tap. The
/// kernel drops what is for none in the prefix (TUNATTACHFILTER), as a NIC does: this program has no time for the flood
/// of ARP requests. It answers ARP, and counts packets by their UDP port. It answers each line with the counts: after
/// `announce` each guest sends one frame first, and after `count` the counts start again at zero.
pub const GUESTS: &str = r"import collections, ctypes, fcntl, json, os, select, struct, sys
taps, seen, keep = {}, collections.Counter(), []
poll = select.epoll()
poll.register(0, select.EPOLLIN)
for line in open(sys.argv[1]):
    name, length, *addresses = line.split()
    addresses = [bytes(map(int, address.split('.'))) for address in addresses]
    mask = 2 ** 32 - 2 ** (32 - int(length))
    prefix = int.from_bytes(addresses[0], 'big') & mask
    program = b''.join(struct.pack('=HBBI', *instruction) for instruction in [
        (0x28, 0, 0, 12), (0x15, 0, 2, 0x0806), (0x20, 0, 0, 38), (0x05, 0, 0, 2),
        (0x15, 0, 4, 0x0800), (0x20, 0, 0, 30), (0x54, 0, 0, mask),
        (0x15, 0, 1, prefix), (6, 0, 0, 65535), (6, 0, 0, 0)])
    keep.append(ctypes.create_string_buffer(program))
    tap = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', name.encode(), 0x1002))
    fcntl.ioctl(tap, 0x401054d5, struct.pack('HxxxxxxQ', 10, ctypes.addressof(keep[-1])))
    taps[tap] = set(addresses)
    poll.register(tap, select.EPOLLIN)
def receive(tap):
    while True:
        try:
            frame = os.read(tap, 2048)
        except BlockingIOError:
            return
        if frame[12:14] == b'\x08\x06':
            own = frame[38:42]
            if frame[20:22] == b'\0\1' and own in taps[tap]:
                mac = b'\x02\x42' + own
                os.write(tap, frame[6:12] + mac + frame[12:20] + b'\0\2' + mac + own + frame[22:32])
        elif frame[23] == 17 and frame[30:34] in taps[tap]:
            seen[int.from_bytes(frame[36:38], 'big')] += 1
print('ready', flush=True)
while True:
    for fd, _ in poll.poll():
        if fd:
            receive(fd)
            continue
        line = sys.stdin.buffer.raw.readline()
        if not line:
            sys.exit()
        for tap, addresses in taps.items():
            receive(tap)
            for address in addresses if line == b'announce\n' else ():
                os.write(tap, b'\xff' * 6 + b'\x02\x42' + address + b'\x80\x35' + bytes(46))
        print(json.dumps(seen), flush=True)
        if line == b'count\n':
            seen.clear()
";

/// The client. A line is a list of packets, each with its second, its address and its port. It sends them, and answers with
/// how many it sent to each port.
pub const CLIENT: &str = "import collections, json, socket, sys, time
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print('ready', flush=True)
for line in sys.stdin:
    sent, start = collections.Counter(), time.monotonic()
    for due, address, port in sorted(json.loads(line)):
        time.sleep(max(0, start + due - time.monotonic()))
        client.sendto(b'tap32', (address, int(port)))
        sent[port] += 1
    print(json.dumps(sent), flush=True)
";

/// The hostile guest: UDP with its own source to each address of 10.0.0.0/15 in which no guest is, again and again for as
/// many seconds as a line says. Answers with the packets it sent.
pub const SCANNER: &str = r"import fcntl, json, os, struct, sys, time
tap = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', sys.argv[1].encode(), 0x1002))
own = bytes.fromhex(sys.argv[2].replace(':', ''))
ethernet = bytes.fromhex(sys.argv[3].replace(':', '')) + own + b'\x08\0'
def packet(to):
    fields = [0x4500, 32, 0, 0, 0x4011, 0, *struct.unpack('>HH', own[2:]), 0x0a00 | to >> 16, to & 0xffff]
    fields[5] = 0xffff - sum(fields) % 0xffff
    return ethernet + struct.pack('>10H', *fields) + struct.pack('>4H', 9, 9, 12, 0) + b'scan'
guests = set(map(int, open(sys.argv[4]).read().split()))
unused = [i << 16 | low for low in range(2, 0xffff) for i in (0, 1) if i << 16 | low not in guests]
frames = [packet(to) for to in unused]
batches = [frames[i:i + 64] for i in range(0, len(frames), 64)]
print('ready', flush=True)
for line in sys.stdin:
    sent, end = 0, time.monotonic() + float(line)
    while time.monotonic() < end:
        for batch in batches:
            for frame in batch:
                os.write(tap, frame)
            sent += len(batch)
            if time.monotonic() > end:
                break
    print(sent, flush=True)
";
