//! A host of its own for `doctor`: a network namespace, and in it an /etc, a /usr/sbin, a /run that only it sees, so
//! that what breaks them and what fixes them breaks and fixes nothing else. The commands that fix are run there.

use std::process::{Output, Stdio};

use serde_json::Value;

use super::setup::Folder;
use super::{Background, Host, TAP32, string, text, wait_for};

pub struct View {
    pub folder: Folder,
    holder: Background,
    pub host: Host,
}

/// One fault and how it shows.
pub struct Fault {
    /// The row that must find it.
    pub check: &'static str,
    pub verdict: &'static str,
    /// Part of what the row says.
    pub seen: &'static str,
    /// A shell line that makes it.
    pub inject: &'static str,
    /// A shell line, of other programs than tap32, that succeeds only while all is well.
    pub judge: &'static str,
}

/// `service` and `systemctl` of a machine that has neither: they start what was put under `bin` by that name.
const SERVICE: &str = "#!/bin/sh
case $1 in restart) name=$2 ;; *) name=$1 ;; esac
[ -x FOLDER/bin/$name ] || exit 0
[ ! -f FOLDER/$name.pid ] || kill $(cat FOLDER/$name.pid) 2>/dev/null
FOLDER/bin/$name infinity </dev/null >/dev/null 2>&1 &
echo $! >FOLDER/$name.pid
";

impl View {
    /// The namespace has two cards and the configuration `config` in /etc/tap32.toml; tap32 is in /usr/sbin.
    pub fn new(config: &str) -> Self {
        let host = Host::bare();
        let folder = Folder::new(&host);
        let at = folder.0.display().to_string();
        folder.write("tap32.toml", config);
        for stub in ["service", "systemctl"] {
            folder.write(&format!("bin/{stub}"), &SERVICE.replace("FOLDER", &at));
        }
        // An editor whose user takes the line out that it is opened at.
        folder.write("bin/vi", "#!/bin/sh\nexec sed -i \"${1#+}s/^/# /\" \"$2\"\n");
        // dpkg's own records, empty.
        for file in ["status", "diversions", "statoverride", "info/format"] {
            folder.write(&format!("dpkg/{file}"), "");
        }
        let over = |path: &str, name: &str| {
            format!(
                "mkdir -p {at}/{name}/up {at}/{name}/work && \
                 mount -t overlay none -o lowerdir={path},upperdir={at}/{name}/up,workdir={at}/{name}/work {path} && "
            )
        };
        let script = over("/etc", "etc")
            + &over("/usr/sbin", "sbin")
            + &format!(
                "mount -t tmpfs none /run && mount --bind {at}/dpkg /var/lib/dpkg && mount -t tmpfs none /sys/module && \
                 mkdir -p /sys/module/apparmor/parameters && chmod 755 {at}/bin/* && rm -rf /etc/libvirt && \
                 cp {at}/tap32.toml /etc/tap32.toml && cp {TAP32} /usr/sbin/tap32 && touch {at}/ready && \
                 exec sleep infinity"
            );
        let child = host.command("unshare").args(["-m", "sh", "-c", &script]).stderr(Stdio::inherit()).spawn().unwrap();
        let view = Self { holder: Background(child), folder, host };
        wait_for("a view of its own", 10, || view.folder.0.join("ready").exists());
        view
    }

    /// Runs a shell line there.
    pub fn run(&self, line: &str) -> Output {
        let path = format!("PATH={}/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", self.folder.0.display());
        let pid = self.holder.0.id().to_string();
        let mut nsenter = std::process::Command::new("nsenter");
        nsenter.args([
            "-t",
            &pid,
            "-m",
            "-n",
            "env",
            "-u",
            "TAP32_CONFIG",
            "-u",
            "RUST_BACKTRACE",
            "-u",
            "EDITOR",
            &path,
            "sh",
            "-c",
            line,
        ]);
        nsenter.stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a shell line that must succeed.
    pub fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    pub fn is(&self, judge: &str) -> bool {
        self.run(judge).status.success()
    }

    /// Every row of `doctor --json`; the exit code must be the one that the rows ask for.
    pub fn rows(&self) -> Vec<Value> {
        let output = self.run("tap32 doctor --json");
        let answer: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
        let rows = answer["checks"].as_array().unwrap().clone();
        let fails = rows.iter().any(|row| row["verdict"] == "fail");
        assert_eq!(output.status.code(), Some(i32::from(fails)), "{}", text(&output.stderr));
        rows
    }

    pub fn row(&self, check: &str) -> Option<Value> {
        self.rows().into_iter().find(|row| row["check"] == check)
    }

    /// What is not ok.
    pub fn wrong(&self) -> Vec<String> {
        self.rows().iter().filter(|row| row["verdict"] != "ok").map(|row| string(&row["check"])).collect()
    }

    /// Waits until the row says something else than `verdict`, or is gone.
    fn wait_until_gone(&self, check: &str, verdict: &str) {
        let mut last = None;
        let start = std::time::Instant::now();
        while start.elapsed().as_secs() < 30 {
            last = self.row(check).filter(|row| row["verdict"] == verdict);
            if last.is_none() {
                return;
            }
        }
        panic!("{check} is still there: {}", last.unwrap_or_default());
    }

    /// Injects a fault, finds it, runs what doctor prints to fix it, and is well again: as before, says doctor;
    /// right, says another program.
    pub fn survives(&self, fault: &Fault, well: &[String]) {
        let Fault { check, verdict, seen, inject, judge } = fault;
        // doctor looks at the host, and the fabric comes after it: 50 ms at a BGP switch.
        wait_for(&format!("{judge}, before {inject}"), 20, || self.is(judge));
        self.ok(inject);
        wait_for(&format!("{inject} breaks {judge}"), 20, || !self.is(judge));
        let found = || {
            let row = self.row(check).filter(|row| row["verdict"] == *verdict && row["fix"].is_string());
            row.filter(|row| string(&row["seen"]).contains(seen))
        };
        let mut row = None;
        wait_for(&format!("{check} {verdict} after {inject}"), 20, || {
            row = found();
            row.is_some()
        });
        let fix = string(&row.unwrap()["fix"]);
        assert!(!fix.is_empty(), "{check}: nothing fixes it");
        self.ok(&fix);
        self.wait_until_gone(check, verdict);
        wait_for(&format!("{judge}, after {fix}"), 20, || self.is(judge));
        self.fix_the_rest(well);
        println!("{check}: {inject} | {fix}");
    }

    /// One fault has others in its train: what doctor prints fixes those too.
    fn fix_the_rest(&self, well: &[String]) {
        let mut tried = Vec::new();
        wait_for("all is as before", 60, || {
            let rows = self.rows();
            let mut rest = rows.iter().filter(|row| row["verdict"] != "ok" && !well.contains(&string(&row["check"])));
            let Some(row) = rest.clone().next() else { return true };
            let next = rest.find(|row| row["fix"].is_string() && !tried.contains(&string(&row["fix"])));
            match next {
                Some(row) => {
                    let fix = string(&row["fix"]);
                    self.ok(&fix);
                    tried.push(fix);
                }
                None => eprintln!("waiting for {row}"),
            }
            false
        });
    }
}
