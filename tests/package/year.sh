# What a host does to its interfaces in a year, done to two hosts with guests: Debian 12 with a systemd that runs, as a
# container. One host has tap32-watch, the other has not. Sourced by tests/packages; tests/package/year.py does it.
#
#     core 10.47.1.1, 10.47.2.1
#       /    \
#      h1    h2      without watch, with watch; each with a guest of QEMU and one of libvirt

# Who makes the bridge and the uplink's address.
managers="setup networkd netplan ifupdown NetworkManager"

year_cases() {
    case_name="a year"
    local manager node booting wrong=
    guest_image
    year_root
    for node in $nodes; do
        node_up "$node"
    done
    for node in $hosts; do
        # A machine with other work to do may lose two packets of BFD's in a row.
        host_config "$node" | sed 's/^\[fabric\]/&\nbfd = { interval-ms = 300, multiplier = 4 }/' >"$dir/$node/tap32.toml"
    done
    frr_start core
    for manager in ${YEAR_MANAGERS:-$managers}; do
        booting=()
        for node in $hosts; do
            wire core "$node"
            in_node core ip addr replace "10.47.${node#h}.1/30" dev "$node"
            year_host "$node" "$manager" &
            booting+=($!)
        done
        for node in "${booting[@]}"; do
            wait "$node" || die "$case_name: a host did not boot"
        done
        ip netns exec "$(ns core)" python3 tests/package/year.py "$manager" \
            "$(cat "$work/h1.pid")" "$(cat "$work/h2.pid")" || wrong="$wrong $manager"
        for node in $hosts; do
            year_end "$node"
        done
    done
    lab_down
    check "what the table of tap32-design(7) says" same "" "$wrong"
}

# A root with all that does things to interfaces, and what their upgrades install.
year_root() {
    local root_dir=$roots/year
    [ ! -d "$root_dir" ] || return 0
    base bookworm
    say "making a root of Debian bookworm that boots"
    rm -rf "$root_dir.new"
    cp -a "$roots/bookworm" "$root_dir.new"
    root_dir=$root_dir.new
    # Nothing starts while it is made.
    printf '#!/bin/sh\nexit 101\n' >"$root_dir/usr/sbin/policy-rc.d"
    chmod 755 "$root_dir/usr/sbin/policy-rc.d"
    inside sh -ec 'apt-get update -qq
        apt-get install -y -qq --no-install-recommends systemd-sysv udev dbus kmod procps frr frr-pythontools \
            qemu-system-x86 libvirt-daemon-system libvirt-clients dnsmasq-base \
            network-manager netplan.io ifupdown docker.io firewalld ufw nftables iptables
        cd /debs
        apt-get download -qq -o APT::Sandbox::User=root systemd udev libvirt-daemon-system frr
        apt-get clean
        systemctl disable -q docker.service docker.socket containerd firewalld ufw networking NetworkManager \
            NetworkManager-wait-online apt-daily.timer apt-daily-upgrade.timer
        systemctl enable -q libvirtd frr
        echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/fast
        rm /usr/sbin/policy-rc.d' >>"$roots/year.log" 2>&1 || die "the root that boots: $roots/year.log"
    # What is not of a network is the machine's, and no container's to change.
    find "$root_dir/usr/lib/sysctl.d" -type f ! -name '*tap32*' -delete
    mkdir -p "$root_dir/etc/systemd/system/systemd-udev-trigger.service.d"
    printf '[Service]\nExecStart=\nExecStart=udevadm trigger --type=all --action=add --subsystem-match=net\n' \
        >"$root_dir/etc/systemd/system/systemd-udev-trigger.service.d/net.conf"
    mv "$root_dir" "$roots/year"
}

# year_host NODE MANAGER: boots it, with the guests that start at boot; returns when they answer.
year_host() {
    local node=$1 manager=$2 number=${1#h}
    fresh "$roots/year" "$node"
    install /debs/older.deb
    host_files "$node"
    inside systemctl enable -q tap32-setup guest
    [ "$node" = h1 ] || inside systemctl enable -q tap32-watch
    manager_files "$node" "$manager"
    # nspawn brings a /proc of its own.
    umount "$root_dir/proc"
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
            --console=pipe --machine="year-$2"' \
        "$work/$node" "$(ns "$node")" "$$-$node" >"$work/$node.boot" 2>&1 </dev/null &
    echo $! >"$work/$node.nspawn"
    until_true 20 "systemd of $node" first_process "$node"
    until_true 60 "the boot of $node" booted "$node"
    until_true 60 "the guests of $node" reached "10.0.0.${number}0" "10.0.0.${number}1"
}
reached() {
    local address
    for address; do
        in_node core ping -qc1 -W1 "$address" || return
    done
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
within() { nsenter -a -t "$(cat "$work/$1.pid")" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "${@:2}"; }
booted() { [[ $(within "$1" systemctl is-system-running 2>&1) =~ ^(running|degraded)$ ]]; }

# All that runs in the host's network namespace is its own, its first process too.
year_end() {
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

# What both guests and FRR need, on whatever manager.
host_files() {
    local node=$1 number=${1#h} mac
    mkdir -p "$root_dir/guest" "$work/$node/netns" "$root_dir$dir" "$root_dir/etc/libvirt/qemu/autostart"
    cp "$lab"/{vmlinuz,initrd.gz} "$root_dir/guest/"
    cp "$dir/$node/tap32.toml" "$root_dir/etc/tap32.toml"
    inside tap32 render frr >"$root_dir/etc/frr/frr.conf"
    sed -i 's/^\(ospfd\|bfdd\)=no/\1=yes/' "$root_dir/etc/frr/daemons"
    printf '%s = %s\n' security_driver '"none"' user '"root"' group '"root"' remember_owner 0 namespaces '[]' \
        cgroup_controllers '[]' >>"$root_dir/etc/libvirt/qemu.conf"
    lab=/guest domain guest "10.0.0.${number}1" >"$root_dir/etc/libvirt/qemu/guest.xml"
    ln -s ../guest.xml "$root_dir/etc/libvirt/qemu/autostart/guest.xml"
    mac=$("$tap32" encode "10.0.0.${number}0")
    cat >"$root_dir/etc/systemd/system/guest.service" <<UNIT
[Unit]
After=tap32-setup.service network.target
[Service]
ExecStart=qemu-system-x86_64 -accel tcg,thread=single -machine pc -cpu qemu64 -m 128 -display none -no-reboot \\
    -kernel /guest/vmlinuz -initrd /guest/initrd.gz -serial file:/guest/console -monitor none \\
    -append "console=ttyS0 quiet panic=-1 addr=10.0.0.${number}0/24 gw=10.0.0.1" \\
    -netdev tap,id=n0,ifname=tap0 -device virtio-net-pci,ioeventfd=off,netdev=n0,romfile=,mac=$mac
Restart=on-failure
[Install]
WantedBy=multi-user.target
UNIT
}

# split_at_paths: what `tap32 render networkd` prints, each file at the path that its comment names.
split_at_paths() {
    local line file=/dev/null
    while IFS= read -r line; do
        case $line in
            '# /'*) file=$root_dir${line#\# } && mkdir -p "${file%/*}" && : >"$file" ;;
            *) echo "$line" >>"$file" ;;
        esac
    done
}

# profile NAME TYPE ADDRESS LINE...: for NetworkManager.
profile() {
    local file=$root_dir/etc/NetworkManager/system-connections/$1.nmconnection
    printf '%s\n' '[connection]' "id=$1" "type=$2" "interface-name=$1" '[ipv4]' method=manual "$3" \
        '[ipv6]' method=disabled "${@:4}" >"$file"
    chmod 600 "$file"
}

manager_files() {
    local node=$1 number=${1#h}
    inside tap32 render sysctl >"$root_dir/etc/sysctl.d/60-tap32.conf"
    case $2 in
        setup) ;;
        networkd)
            inside tap32 render networkd | split_at_paths
            inside systemctl enable -q systemd-networkd
            ;;
        ifupdown)
            inside tap32 render ifupdown >"$root_dir/etc/network/interfaces.d/tap32"
            inside systemctl enable -q networking
            ;;
        netplan)
            inside tap32 render networkd | split_at_paths
            rm "$root_dir"/etc/systemd/network/60-*
            (umask 77 && cat >"$root_dir/etc/netplan/60-tap32.yaml") <<YAML
network:
  version: 2
  renderer: networkd
  ethernets:
    core:
      addresses: [10.47.$number.2/30]
      link-local: []
      critical: true
  bridges:
    br-l2:
      addresses: [10.0.0.1/24]
      macaddress: 02:42:0a:00:00:01
      link-local: []
      critical: true
      accept-ra: false
      optional: true
      parameters: {stp: false}
YAML
            inside systemctl enable -q systemd-networkd
            ;;
        NetworkManager)
            # A veth, which the uplink is here, NetworkManager leaves alone (85-nm-unmanaged.rules).
            echo 'SUBSYSTEM=="net", KERNEL=="core", ENV{NM_UNMANAGED}="0"' >"$root_dir/etc/udev/rules.d/86-uplink.rules"
            profile br-l2 bridge "address1=10.0.0.1/24" "[bridge]" stp=false mac-address=02:42:0A:00:00:01
            profile core ethernet "address1=10.47.$number.2/30"
            inside systemctl enable -q NetworkManager
            ;;
    esac
}
