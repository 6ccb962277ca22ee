# Hosts whose systemd runs: a root of tests/roots.sh in a container of systemd-nspawn, in the network namespace of a node
# of the lab, with the deb, FRR and guests. Sourced by tests/packages; year.sh and boot.sh use it.

# boot_root RELEASE NODE: $root_dir is a root of that host's own, which boots.
boot_root() {
    fresh "$roots/$1" "$2"
    inside systemctl disable -q firewalld ufw prometheus apt-daily.timer apt-daily-upgrade.timer
    inside systemctl enable -q libvirtd frr
    # What is not of a network is the machine's, and no container's to change.
    find "$root_dir/usr/lib/sysctl.d" -type f ! -name '*tap32*' -delete
    mkdir -p "$root_dir/etc/systemd/system/systemd-udev-trigger.service.d"
    printf '[Service]\nExecStart=\nExecStart=udevadm trigger --type=all --action=add --subsystem-match=net\n' \
        >"$root_dir/etc/systemd/system/systemd-udev-trigger.service.d/net.conf"
    # No guest of ours listens to ACPI: libvirt-guests would wait for it for five minutes. Debian 13's libvirtd, whose guest
    # is killed then, ends after 30 s only, with our hook and without (measured).
    echo SHUTDOWN_TIMEOUT=1 >"$root_dir/etc/default/libvirt-guests"
    mkdir -p "$root_dir/etc/systemd/system/libvirtd.service.d"
    printf '[Service]\nTimeoutStopSec=3\n' >"$root_dir/etc/systemd/system/libvirtd.service.d/stop.conf"
    mkdir -p "$root_dir/etc/systemd/logind.conf.d"
    printf '[Login]\nInhibitDelayMaxSec=1\n' >"$root_dir/etc/systemd/logind.conf.d/delay.conf"
}

# guest_files NODE [WORD...]: what FRR and both guests need. Of the unit `guest`, which QEMU runs, the words go to its
# kernel: its address, without which it asks DHCP.
guest_files() {
    local node=$1 number=${1#h} mac
    mkdir -p "$root_dir/guest" "$root_dir$dir" "$root_dir/etc/libvirt/qemu/autostart"
    cp "$lab"/{vmlinuz,initrd.gz} "$root_dir/guest/"
    in_node "$node" "$tap32" render frr >"$root_dir/etc/frr/frr.conf"
    sed -i 's/^\(ospfd\|bfdd\)=no/\1=yes/' "$root_dir/etc/frr/daemons"
    printf '%s = %s\n' security_driver '"none"' user '"root"' group '"root"' remember_owner 0 namespaces '[]' \
        cgroup_controllers '[]' >>"$root_dir/etc/libvirt/qemu.conf"
    lab=/guest domain guest "10.0.0.${number}1" >"$root_dir/etc/libvirt/qemu/guest.xml"
    mac=$("$tap32" encode "10.0.0.${number}0")
    cat >"$root_dir/etc/systemd/system/guest.service" <<UNIT
[Unit]
After=tap32-setup.service network.target
[Service]
ExecStart=qemu-system-x86_64 -accel tcg,thread=single -machine pc -cpu qemu64 -m 128 -display none -no-reboot \\
    -kernel /guest/vmlinuz -initrd /guest/initrd.gz -serial file:/guest/console -monitor none \\
    -append "console=ttyS0 quiet panic=-1 ${*:2}" \\
    -netdev tap,id=n0,ifname=tap0 -device virtio-net-pci,ioeventfd=off,netdev=n0,romfile=,mac=$mac
Restart=on-failure
[Install]
WantedBy=multi-user.target
UNIT
}

# patient_config NODE: a machine with other work to do may lose two packets of BFD's in a row.
patient_config() {
    host_config "$1" | sed 's/^\[fabric\]/&\nbfd = { interval-ms = 300, multiplier = 4 }/' >"$dir/$1/tap32.toml"
}

# plug NODE: wires the host to the core.
plug() {
    wire core "$1"
    in_node core ip addr replace "10.47.${1#h}.1/30" dev "$1"
}

# boot NODE: returns when its systemd has started what it should.
boot() {
    local node=$1
    mkdir -p "$work/$node/netns"
    # nspawn brings one of its own.
    ! mountpoint -q "$work/$node/root/proc" || umount "$work/$node/root/proc"
    # In a control group of its own, which two systemds do not share. systemd's units of udev want a /sys that can be
    # written to; it shows the interfaces of the network namespace in which it is mounted.
    SYSTEMD_NSPAWN_API_VFS_WRITABLE=1 unshare -m --propagation private bash -ec '
        for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
            [ -f "$hierarchy/cgroup.procs" ] || continue
            mkdir -p "$hierarchy/tap32-$2"
            echo $$ >"$hierarchy/tap32-$2/cgroup.procs"
        done
        mount --rbind /run/netns "$0/netns" && mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system
        exec nsenter --net="$0/netns/$1" systemd-nspawn -q -b -D "$0/root" --register=no --keep-unit \
            --capability=all --bind=/dev/net/tun --network-namespace-path="$0/netns/$1" \
            --console=pipe --machine="tap32-$2"' \
        "$work/$node" "$(ns "$node")" "$$-$node" >"$work/$node.boot" 2>&1 </dev/null &
    echo $! >"$work/$node.nspawn"
    # Nobody waits for it, or says that it was killed.
    disown $!
    until_true 20 "systemd of $node" first_process "$node"
    until_true 60 "the boot of $node" booted "$node"
}
first_process() {
    local nspawn
    nspawn=$(cat "$work/$1.nspawn")
    for pid in $(cat "/proc/$nspawn/task/$nspawn/children"); do
        [ "$(cat "/proc/$pid/comm")" != systemd ] || { echo "$pid" >"$work/$1.pid" && return; }
    done
    return 1
}
# within NODE COMMAND...: in the host that runs.
within() {
    nsenter -a -t "$(cat "$work/$1.pid")" \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C "${@:2}" </dev/null
}
booted() { [[ $(within "$1" systemctl is-system-running 2>&1) =~ ^(running|degraded)$ ]]; }
reached() {
    local address
    for address; do
        in_node core ping -qc1 -W1 "$address" || return
    done
}

# unplug NODE: the host's power goes, and with it all that is in its network namespace, which is made anew. All that
# runs in there is its own, its first process too.
unplug() {
    local group pids
    pids=$(ip netns pids "$(ns "$1")")
    # Those behind the first one go with it.
    kill -KILL $pids 2>/dev/null || true
    for group in /sys/fs/cgroup{,/systemd,/unified}/tap32-$$-$1; do
        [ ! -d "$group" ] || until_true 20 "the end of $1" find "$group" -depth -type d -delete
    done
    ip netns del "$(ns "$1")"
    node_up "$1"
    until_true 20 "the end of its wire" sh -c "! ip -n '$(ns core)' link show '$1'"
}
