# The deb in a fresh Debian root. Sourced by tests/packages.

# start NAME: a fresh root for a case.
start() {
    kind=deb
    case_name="deb on $release: $1"
    fresh "$roots/$release"
}

deb_cases() {
    release=$1
    base "$release"
    local name
    for name in $(declare -F | sed -n 's/^declare -f \(deb_case_.*\)/\1/p'); do
        "$name"
    done
}

# What dpkg keeps of a removed package until it is purged: its conffiles, their folders, and what might be enabled.
without_kept() { listing | grep -vE ' etc/iproute2(/rt_protos.d)? $| etc/(tap32.toml|iproute2/rt_protos.d/tap32.conf)|deb-systemd-helper-enabled'; }

deb_case_01_alone() {
    start "alone"
    local before before_kept
    before=$(listing)
    before_kept=$(without_kept)
    install /debs/tap32.deb
    table "installed" $paths
    check "root's, for all to run" same "root:root 755" "$(stat -c '%U:%G %a' "$root_dir/usr/sbin/tap32")"
    check "it runs" grep -q '^tap32 ' <(inside tap32 --version)
    check "QEMU's script is ours" ours /etc/qemu-ifup
    check "QEMU's other script is ours" ours /etc/qemu-ifdown
    check "libvirt's hook is ours" ours /etc/libvirt/hooks/qemu.d/50-tap32
    check "nothing is enabled" same "" "$(find "$root_dir/etc/systemd" -name 'tap32*')"
    check "ip knows our routes by name" inside ip route show proto tap32
    check "the guard's modules are loaded at boot" same "cls_bpf sch_ingress" "$(grep -v '^#' "$root_dir/usr/lib/modules-load.d/tap32.conf" | sort | paste -sd ' ')"
    check "Prometheus' rules are there" holds /usr/share/tap32/prometheus-rules.yml '^ *- alert: Tap32WatchDead'
    check "udev leaves the MACs of libvirt's taps alone" holds /usr/lib/systemd/network/98-tap32.link '^MACAddressPolicy=none$'
    check "the units are sound" quietly inside systemd-analyze verify --man=no tap32-setup.service tap32-watch.service
    check "every file is dpkg's or a link of ours" quietly inside dpkg -V tap32
    quietly inside dpkg --remove tap32
    table "removed" $paths
    check "removed: only conffiles are left" same "$before_kept" "$(without_kept)"
    install /debs/tap32.deb
    check "installed again: the links are back" ours /etc/qemu-ifup
    check "installed again: the hook is back" ours /etc/libvirt/hooks/qemu.d/50-tap32
    quietly inside dpkg --purge tap32
    table "purged" $paths
    check "purged: nothing is left" same "$before" "$(listing)"
}

deb_case_02_after_qemu() {
    start "after qemu-system-common"
    install /debs/qemu.deb
    local before
    before=$(listing)
    table "before" $paths
    install /debs/tap32.deb
    table "installed" $paths
    check "QEMU's script is ours" ours /etc/qemu-ifup
    check "Debian's is beside it" holds /etc/qemu-ifup.distrib '#! */bin/sh'
    check "dpkg still knows whose it is" grep -q qemu-system-common <(inside dpkg -S /etc/qemu-ifup.distrib 2>&1; inside dpkg -S /etc/qemu-ifup)
    quietly inside dpkg --purge tap32
    table "purged" $paths
    check "purged: as it was" same "$before" "$(listing)"
}

deb_case_03_before_qemu() {
    start "before qemu-system-common"
    install /debs/qemu.deb
    local before
    before=$(listing)
    start "before qemu-system-common"
    install /debs/tap32.deb
    install /debs/qemu.deb
    table "both installed" $paths
    check "QEMU's script stays ours" ours /etc/qemu-ifup
    check "Debian's is beside it" holds /etc/qemu-ifup.distrib '#! */bin/sh'
    quietly inside dpkg --purge tap32
    check "purged: as if only qemu-system-common had come" same "$before" "$(listing)"
}

deb_case_04_edited_script() {
    start "a script edited by the operator"
    install /debs/qemu.deb
    echo '# the operator was here' >>"$root_dir/etc/qemu-ifup"
    chmod 700 "$root_dir/etc/qemu-ifup"
    local before edited
    before=$(listing)
    edited=$(what_is /etc/qemu-ifup)
    install /debs/tap32.deb
    check "the edited script is beside" same "$edited" "$(what_is /etc/qemu-ifup.distrib)"
    # A later version of qemu-system-common brings another script: dpkg asks about the edited one, under its name.
    install --force-confold /debs/later.deb
    table "qemu-system-common upgraded" $paths /etc/qemu-ifup.distrib.dpkg-dist
    check "the edited script stays" same "$edited" "$(what_is /etc/qemu-ifup.distrib)"
    check "the new one is beside it" holds /etc/qemu-ifup.distrib.dpkg-dist 'A later version'
    check "our link stays" ours /etc/qemu-ifup
    install --force-confold --force-downgrade /debs/qemu.deb
    rm -f "$root_dir/etc/qemu-ifup.distrib.dpkg-dist"
    quietly inside dpkg --purge tap32
    check "purged: the edited script is back in its place" same "$before" "$(listing)"
}

deb_case_05_qemu_upgraded() {
    start "qemu-system-common upgraded, reinstalled, removed, purged"
    local without
    without=$(listing)
    install /debs/qemu.deb
    install /debs/tap32.deb
    install /debs/qemu.deb
    check "reinstalled: our link stays" ours /etc/qemu-ifup
    install /debs/later.deb
    check "upgraded: no question, the new script is beside" holds /etc/qemu-ifup.distrib 'A later version'
    check "upgraded: our link stays" ours /etc/qemu-ifup
    quietly inside dpkg --remove qemu-system-common
    table "qemu-system-common removed" $paths
    check "removed: our links stay" ours /etc/qemu-ifdown
    quietly inside dpkg --purge qemu-system-common
    table "qemu-system-common purged" $paths
    # dpkg follows a conffile that is a link, and might have purged what it leads to.
    check "purged: tap32 is there" grep -q '^tap32 ' <(inside tap32 --version)
    check "purged: our links stay" ours /etc/qemu-ifup
    check "purged: both of them" ours /etc/qemu-ifdown
    quietly inside dpkg --purge tap32
    check "both purged: nothing is left" same "$without" "$(listing)"
}

deb_case_06_upgrade() {
    start "upgrade, configuration edited"
    install /debs/older.deb
    echo 'distance = 200' >>"$root_dir/etc/tap32.toml"
    install --force-confold /debs/tap32.deb
    table "upgraded" $paths /etc/tap32.toml.dpkg-dist
    check "the edited configuration stays" holds /etc/tap32.toml '^distance = 200'
    check "the new one is beside it" sh -c "grep -q . '$root_dir/etc/tap32.toml.dpkg-dist' && ! grep -q 'older file' '$root_dir/etc/tap32.toml.dpkg-dist'"
    check "the links stay" ours /etc/qemu-ifup

    start "upgrade, configuration as it came"
    install /debs/older.deb
    install /debs/tap32.deb
    check "no question, the new configuration" same "$(sha256sum <packaging/tap32.toml)" "$(sha256sum <"$root_dir/etc/tap32.toml")"

    start "upgrade, an edited configuration whose default did not change"
    install /debs/tap32.deb
    echo 'distance = 200' >>"$root_dir/etc/tap32.toml"
    install /debs/tap32.deb
    check "no question, the edited configuration" holds /etc/tap32.toml '^distance = 200'
}

deb_case_07_own_scripts() {
    start "scripts of the operator's own in the places of links"
    install /debs/qemu.deb
    install /debs/older.deb
    for file in etc/qemu-ifup etc/libvirt/hooks/qemu.d/50-tap32; do
        rm "$root_dir/$file"
        printf '#!/bin/sh\n# the operator\nexec /usr/sbin/tap32 up "$1"\n' >"$root_dir/$file"
    done
    install /debs/tap32.deb
    table "upgraded" $paths
    check "QEMU's script stays the operator's" holds /etc/qemu-ifup 'the operator'
    check "libvirt's hook too" holds /etc/libvirt/hooks/qemu.d/50-tap32 'the operator'
    quietly inside dpkg --purge tap32
    table "purged" $paths /etc/qemu-ifup.dpkg-old
    check "Debian's script is back" sh -c "! grep -q operator '$root_dir/etc/qemu-ifup'"
    check "the operator's is kept" holds /etc/qemu-ifup.dpkg-old 'the operator'
    check "and the hook" holds /etc/libvirt/hooks/qemu.d/50-tap32 'the operator'
}

deb_case_08_own_diversion() {
    start "diverted by hand, as hooks/README.md says"
    install /debs/qemu.deb
    quietly inside dpkg-divert --add --rename /etc/qemu-ifup
    ln -s /usr/sbin/tap32 "$root_dir/etc/qemu-ifup"
    local before
    before=$(listing)
    install /debs/tap32.deb
    check "the link stays" ours /etc/qemu-ifup
    quietly inside dpkg --purge tap32
    check "purged: what was made by hand stays" same "$before" "$(listing)"
}

deb_case_08_own_script_before() {
    start "the operator's own script before any package came"
    printf '#!/bin/sh\n# the operator\n' >"$root_dir/etc/qemu-ifup"
    local before
    before=$(listing)
    install /debs/tap32.deb
    check "QEMU's script is ours" ours /etc/qemu-ifup
    quietly inside dpkg --purge tap32
    check "purged: as it was" same "$before" "$(listing)"
    install /debs/tap32.deb
    install /debs/qemu.deb
    check "QEMU's script stays ours" ours /etc/qemu-ifup
    quietly inside dpkg --purge tap32
    table "purged, qemu-system-common installed meanwhile" $paths /etc/qemu-ifup.dpkg-dist
    check "the operator's script is back" holds /etc/qemu-ifup 'the operator'
    check "Debian's is beside it" holds /etc/qemu-ifup.dpkg-dist 'qemu'
}

deb_case_09_enabled() {
    start "enabled by the operator"
    local before
    before=$(listing)
    install /debs/older.deb
    quietly inside systemctl enable tap32-setup tap32-watch
    install /debs/tap32.deb
    check "upgraded: still enabled" same enabled "$(inside systemctl is-enabled tap32-watch)"
    quietly inside dpkg --purge tap32
    check "purged: nothing is left" same "$before" "$(listing)"
}

# broken FIELD: the deb with a preinst that fails.
deb_case_10_aborted() {
    start "an installation and an upgrade that fail"
    local before
    dpkg-deb -R "$packages"/*.deb "$work/broken"
    printf '#!/bin/sh\nexit 1\n' >"$work/broken/DEBIAN/preinst"
    chmod 755 "$work/broken/DEBIAN/preinst"
    dpkg-deb -b "$work/broken" "$root_dir/debs/broken.deb" >/dev/null
    rm -rf "$work/broken"
    install /debs/qemu.deb
    before=$(listing)
    check "it fails" sh -c "! chroot '$root_dir' dpkg -i /debs/broken.deb >/dev/null 2>&1"
    check "a failed installation leaves nothing" same "$before" "$(listing)"
    install /debs/older.deb
    before=$(listing)
    check "it fails too" sh -c "! chroot '$root_dir' dpkg -i /debs/broken.deb >/dev/null 2>&1"
    check "a failed upgrade leaves the older version" same "$before" "$(listing)"
    check "which is whole" same "install ok installed" "$(inside dpkg-query -Wf '${Status}' tap32)"
    # A removal that fails half-way, here for a package that needs ours: dpkg calls postinst abort-remove.
    check "the older one can go" quietly inside dpkg --purge tap32
}

deb_case_11_older_iproute2() {
    start "an ip that does not read rt_protos.d"
    # The real one, which finds that folder empty.
    mv "$root_dir/bin/ip" "$root_dir/bin/ip.real"
    mkdir "$root_dir/empty"
    printf '#!/bin/sh\nexec unshare -m sh -c "mount --bind /empty /etc/iproute2/rt_protos.d 2>/dev/null; exec /bin/ip.real \\"\\$@\\"" ip "$@"\n' >"$root_dir/bin/ip"
    chmod 755 "$root_dir/bin/ip"
    mkdir -p "$root_dir/etc/iproute2"
    [ -e "$root_dir/etc/iproute2/rt_protos" ] || cp "$root_dir/usr/share/iproute2/rt_protos" "$root_dir/etc/iproute2/"
    # Without a newline at its end, which must not come either.
    printf '200\tmine' >>"$root_dir/etc/iproute2/rt_protos"
    local before
    before=$(listing)
    install /debs/older.deb
    install /debs/tap32.deb
    table "installed" $paths
    check "it knows our routes by name" inside ip route show proto tap32
    check "one line, also after an upgrade" same 1 "$(grep -c tap32 "$root_dir/etc/iproute2/rt_protos")"
    check "and its own" inside ip route show proto mine
    quietly inside dpkg --purge tap32
    check "purged: the same bytes" same "$before" "$(listing)"
}

deb_case_12_systemd() {
    start "what systemd is asked"
    with_systemd
    check "installed: libvirt reads its hooks, nothing is started" same \
        "try-reload-or-restart libvirtd.service;try-reload-or-restart virtqemud.service;daemon-reload;try-restart tap32-watch.service tap32-dhcp.service" \
        "$(asked install /debs/older.deb)"
    check "upgraded: a watch that runs is restarted once the new one is there, setup is not" same \
        "daemon-reload;try-restart tap32-watch.service tap32-dhcp.service" "$(asked install /debs/tap32.deb)"
    check "removed: both are stopped" same \
        "stop tap32-dhcp.service tap32-watch.service tap32-setup.service;try-reload-or-restart libvirtd.service;try-reload-or-restart virtqemud.service;daemon-reload" \
        "$(asked quietly inside dpkg --purge tap32)"
    # What an administrator's policy-rc.d forbids is not done.
    printf '#!/bin/sh\nexit 101\n' >"$root_dir/usr/sbin/policy-rc.d"
    chmod 755 "$root_dir/usr/sbin/policy-rc.d"
    check "policy-rc.d is obeyed" sh -c "! grep -q restart <<'X'
$(asked install /debs/tap32.deb)
X"
}
