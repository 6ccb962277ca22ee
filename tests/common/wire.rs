//! What QEMU is to a guest that is a namespace: its eth0 and the host's tap are the two ends of a wire.

use std::process::Stdio;

use super::{Background, Host, wait_for};

/// Carries frames between a tap of this namespace and another's eth0 until stdin closes.
const WIRE: &str = "import ctypes, fcntl, os, select, struct, sys
def tap(name):
    fd = os.open('/dev/net/tun', os.O_RDWR)
    fcntl.ioctl(fd, 0x400454ca, struct.pack('16sH22x', name.encode(), 0x1002))
    return fd
here = tap(sys.argv[1])
assert ctypes.CDLL(None).setns(os.open('/run/netns/' + sys.argv[2], os.O_RDONLY), 0x40000000) == 0
there = tap('eth0')
while True:
    ready, _, _ = select.select([here, there, 0], [], [])
    if 0 in ready:
        sys.exit()
    for fd in ready:
        try:
            os.write(there if fd == here else here, os.read(fd, 65536))
        except OSError:
            pass # an end that is down
";

/// The wire between the host's tap and the guest's eth0, which it makes where there is none. It goes when it is dropped.
pub fn wire(host: &Host, tap: &str, guest: &Host) -> Background {
    let mut python = host.command("python3");
    let wire = Background(python.args(["-c", WIRE, tap, &guest.name]).stdin(Stdio::piped()).spawn().unwrap());
    wait_for("the guest's eth0", 10, || !guest.link("eth0").is_null());
    wire
}
