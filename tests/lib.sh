# What the scripts of tests/ share: installing what they need, building, the guest image.
# Sourced by bash; works on Debian and its kin, as root, also through sudo.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
lab=$root/target/lab
tap32=$root/target/x86_64-unknown-linux-gnu/release/tap32
export DEBIAN_FRONTEND=noninteractive
unset TAP32_CONFIG RUST_BACKTRACE

say() { printf '\n== %s\n' "$*" >&2; }
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# until_true SECONDS WHAT COMMAND...: polls for at most so long.
until_true() {
    local limit=$1 what=$2 end=$((SECONDS + $1))
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || die "$what: not within $limit s"
        sleep 0.1
    done
}

need_root() {
    [ "$(id -u)" = 0 ] || die "needs root, for network namespaces: sudo $0"
}

# need PROGRAM=PACKAGE ...: installs the packages whose programs are missing; one that stays missing is an error.
need() {
    local pair missing=()
    for pair; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        say "installing ${missing[*]}"
        command -v apt-get >/dev/null || die "missing: ${missing[*]}; this script can install them on Debian only"
        apt-get update -qq >&2
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || die "apt-get could not install ${missing[*]}"
    fi
    for pair; do
        command -v "${pair%%=*}" >/dev/null || die "${pair%%=*} is still missing after installing ${pair#*=}"
    done
}

# What the tests run, as PROGRAM=PACKAGE; tests/roots.sh installs it into the roots of other releases.
suite="ip=iproute2 bridge=iproute2 ss=iproute2 nft=nftables ping=iputils-ping sysctl=procps pkill=procps jq=jq
    strace=strace setpriv=util-linux nsenter=util-linux chrt=util-linux script=bsdutils python3=python3
    qemu-system-x86_64=qemu-system-x86 libvirtd=libvirt-daemon-system virsh=libvirt-clients vtysh=frr
    promtool=prometheus systemd-analyze=systemd gnuplot=gnuplot-nox iptables-nft=iptables ufw=ufw firewalld=firewalld
    dbus-daemon=dbus udevadm=udev dnsmasq=dnsmasq-base busybox=busybox-static cpio=cpio"

# as_user COMMAND: as the one who called sudo, whose Rust it is, and who should own target/.
as_user() {
    if [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ]; then
        sudo -u "$SUDO_USER" -H env PATH="$(getent passwd "$SUDO_USER" | cut -d: -f6)/.cargo/bin:$PATH" "$@"
    else
        PATH="$HOME/.cargo/bin:$PATH" "$@"
    fi
}

build() {
    as_user sh -c 'command -v cargo' >/dev/null || die "cargo is missing: install Rust first, https://rustup.rs or apt install rustup"
    # The C linker, which Rust needs too.
    need cc=gcc make=make
    say "building tap32"
    as_user cargo build --release --locked
    mkdir -p "$lab"
}

# Built by the user, run as root: every test program that cargo names.
build_tests() {
    say "building the tests"
    as_user cargo test --locked --no-run --message-format=json-render-diagnostics |
        jq -r 'select(.profile.test == true and .executable != null) | .target.name + " " + .executable' >"$lab/programs.new"
    mv "$lab/programs.new" "$lab/programs"
}

# list_tests --ignored|--include-ignored [WORD...]: those whose names hold one of the words, FILE::NAME PROGRAM.
# Ignored are those that need root.
list_tests() {
    local which=$1 file program name word
    shift
    while read -r file program; do
        "$program" --list --format terse "$which" | sed -n 's/: test$//p' | while read -r name; do
            for word in "${@:-::}"; do
                [[ $file::$name != *"$word"* ]] || { echo "$file::$name $program" && break; }
            done
        done
    done <"$lab/programs"
}

# results_of PLATFORM [WORD...]: the folder for what became of the tests. Only whole runs are tests/platforms' matter.
results_of() { echo "$lab/$([ $# -gt 1 ] && echo filtered || echo results)/$1"; }

# A Debian cloud kernel and an initrd of one busybox: boots in seconds without KVM, answers pings.
guest_image() {
    [ -s "$lab/initrd.gz" ] && [ "$lab/initrd.gz" -nt "$root/tests/lib.sh" ] &&
        [ "$lab/initrd.gz" -nt "$root/tests/lab/hostile.c" ] && return
    need busybox=busybox-static cpio=cpio gzip=gzip xz=xz-utils cc=gcc
    say "making the guest image"
    mkdir -p "$lab"
    local work package
    work=$(mktemp -d)
    apt-get update -qq >&2
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
    [ -n "$package" ] || die "apt knows no linux-image-cloud-amd64"
    (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$package" && dpkg -x "$package"*.deb kernel)
    mkdir -p "$work"/initrd/{bin,proc,sys,dev,modules}
    cp "$(command -v busybox)" "$work/initrd/bin/busybox"
    dhcp_script >"$work/initrd/bin/dhcp"
    chmod +x "$work/initrd/bin/dhcp"
    cc -O2 -Wall -Wextra -static -o "$work/initrd/bin/hostile" "$root/tests/lab/hostile.c"
    local module
    for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci failover net_failover virtio_net; do
        module_of "$work/kernel" "$module" "$work/initrd/modules"
    done
    host_image "$work"
    cat >"$work/initrd/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
for m in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci failover net_failover virtio_net; do
    $b insmod /modules/$m.ko
done
for word in $($b cat /proc/cmdline); do
    case $word in
        addr=*) addr=${word#addr=} ;;
        gw=*) gw=${word#gw=} ;;
        peer=*) peer=${word#peer=} ;;
        run=*) run=${word#run=} ;;
    esac
done
$b ip link set lo up
# Told nothing: what DHCP says for each NIC, and again every second.
if [ -z "$addr" ]; then
    $b mount -t sysfs sysfs /sys
    $b mount -t devtmpfs devtmpfs /dev
    for nic in /sys/class/net/eth*; do
        $b ip link set "${nic##*/}" up
        peer=$peer $b udhcpc -f -i "${nic##*/}" -t 100 -T 1 -s /bin/dhcp >/dev/null 2>&1 &
        clients="$clients $!"
    done
    while :; do $b sleep 1 && kill -USR1 $clients; done
fi
$b ip link set eth0 up
$b ip addr add "$addr" dev eth0
$b ip route add default via "$gw"
echo "guest $addr is up"
# Such as hostile, at the console.
[ -z "$run" ] || exec "$run"
# A line for each answer: "64 bytes from 10.0.0.11: seq=7 ...".
[ -z "$peer" ] || $b ping -i 0.1 "$peer"
while :; do $b sleep 3600; done
INIT
    chmod +x "$work/initrd/init"
    (cd "$work/initrd" && find . | cpio -o -H newc 2>/dev/null | gzip -9) >"$lab/initrd.new"
    cp "$(find "$work/kernel/boot" -name 'vmlinuz-*' | head -1)" "$lab/vmlinuz"
    mv "$lab/initrd.new" "$lab/initrd.gz"
    rm -rf "$work"
}

# What udhcpc calls in the guest. Each NIC answers by itself, for the guard drops another one's address.
dhcp_script() {
    cat <<'SCRIPT'
#!/bin/busybox sh
b=/bin/busybox
echo "dhcp $1 $interface $ip/$mask from $serverid" >/dev/console
[ "$1" = bound ] || exit 0
$b ip addr add "$ip/$mask" dev "$interface"
$b ip route add default via "$router" dev "$interface" table "10${interface#eth}"
$b ip rule add from "$ip" table "10${interface#eth}"
[ "$interface" != eth0 ] || $b ip route add default via "$router"
[ -z "$peer" ] || [ "$interface" != eth0 ] || $b ping -i 0.1 "$peer" >/dev/console &
SCRIPT
}

# module_of KERNEL NAME FOLDER: unpacks a kernel module.
module_of() {
    local file
    file=$(find "$1" -name "$2.ko*" | head -1)
    [ -n "$file" ] || die "the kernel in $1 has no module $2"
    case $file in
        *.xz) xz -dc "$file" >"$3/$2.ko" ;;
        *) cp "$file" "$3/$2.ko" ;;
    esac
}

# host_image WORK: what tests/vrf.rs boots with the same kernel, without an init: busybox, ip, and the modules of the
# interfaces that this machine's own kernel may lack, with their order.
host_image() {
    local module library root_dir=$1/host
    mkdir -p "$root_dir"/{bin,proc,sys,dev,modules}
    cp "$(command -v busybox)" "$(command -v ip)" "$root_dir/bin"
    ldd "$(command -v ip)" | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$root_dir${library%/*}"
        cp -L "$library" "$root_dir$library"
    done
    for module in unix_diag llc stp bridge dummy veth tun vrf tls bonding garp mrp 8021q macvlan udp_tunnel ip6_udp_tunnel vxlan \
        cls_bpf sch_ingress; do
        module_of "$1/kernel" "$module" "$root_dir/modules"
        echo "$module" >>"$root_dir/modules/order"
    done
    (cd "$root_dir" && find . | cpio -o -H newc 2>/dev/null | gzip -9) >"$lab/host.gz"
}

# in_a_room COMMAND...: what it makes goes with it, however it ends or we do: its processes, mounts, network namespaces and
# temporary files are in namespaces of its own, which the kernel takes away with their first process. Only the control
# groups of hosts that booted stay if we are killed, and they are empty.
in_a_room() {
    # What they write into target/lab would be mixed.
    exec 9>"$lab/lock"
    flock -n 9 || die "another run of the tests uses $lab: wait for its end"
    env --default-signal TAP32_ROOM=1 setpriv --pdeathsig KILL unshare --mount --pid --kill-child --mount-proc \
        sh -ec 'mkdir -p /run/netns; for d in /run/netns /tmp /var/tmp; do mount -t tmpfs tmpfs $d; done; exec "$@"' sh "$@" &
    # shellcheck disable=SC2064 # this one, whatever is started later
    trap "kill -KILL $!" INT TERM HUP
    wait $!
}

# Namespaces of earlier runs that were killed; their names carry the process id.
sweep() {
    local name pid
    ip netns list | cut -d' ' -f1 | { grep -E '^tap32(lab)?-[0-9]' || true; } | while read -r name; do
        pid=${name#*-}
        pid=${pid%%-*}
        if [ ! -d "/proc/$pid" ]; then
            ip netns pids "$name" | xargs -r kill -9
            ip netns del "$name"
            rm -rf "/var/tmp/tap32-lab/$pid"
        fi
    done
}
