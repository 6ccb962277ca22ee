//! A host that forwards between two guests on its bridge and a peer behind eth0, and what doctor says of its firewall.

use super::view::View;
use super::{Background, string, wait_for};

const CONFIG: &str = r#"[[bridge]]
name = "br-l2"
gateway = "10.0.0.1/24"
"#;

/// Answers TCP on port 80.
const SERVER: &str = "import socket
s = socket.create_server(('', 80))
while True: s.accept()[0].close()";

/// A host between two guests on its bridge and a peer behind eth0; each is a namespace.
pub struct Net {
    pub view: View,
    pub peer: Background,
    pub guests: [Background; 2],
    _servers: Vec<Background>,
}

impl Net {
    pub fn new() -> Self {
        let view = View::new(CONFIG);
        let hold = || Background(view.host.command("unshare").args(["-n", "sleep", "infinity"]).spawn().unwrap());
        let (peer, guests) = (hold(), [hold(), hold()]);
        view.ok("tap32 setup && sysctl -qw net.ipv4.ip_forward=1");
        let join = |holder: &Background, port: &str, address: &str, gateway: &str| {
            let pid = holder.0.id();
            // The holder has its namespace once it sleeps.
            wait_for("a namespace", 10, || view.is(&format!("grep -q sleep /proc/{pid}/comm")));
            view.ok(&format!(
                "ip link add {port} type veth peer name eth0 netns {pid} && ip link set {port} up && \
                 nsenter -t {pid} -n sh -ec 'ip link set lo up; ip addr add {address} dev eth0; ip link set eth0 up; \
                 ip route add default via {gateway}'"
            ));
        };
        join(&peer, "eth0", "192.0.2.9/24", "192.0.2.1");
        view.ok("ip addr add 192.0.2.1/24 dev eth0");
        for (at, guest) in guests.iter().enumerate() {
            join(guest, &format!("guest{at}"), &format!("10.0.0.1{at}/24"), "10.0.0.1");
            view.ok(&format!("ip link set guest{at} master br-l2 && bridge link set dev guest{at} isolated on"));
        }
        let serve = |holder: &Background| {
            let pid = holder.0.id().to_string();
            let mut server = std::process::Command::new("nsenter");
            Background(server.args(["-t", &pid, "-n", "python3", "-c", SERVER]).spawn().unwrap())
        };
        let servers = [&peer, &guests[0], &guests[1]].map(serve).into_iter().collect();
        let net = Self { view, peer, guests, _servers: servers };
        wait_for("all reach each other", 20, || net.passing() == [true; 3]);
        net
    }

    /// Whether TCP passes to a guest, from a guest, and from one guest to another. A ping is not enough: ufw lets it
    /// through.
    pub fn passing(&self) -> [bool; 3] {
        let [first, second] = &self.guests;
        let connects = |from: &Background, to: &str, at: usize| {
            let enter = format!("nsenter -t {} -n", from.0.id());
            format!(
                "( {enter} timeout 1 bash -c '</dev/tcp/{to}/80' && {enter} ping -qc1 -W1 {to} && touch /run/passes{at} ) & "
            )
        };
        let all = [(&self.peer, "10.0.0.10"), (first, "192.0.2.9"), (second, "10.0.0.10")];
        let all = all.iter().enumerate().map(|(at, (from, to))| connects(from, to, at)).collect::<String>();
        self.view.ok(&format!("rm -f /run/passes*; {all} wait"));
        [0, 1, 2].map(|at| self.view.is(&format!("test -e /run/passes{at}")))
    }

    /// What passes, once it is as wanted or after twenty looks: on a busy machine a connection can take longer than the
    /// second that `passing` gives it, and looks like one that a firewall drops.
    pub fn passing_at_last(&self, wanted: [bool; 3]) -> [bool; 3] {
        (0..20).map(|_| self.passing()).find(|seen| *seen == wanted).unwrap_or_else(|| self.passing())
    }

    /// That all passes and doctor has no row.
    pub fn is_well(&self, when: &str) {
        assert_eq!((self.passing_at_last([true; 3]), self.rows()), ([true; 3], Vec::new()), "{when}");
    }

    /// Whether all passes and doctor has no row, with the rules of an iptables, which are separated by `; `.
    pub fn is_well_with(&self, program: &str, rules: &str) {
        for rule in rules.split("; ") {
            self.view.ok(&format!("{program} {rule}"));
        }
        self.is_well(&format!("{program} {rules}"));
        self.view.ok(&format!("{program} -P FORWARD ACCEPT; {program} -F; {program} -X"));
    }

    /// The rows about forward chains that are not ok, as (check, verdict, seen, fix).
    pub fn rows(&self) -> Vec<[String; 4]> {
        let rows = self.view.rows().into_iter();
        let of = |row: &serde_json::Value| string(&row["check"]).starts_with("forward chain") && row["verdict"] != "ok";
        rows.filter(of)
            .map(|row| ["check", "verdict", "seen", "fix"].map(|key| row[key].as_str().unwrap_or("none").to_owned()))
            .collect()
    }

    /// A firewall that `inject` makes lets no new connection pass in the ways that are `false`; doctor says so in one
    /// row, and its command, run as it stands, lets all pass.
    pub fn survives(&self, inject: &str, check: &str, verdict: &str, fix: &str, blocked: [bool; 3]) {
        self.is_well(&format!("before {inject}"));
        self.view.ok(inject);
        assert_eq!(self.passing_at_last(blocked), blocked, "{inject}");
        let rows = self.rows();
        let [[of, is, seen, command]] = &rows[..] else { panic!("{inject}: {rows:?}") };
        assert_eq!((of.as_str(), is.as_str()), (check, verdict), "{inject}: {seen}");
        assert!(command.contains(fix), "{inject}: {command}");
        println!("{inject}\n    {is} {of}: {seen}\n    {command}");
        self.view.ok(command);
        self.is_well(&format!("after {command}"));
    }
}

/// What passes where all is dropped.
pub const NOTHING: [bool; 3] = [false; 3];

pub fn table(lines: &str) -> String {
    format!("nft 'table inet filter {{ chain forward {{ type filter hook forward priority 0; {lines} }}; }}'")
}
