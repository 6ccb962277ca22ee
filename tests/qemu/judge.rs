//! Which frames of the table come in by vnet0, before the guard, and which come to the bridge: packet sockets.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout, Stdio};

use crate::common::{Background, Host};
use crate::guard::hex;
use crate::guard::table::{Cast, Row, table};

/// Names of rows. Rows with the same frame, which some of the short ones are, go by the name of the first.
pub type Rows = BTreeSet<String>;

pub fn table_rows(cast: &Cast, is_one: impl Fn(&Row) -> bool) -> Rows {
    let mut frames = BTreeSet::new();
    let rows = table(cast).into_iter().filter(|row| frames.insert(row.frame.clone()));
    rows.filter(|row| is_one(row)).map(|row| row.name).collect()
}

pub fn same(seen: &Rows, meant: &Rows) {
    let (leaked, missing): (Vec<_>, Vec<_>) = (seen.difference(meant).collect(), meant.difference(seen).collect());
    assert!(leaked.is_empty() && missing.is_empty(), "leaked: {leaked:?}; missing: {missing:?}");
}

/// Seen since the last time it was told to forget.
pub struct Judge {
    all: Rows,
    queues: [Rows; 2],
    bridge: Rows,
    words: ChildStdin,
    answers: BufReader<ChildStdout>,
    _python: Background,
}

impl Judge {
    /// Takes lines "NAME<tab>FRAME" until an empty one. Then answers each line with the names of the frames that it has
    /// seen since: three lines, for the tap's queues and the bridge. Puts the VLAN tag back that the kernel took out.
    const SCRIPT: &str = r"import ctypes, select, socket, struct, sys
names = {}
for line in iter(sys.stdin.readline, '\n'):
    name, frame = line.strip().split('\t')
    names.setdefault(bytes.fromhex(frame), name)
def listen(link, code):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    s.setsockopt(socket.SOL_SOCKET, 33, 1 << 28)  # SO_RCVBUFFORCE
    s.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA
    program = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *line) for line in code))
    s.setsockopt(socket.SOL_SOCKET, 26, struct.pack('HP', len(code), ctypes.addressof(program)))  # SO_ATTACH_FILTER
    s.bind((link, 3))
    s.setblocking(False)
    return s
every = (6, 0, 0, 0xffffffff)
# SKF_AD_QUEUE counts from 1.
queue = lambda number: [(0x20, 0, 0, 0xfffff018), (0x15, 0, 1, number + 1), every, (6, 0, 0, 0)]
sockets = [listen('vnet0', queue(0)), listen('vnet0', queue(1)), listen('br-l2', [every])]
seen = [set() for _ in sockets]
def read(s, seen):
    while True:
        try:
            frame, control, _, address = s.recvmsg(70000, 64)
        except BlockingIOError:
            return
        for _, _, aux in control:
            status, *_, tag, kind = struct.unpack('IIIHHHH', aux)
            if status & 16:  # TP_STATUS_VLAN_VALID
                frame = frame[:12] + struct.pack('!HH', kind, tag) + frame[12:]
        if address[2] != socket.PACKET_OUTGOING and frame in names:
            seen.add(names[frame])
print('ready', flush=True)
while True:
    select.select([0, *sockets], [], [])
    asked = select.select([0], [], [], 0)[0]
    for s, names_seen in zip(sockets, seen):
        read(s, names_seen)
    if asked:
        if not sys.stdin.readline():
            break
        for names_seen in seen:
            print('\t'.join(names_seen), flush=True)
            names_seen.clear()
";

    pub fn new(host: &Host, cast: &Cast) -> Self {
        let mut python = host.command("python3");
        let mut child = python.args(["-c", Self::SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut words, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        for row in table(cast) {
            writeln!(words, "{}\t{}", row.name, hex(&row.frame)).unwrap();
        }
        writeln!(words).unwrap();
        let (all, queues) = (table_rows(cast, |_| true), [Rows::new(), Rows::new()]);
        let mut judge = Self { all, queues, bridge: Rows::new(), words, answers, _python: Background(child) };
        assert_eq!(judge.line(), "ready");
        judge
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end_matches('\n').to_owned()
    }

    fn look(&mut self) {
        writeln!(self.words).unwrap();
        let [first, second, bridge] = [self.line(), self.line(), self.line()];
        let names =
            |line: String| line.split('\t').filter(|name| !name.is_empty()).map(str::to_owned).collect::<Rows>();
        self.queues[0].extend(names(first));
        self.queues[1].extend(names(second));
        self.bridge.extend(names(bridge));
    }

    pub fn forget(&mut self) {
        self.look();
        self.queues = [Rows::new(), Rows::new()];
        self.bridge.clear();
    }

    /// Waits until the whole table has come in by each of so many queues; what came to the bridge until then.
    pub fn whole_table(&mut self, queues: usize) -> Rows {
        let (seen, missing) = self.look_for_table(queues);
        assert!(missing.is_empty(), "did not come in by the tap: {missing:?}");
        seen
    }

    /// What came to the bridge, and what has not come in by the tap within 30 s.
    pub fn look_for_table(&mut self, queues: usize) -> (Rows, Rows) {
        let start = std::time::Instant::now();
        let missing = loop {
            self.look();
            let came = &self.queues[..queues];
            let missing: Rows = came.iter().flat_map(|queue| self.all.difference(queue)).cloned().collect();
            if missing.is_empty() || start.elapsed().as_secs() >= 30 {
                break missing;
            }
        };
        // The kernel hands a frame to the tap's sockets, then to the guard and the bridge, in one go.
        self.look();
        let seen = self.bridge.clone();
        self.forget();
        (seen, missing)
    }
}
