//! The programs of the random host: what its guests run, and a client. Python's standard library does.

/// All guests. Each line is answered by one.
///
/// `open ID TAP ADDRESS MAC` opens one queue of a tap, as QEMU does, `multi` before it makes one of several. `close ID`
/// closes all, `frame ID` writes a broadcast from the guest's MAC, and `count` tells how many packets each guest got of
/// the client's. The kernel drops what is not for the guest (TUNATTACHFILTER), as a NIC does.
pub const GUESTS: &str = r"import collections, ctypes, fcntl, json, os, select, struct, sys
queues, owner, frames, seen = collections.defaultdict(list), {}, {}, collections.Counter()
poll = select.epoll()
poll.register(0, select.EPOLLIN)
def attach_filter(tap, address):
    program = b''.join(struct.pack('=HBBI', *instruction) for instruction in [
        (0x28, 0, 0, 12), (0x15, 0, 3, 0x0800), (0x20, 0, 0, 30),
        (0x15, 0, 1, int.from_bytes(address, 'big')), (6, 0, 0, 65535), (6, 0, 0, 0)])
    program = ctypes.create_string_buffer(program)
    fcntl.ioctl(tap, 0x401054d5, struct.pack('HxxxxxxQ', 6, ctypes.addressof(program)))
def attach(who, name, address, mac, flags=0x1002):
    tap = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', name.encode(), flags))
    except OSError:
        os.close(tap)
        raise
    attach_filter(tap, bytes(map(int, address.split('.'))))
    frames[who] = b'\xff' * 6 + bytes.fromhex(mac.replace(':', '')) + b'\x80\x35' + bytes(46)
    queues[who].append(tap)
    owner[tap] = who
    poll.register(tap, select.EPOLLIN)
def close(tap):
    poll.unregister(tap)
    os.close(tap)
    queues[owner.pop(tap)].remove(tap)
def receive(tap):
    try:
        while os.read(tap, 2048):
            seen[owner[tap]] += 1
    except BlockingIOError:
        pass
    except OSError:
        close(tap)  # Somebody has deleted the tap.
def told(verb, *words):
    if verb == 'open':
        attach(*words)
    elif verb == 'multi':
        attach(*words, flags=0x1102)
    elif verb == 'close':
        for tap in list(queues[words[0]]):
            close(tap)
    elif verb == 'one':
        close(queues[words[0]][-1])
    elif verb == 'frame':
        os.write(queues[words[0]][0], frames[words[0]])
    elif verb == 'count':
        for tap in list(owner):
            receive(tap)
        return json.dumps(seen)
    elif verb == 'zero':
        seen.clear()
    return 'ok'
print('ready', flush=True)
while True:
    for fd, _ in poll.poll():
        if fd:
            if fd in owner:
                receive(fd)
            continue
        line = sys.stdin.buffer.raw.readline().decode()
        if not line:
            sys.exit()
        try:
            print(told(*line.split()), flush=True)
        except (OSError, IndexError) as error:
            print(error, flush=True)
";

/// Sends to each address of `send ADDRESS..` each 10 ms until `stop`, which tells how many each of them was sent.
pub const CLIENT: &str = "import collections, json, select, socket, sys, time
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print('ready', flush=True)
to, sent, due = [], collections.Counter(), 0
while True:
    patience = max(0, due - time.monotonic()) if to else None
    if select.select([0], [], [], patience)[0]:
        line = sys.stdin.buffer.raw.readline().decode()
        if not line:
            sys.exit()
        verb, *words = line.split()
        answer = json.dumps(sent)
        if verb == 'send':
            sent.clear()
        to, due = words, time.monotonic()
        print(answer, flush=True)
        continue
    for address in to:
        client.sendto(b'tap32', (address, 7777))
        sent[address] += 1
    due = max(due + 0.01, time.monotonic() - 0.1)
";
