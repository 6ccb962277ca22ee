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
        patient_config "$node"
    done
    frr_start core
    for manager in ${YEAR_MANAGERS:-$managers}; do
        booting=()
        for node in $hosts; do
            plug "$node"
            year_host "$node" "$manager" &
            booting+=($!)
        done
        for node in "${booting[@]}"; do
            wait "$node" || die "$case_name: a host did not boot"
        done
        ip netns exec "$(ns core)" python3 tests/package/year.py "$manager" \
            "$(cat "$work/h1.pid")" "$(cat "$work/h2.pid")" || wrong="$wrong $manager"
        for node in $hosts; do
            unplug "$node"
        done
    done
    lab_down
    check "what the table of tap32-design(7) says" same "" "$wrong"
}

# A root with all that does things to interfaces, and what their upgrades install.
year_root() {
    local root_dir=$roots/year.new
    [ ! -d "$roots/year" ] || return 0
    host_root bookworm
    say "making a root of Debian bookworm with all that does things to interfaces"
    rm -rf "$root_dir"
    cp -a "$roots/bookworm-host" "$root_dir"
    furnish "$root_dir" "$roots/year.log" frr-pythontools network-manager netplan.io ifupdown docker.io
    inside sh -ec 'cd /debs
        apt-get download -qq -o APT::Sandbox::User=root systemd udev libvirt-daemon-system frr
        systemctl disable -q docker.service docker.socket containerd networking NetworkManager NetworkManager-wait-online' \
        >>"$roots/year.log" 2>&1 || die "the root of a year: $roots/year.log"
    mv "$root_dir" "$roots/year"
}

# year_host NODE MANAGER: boots it, with the guests that start at boot; returns when they answer.
year_host() {
    local node=$1 manager=$2 number=${1#h}
    boot_root year "$node"
    install /debs/older.deb
    cp "$dir/$node/tap32.toml" "$root_dir/etc/tap32.toml"
    guest_files "$node" "addr=10.0.0.${number}0/24 gw=10.0.0.1"
    ln -s ../guest.xml "$root_dir/etc/libvirt/qemu/autostart/guest.xml"
    inside systemctl enable -q tap32-setup guest
    [ "$node" = h1 ] || inside systemctl enable -q tap32-watch
    manager_files "$node" "$manager"
    boot "$node"
    until_true 60 "the guests of $node" reached "10.0.0.${number}0" "10.0.0.${number}1"
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
