# Real guests on hosts that have the deb: this machine's own root laid over, QEMU and libvirt in it, the lab's FRR
# around it. Sourced by tests/packages.
#
#     core 10.47.1.1, 10.47.2.1
#       /    \
#      h1    h2      br-l2 10.0.0.1/24 on both

nodes="core h1 h2"
hosts="h1 h2"

guest_cases() {
    guest_image
    fabric_up
    guest_case_qemu
    guest_case_libvirt
    guest_case_migrate
    guest_case_removed
    lab_down
}

# For tests/lab/fabric.sh, whose routers these are: each host has one uplink, to the core.
host_config() {
    cat <<CONF
[[bridge]]
name = "br-l2"
gateway = "10.0.0.1/24"
[fabric]
router-id = "$(loopback "$1")"
[[uplink]]
name = "core"
address = "10.47.${1#h}.2/30"
peer = "10.47.${1#h}.1"
switch-port = "$1"
switch-router-id = "$(loopback core)"
CONF
}
router_config() {
    local node
    case $1 in
        h?) in_node "$1" "$tap32" render frr ;;
        core) for node in $hosts; do in_node "$node" "$tap32" render switch frr; done ;;
    esac
}

fabric_up() {
    local node
    for node in $nodes; do
        node_up "$node"
    done
    for node in $hosts; do
        host_config "$node" >"$dir/$node/tap32.toml"
        link "${node#h}" core "$node"
        in_node "$node" "$tap32" setup >/dev/null
        fresh / "$node"
        mount --rbind /dev "$root_dir/dev"
        mount -t tmpfs tmpfs "$root_dir/run"
        mkdir -p "$root_dir/guest" "$root_dir$dir" "$root_dir/run/libvirt"
        cp "$lab"/{vmlinuz,initrd.gz} "$root_dir/guest/"
        # As a machine without us: whatever else it has.
        rm -f "$root_dir"/etc/libvirt/hooks/qemu.d/* "$root_dir/etc/libvirt/hooks/qemu" "$root_dir/etc/tap32.toml"
    done
    for node in $nodes; do
        frr_start "$node"
    done
    until_true 60 "OSPF between the hosts" in_node core ping -qc1 -W1 10.255.1.2
    until_true 60 "both hosts" neighbours core 2
}

# on HOST COMMAND...: in the host's root and network, with a /sys that shows that network's interfaces.
on() {
    local node=$1
    shift
    ip netns exec "$(ns "$node")" unshare -m sh -c 'mount -t sysfs sysfs "$0/sys" && exec chroot "$0" env -i PATH="$PATH" "$@"' \
        "$work/$node/root" "$@"
}

# dpkg_on HOST ARGUMENT...: in its network too, whose routes the package's scripts could touch.
dpkg_on() { quietly on "$1" dpkg "${@:2}"; }

# qemu HOST ADDRESS [OPTION...]: a guest with no script= at all; returns when the tap is set up.
qemu() {
    local node=$1 address=$2 mac
    shift 2
    mac=$("$tap32" encode "$address")
    on "$node" qemu-system-x86_64 -accel tcg -machine pc -cpu qemu64 -m 128 -display none -no-reboot -daemonize \
        -pidfile /guest/pid -kernel /guest/vmlinuz -initrd /guest/initrd.gz \
        -append "console=ttyS0 quiet panic=-1 addr=$address/24 gw=10.0.0.1" -serial file:/guest/console \
        -monitor unix:/guest/monitor,server=on,wait=off \
        -netdev tap,id=n0,ifname=vnet0 -device "virtio-net-pci,netdev=n0,romfile=,mac=$mac" "$@" >"$work/qemu.$node" 2>&1 ||
        { cat "$work/qemu.$node" >&2 && die "$case_name: QEMU did not start"; }
}
# monitor HOST COMMAND: what QEMU's monitor says to it.
monitor() { socat -t 1 - "UNIX-CONNECT:$work/$1/root/guest/monitor" <<<"$2"; }
qemu_stop() {
    kill "$(cat "$work/$1/root/guest/pid")"
    until_true 20 "the end of QEMU" sh -c "! ip -n $(ns "$1") link show vnet0"
}

# Judged by ip(8) of the machine, in the host's network.
routes() { in_node "$1" ip -o route show proto 132; }
routed() { [[ $(routes "$1") == *"$2 dev br-l2"* ]]; }
not_routed() { [ -z "$(routes "$1")" ]; }
no_taps() { [ -z "$(in_node "$1" ip -o link show type tun)" ]; }

# Pings every 10 ms and a watch over the routes of each host; `watching_ends` stops both.
watching() {
    local node
    ip netns exec "$(ns core)" ping -D -i 0.01 "$1" >"$work/pings" 2>&1 &
    pings=$!
    monitors=()
    for node in $hosts; do
        ip netns exec "$(ns "$node")" ip monitor route >"$work/events.$node" &
        monitors+=($!)
    done
    until_true 20 "the first answers" sh -c "[ \$(grep -c 'bytes from' '$work/pings') -gt 20 ]"
}
answered() { [ "$(date +%s)" -le "$(tail -1 "$work/pings" | sed -n 's/^\[\([0-9]*\).*bytes from.*/\1/p')" ]; }
watching_ends() {
    until_true 20 "the last answers" answered
    kill -INT "$pings"
    wait "$pings" || true
    kill "${monitors[@]}"
}
# Events about our routes so far, of this part's hosts: another part's files are still there.
events() {
    local node
    for node in $hosts; do
        grep -E 'proto (132|tap32)' "$work/events.$node" || true
    done
}
# The longest time between two answers, in ms.
longest_gap() {
    sed -n 's/^\[\([0-9.]*\)\] .*bytes from.*/\1/p' "$work/pings" |
        awk 'NR > 1 && $1 - last > gap { gap = $1 - last } { last = $1 } END { printf "%d\n", gap * 1000 }'
}
# Of those before the last answer: later ones may be under way.
lost() { sed -n 's/.*icmp_seq=\([0-9]*\) .*/\1/p' "$work/pings" | sort -nu | awk '{ n++; last = $1 } END { print last - n }'; }

guest_case_qemu() {
    case_name="a guest of QEMU without script="
    dpkg_on h1 -i /debs/older.deb
    check "no guest, no route" not_routed h1
    qemu h1 10.0.0.10
    check "routed" routed h1 10.0.0.10
    until_true 60 "the guest" grep -q 'is up' "$work/h1/root/guest/console"
    watching 10.0.0.10
    dpkg_on h1 -i /debs/tap32.deb
    check "upgraded" same "$(dpkg-deb -f "$packages"/*.deb Version)" "$(on h1 dpkg-query -Wf '${Version}' tap32)"
    watching_ends
    printf '  %s: upgraded under it: %s, longest gap %s ms, %s route events\n' "$case_name" \
        "$(grep 'packets transmitted' "$work/pings")" "$(longest_gap)" "$(events | wc -l)"
    check "no packet lost" same 0 "$(lost)"
    check "no route withdrawn or touched" same "" "$(events)"
    qemu_stop h1
    check "gone with the guest" not_routed h1
}

libvirtd_in() {
    local etc=$work/$1/root/etc/libvirt
    cat >"$etc/qemu.conf" <<'CONF'
security_driver = "none"
user = "root"
group = "root"
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
CONF
    on "$1" libvirtd --pid-file /run/libvirtd.pid >"$work/libvirtd.$1" 2>&1 </dev/null &
    until_true 30 "libvirtd" on "$1" virsh -q list
}

# create_on_h1 ON NAME: libvirt starts 10.0.0.20. ON is `on`, or `within` where systemd runs.
create_on_h1() {
    lab=/guest domain "$2" 10.0.0.20 >"$work/h1/root/guest/$2.xml"
    quietly "$1" h1 virsh create "/guest/$2.xml"
}
# next_is_routed ON: the first that starts after libvirt has read its hooks again, which it does in a thread of its own.
# Then the route is there before the guest runs.
next_is_routed() {
    create_on_h1 "$1" next
    ! routed h1 10.0.0.20 || return 0
    quietly "$1" h1 virsh destroy next
    return 1
}

guest_case_libvirt() {
    case_name="a guest of libvirt"
    dpkg_on h1 --purge tap32
    libvirtd_in h1
    create_on_h1 on before
    check "without the package: no route" not_routed h1
    quietly on h1 virsh destroy before
    dpkg_on h1 -i /debs/tap32.deb
    # What the package's postinst asks of systemd, which does not run here: libvirtd.service has ExecReload=kill -HUP.
    kill -HUP "$(cat "$work/h1/root/run/libvirtd.pid")"
    until_true 10 "a guest with a route" next_is_routed on
    check "the next guest is routed" routed h1 10.0.0.20
    quietly on h1 virsh destroy next
    check "gone with the guest" until_true 10 "the end of the route" not_routed h1
}

migration() { [[ $(monitor h1 'info migrate') == *"Migration status: $1"* ]]; }
claimed() { [[ $(routes h2) =~ 10.0.0.10\ dev\ br-l2\ .*metric\ 10\  ]]; }
settled() { routed h2 10.0.0.10 && ! claimed; }
# How many times answers stopped for more than one ping.
gaps() {
    sed -n 's/.*icmp_seq=\([0-9]*\) .*/\1/p' "$work/pings" | sort -n | uniq | awk 'NR > 1 && $1 > last + 1 { n++ } { last = $1 } END { print n + 0 }'
}

guest_case_migrate() {
    case_name="both hosts upgraded while a guest migrates"
    local node seen
    for node in $hosts; do
        dpkg_on "$node" --purge tap32
        dpkg_on "$node" -i /debs/older.deb
    done
    qemu h1 10.0.0.10
    until_true 60 "the guest" grep -q 'is up' "$work/h1/root/guest/console"
    qemu h2 10.0.0.10 -incoming tcp:0:4444
    watching 10.0.0.10
    check "attached on both, and routed where it runs" sh -c "[ -z \"$(routes h2)\" ]"
    monitor h1 'migrate_set_parameter max-bandwidth 8m' >/dev/null
    monitor h1 'migrate -d tcp:10.255.1.2:4444' >/dev/null
    until_true 10 "the migration" migration active
    for node in $hosts; do
        dpkg_on "$node" -i /debs/tap32.deb
    done
    check "it was under way all the time" migration active
    seen=$(events)
    check "no route withdrawn or touched by the upgrades" same "" "$seen"
    monitor h1 'migrate_set_parameter max-bandwidth 10g' >/dev/null
    until_true 30 "the end of the migration" migration completed
    until_true 10 "the claim" claimed
    watching_ends
    printf '  %s: %s, longest gap %s ms\n' "$case_name" "$(grep 'packets transmitted' "$work/pings")" "$(longest_gap)"
    check "nothing lost but in the migration's own gap" sh -c "[ $(gaps) -le 1 ]"
    check "which is short" sh -c "[ $(longest_gap) -lt 1000 ]"
    qemu_stop h1
    until_true 20 "the claim's end" settled
    check "settled" settled
    qemu_stop h2
}

guest_case_removed() {
    case_name="removed"
    dpkg_on h1 --purge tap32
    qemu h1 10.0.0.10
    check "QEMU calls Debian's script again" grep -q 'no bridge for guest interface' "$work/qemu.h1"
    check "its guest is not routed" not_routed h1
    qemu_stop h1
    create_on_h1 on after
    check "libvirt's guest is not routed" not_routed h1
    quietly on h1 virsh destroy after
}
