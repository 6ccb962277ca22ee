# The rpm, in an rpm database of its own: a Debian root serves, for rpm's scriptlets need only a shell there.
# Sourced by tests/packages.

rpm_cases() {
    release=bookworm
    base $release
    local name
    for name in $(declare -F | sed -n 's/^declare -f \(rpm_case_.*\)/\1/p'); do
        "$name"
    done
}

rpm_start() {
    kind=rpm
    case_name="rpm: $1"
    fresh "$roots/$release"
    mkdir -p "$root_dir/var/lib/rpm"
    rpm --root "$root_dir" --initdb
}

# Nothing of that root is rpm's, /bin/sh neither: its one requirement is judged in `build`, and passed over here.
in_rpm() { env -u TAP32_CONFIG rpm --root "$root_dir" --nodeps "$@"; }

rpm_paths="${paths//.distrib/.before-tap32}"

rpm_case_01_alone() {
    rpm_start "alone"
    local before metrics=$root_dir/var/lib/prometheus/node-exporter
    mkdir -p "$metrics"
    before=$(listing)
    quietly in_rpm -i "$root_dir/debs/tap32.rpm"
    table "installed" $rpm_paths
    check "root's, for all to run" same "root:root 755" "$(stat -c '%U:%G %a' "$root_dir/usr/sbin/tap32")"
    check "it runs" grep -q '^tap32 ' <(inside tap32 --version)
    check "QEMU's script is ours" ours /etc/qemu-ifup
    check "QEMU's other script is ours" ours /etc/qemu-ifdown
    check "libvirt's hook is ours" ours /etc/libvirt/hooks/qemu.d/50-tap32
    check "nothing is enabled" same "" "$(find "$root_dir/etc/systemd" -name 'tap32*')"
    check "ip knows our routes by name" inside ip route show proto tap32
    check "Prometheus' rules are there" holds /usr/share/tap32/prometheus-rules.yml '^ *- alert: Tap32WatchDead'
    check "udev leaves the MACs of libvirt's taps alone" holds /usr/lib/systemd/network/98-tap32.link '^MACAddressPolicy=none$'
    check "the guard's modules are loaded at boot" holds /usr/lib/modules-load.d/tap32.conf '^cls_bpf$'
    check "rpm finds nothing changed" quietly in_rpm -V tap32
    quietly inside systemctl enable tap32-setup tap32-watch
    touch "$metrics/tap32.prom"
    quietly in_rpm -e tap32
    table "removed" $rpm_paths
    check "removed: nothing is left" same "$before" "$(listing)"
}

rpm_case_02_scripts_before() {
    rpm_start "scripts that were there"
    printf '#!/bin/sh\n# the operator\n' >"$root_dir/etc/qemu-ifup"
    chmod 700 "$root_dir/etc/qemu-ifup"
    # With one folder that is somebody's, and stays.
    mkdir -p "$root_dir/etc/libvirt/hooks"
    printf '#!/bin/sh\n' >"$root_dir/etc/libvirt/hooks/network"
    local before
    before=$(listing)
    table "before" $rpm_paths
    quietly in_rpm -i "$root_dir/debs/older.rpm"
    check "QEMU's script is ours" ours /etc/qemu-ifup
    check "the one that was there is beside it" holds /etc/qemu-ifup.before-tap32 'the operator'
    quietly in_rpm -U "$root_dir/debs/tap32.rpm"
    table "upgraded" $rpm_paths
    check "upgraded: our link stays" ours /etc/qemu-ifup
    check "upgraded: so does what was there" holds /etc/qemu-ifup.before-tap32 'the operator'
    quietly in_rpm -U --replacepkgs "$root_dir/debs/tap32.rpm"
    check "reinstalled: the same" holds /etc/qemu-ifup.before-tap32 'the operator'
    quietly in_rpm -e tap32
    table "removed" $rpm_paths
    check "removed: as it was" same "$before" "$(listing)"
}

rpm_case_03_upgrade() {
    rpm_start "upgrade, configuration edited"
    quietly in_rpm -i "$root_dir/debs/older.rpm"
    echo 'distance = 200' >>"$root_dir/etc/tap32.toml"
    rm "$root_dir/etc/qemu-ifup"
    printf '#!/bin/sh\n# the operator\n' >"$root_dir/etc/qemu-ifup"
    quietly inside systemctl enable tap32-watch
    quietly in_rpm -U "$root_dir/debs/tap32.rpm"
    table "upgraded" $rpm_paths /etc/tap32.toml.rpmnew
    check "the edited configuration stays" holds /etc/tap32.toml '^distance = 200'
    check "the new one is beside it" same "$(sha256sum <packaging/tap32.toml)" "$(sha256sum <"$root_dir/etc/tap32.toml.rpmnew")"
    check "still enabled" same enabled "$(inside systemctl is-enabled tap32-watch)"
    check "a script in our link's place stays the operator's" holds /etc/qemu-ifup 'the operator'
    check "also when reinstalled" quietly in_rpm -U --replacepkgs "$root_dir/debs/tap32.rpm"
    check "the same script" holds /etc/qemu-ifup 'the operator'
    quietly in_rpm -e tap32
    table "removed" $rpm_paths /etc/tap32.toml.rpmsave
    check "removed: the edited configuration is kept" holds /etc/tap32.toml.rpmsave '^distance = 200'
    check "removed: the operator's script is kept" holds /etc/qemu-ifup 'the operator'

    rpm_start "upgrade, configuration as it came"
    quietly in_rpm -i "$root_dir/debs/older.rpm"
    quietly in_rpm -U "$root_dir/debs/tap32.rpm"
    check "the new configuration" same "$(sha256sum <packaging/tap32.toml)" "$(sha256sum <"$root_dir/etc/tap32.toml")"
}

rpm_case_04_systemd() {
    rpm_start "what systemd is asked"
    with_systemd
    check "installed: libvirt reads its hooks, nothing is started" same \
        "try-reload-or-restart libvirtd.service;try-reload-or-restart virtqemud.service;daemon-reload;try-restart tap32-watch.service tap32-dhcp.service" \
        "$(asked quietly in_rpm -i "$root_dir/debs/older.rpm")"
    check "upgraded: a watch that runs is restarted once the new one is there, setup is not" same \
        "daemon-reload;try-restart tap32-watch.service tap32-dhcp.service" "$(asked quietly in_rpm -U "$root_dir/debs/tap32.rpm")"
    check "removed: both are stopped and disabled" same \
        "stop tap32-dhcp.service tap32-watch.service tap32-setup.service;disable tap32-dhcp.service tap32-watch.service tap32-setup.service;try-reload-or-restart libvirtd.service;try-reload-or-restart virtqemud.service;daemon-reload" \
        "$(asked quietly in_rpm -e tap32)"
}

# Fedora and RHEL have a daemon a driver, and no libvirtd.service.
rpm_case_05_modular_daemons() {
    rpm_start "virtqemud without libvirtd"
    with_systemd
    sed -i '$a[ "${*#*libvirtd}" = "$*" ] || exit 5' "$root_dir/usr/bin/systemctl"
    check "installed: virtqemud reads its hooks" same \
        "try-reload-or-restart libvirtd.service;try-reload-or-restart virtqemud.service;daemon-reload;try-restart tap32-watch.service tap32-dhcp.service" \
        "$(asked quietly in_rpm -i "$root_dir/debs/tap32.rpm")"
    check "the hook is there" ours /etc/libvirt/hooks/qemu.d/50-tap32
    check "removed: the same" same \
        "try-reload-or-restart libvirtd.service;try-reload-or-restart virtqemud.service" \
        "$(asked quietly in_rpm -e tap32 | grep -oE 'try-reload[^;]*' | paste -sd ';')"
}

# Debian 11's 247 is older than Ubuntu 22.04's 249 and RHEL 9's 252, and systemd keeps the words that it has.
units_cases() {
    base bullseye
    release=bullseye rpm_start "the units' words, read by systemd 247"
    quietly in_rpm -i "$root_dir/debs/tap32.rpm"
    printf '#!/bin/sh\n' >"$root_dir/usr/sbin/dnsmasq"
    chmod 755 "$root_dir/usr/sbin/dnsmasq"
    # It wants to know its control group.
    mount -t sysfs sysfs "$root_dir/sys"
    mount --rbind /sys/fs/cgroup "$root_dir/sys/fs/cgroup"
    printf '  %s: %s\n' "$case_name" "$(inside systemctl --version | head -1)"
    check "all known" same "" "$(inside systemd-analyze verify --man=no tap32-{setup,watch,dhcp}.service 2>&1)"
    sed -i 's/^ProtectHome=/MadeUp=&/' "$root_dir/usr/lib/systemd/system/tap32-dhcp.service"
    check "but not one that is made up" grep -q MadeUp <(inside systemd-analyze verify --man=no tap32-dhcp.service 2>&1)
}
