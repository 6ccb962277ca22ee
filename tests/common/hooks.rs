//! tap32 called as libvirt calls its hook.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use super::{Host, TAP32, text};

/// The XML of a domain with a NIC on br-l2, whose tap libvirt has not made yet or calls `tap`, and two that are not
/// tap32's.
pub fn domain(mac: &str, tap: Option<&str>) -> String {
    let target = tap.map(|tap| format!("<target dev='{tap}'/>")).unwrap_or_default();
    format!(
        "<domain type='kvm'><name>g1</name><devices>\
         <interface type='bridge'><mac address='{mac}'/><source bridge='br-l2'/>{target}</interface>\
         <interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='virbr0'/></interface>\
         <interface type='network'><mac address='52:54:00:00:00:02'/><source network='default'/></interface>\
         </devices></domain>"
    )
}

/// Process ids of the claimers in a namespace.
pub fn claimers(host: &Host) -> Vec<String> {
    let pids = host.ok(&format!("ip netns pids {}", host.name));
    let is_claimer = |pid: &&str| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| text(&line).starts_with("tap32\0arrival\0"))
    };
    pids.split_whitespace().filter(is_claimer).map(str::to_owned).collect()
}

/// tap32 where libvirt looks for hooks, and a configuration whose claims settle in a second.
pub struct Hooks(PathBuf);

impl Hooks {
    pub fn new(host: &Host) -> Self {
        let folder = std::env::temp_dir().join(format!("{}-hooks", host.name));
        std::fs::create_dir_all(folder.join("qemu.d")).unwrap();
        std::os::unix::fs::symlink(TAP32, folder.join("qemu.d/50-tap32")).unwrap();
        let hooks = Self(folder);
        hooks.configure("[migration]\nsettle = \"1s\"\ntimeout = \"30s\"\n");
        hooks
    }

    pub fn configure(&self, toml: &str) {
        std::fs::write(self.file(), toml).unwrap();
    }

    /// The file that the hook reads.
    pub fn file(&self) -> PathBuf {
        self.0.join("tap32.toml")
    }

    pub fn call(&self, host: &Host, operation: &str, xml: &str) -> Output {
        self.call_after(host, "", operation, xml)
    }

    /// After the shell's lines `prelude`, in a mount namespace of its own.
    pub fn call_after(&self, host: &Host, prelude: &str, operation: &str, xml: &str) -> Output {
        let mut hook = host.command("sh");
        hook.args(["-ec", &format!("{prelude}\nexec \"$@\""), "sh"]).arg(self.0.join("qemu.d/50-tap32"));
        hook.args(["g1", operation, "begin", "-"]).env("TAP32_CONFIG", self.file());
        let mut child = hook.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A hook that does not read is free to.
        let _ = child.stdin.take().unwrap().write_all(xml.as_bytes());
        let output = child.wait_with_output().unwrap();
        assert_eq!(text(&output.stdout), "", "{operation}: a hook prints nothing on stdout");
        output
    }

    pub fn ok(&self, host: &Host, operation: &str, xml: &str) {
        let output = self.call(host, operation, xml);
        assert!(output.status.success() && output.stderr.is_empty(), "{operation}: {}", text(&output.stderr));
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
