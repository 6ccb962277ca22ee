# What both packages' scripts share; packaging/build puts it in front of each of them, after `set -e`.
# They bring: displace FILE (make room for our link, once), put_back FILE (the inverse), packaged PATH (a package
# has it), and service ACTION UNIT... (without effect where systemd does not run; never fails).
#
# The links are made here and are not files of the package: what an operator puts in a link's place must
# outlive an upgrade, and neither dpkg nor rpm keeps a changed link under /etc (dpkg-conffiles are plain files).

tap32=/usr/sbin/tap32
hook=/etc/libvirt/hooks/qemu.d/50-tap32
metrics=/var/lib/prometheus/node-exporter/tap32.prom
protocols=/etc/iproute2/rt_protos
protocol_line='132	tap32	# by the tap32 package, as ip does not read rt_protos.d'

is_ours() {
    [ "$(readlink "$1" 2>/dev/null)" = "$tap32" ]
}

is_there() {
    [ -e "$1" ] || [ -L "$1" ]
}

make_links() {
    for file in /etc/qemu-ifup /etc/qemu-ifdown; do
        if displace "$file" && ! is_there "$file"; then
            ln -s "$tap32" "$file"
        fi
    done
    if ! is_there "$hook"; then
        mkdir -p "${hook%/*}"
        ln -s "$tap32" "$hook"
        reload_libvirt
    fi
}

remove_links() {
    for file in /etc/qemu-ifup /etc/qemu-ifdown; do
        put_back "$file"
    done
    if is_ours "$hook"; then
        rm -f "$hook"
        reload_libvirt
    fi
    remove_empty /etc/libvirt/hooks/qemu.d /etc/libvirt/hooks /etc/libvirt
}

# What tap32-watch wrote last, under the name that tap32.toml suggests: node_exporter would tell it for ever.
remove_metrics() {
    rm -f "$metrics"
}

# Folders that came with us and that nobody else has.
remove_empty() {
    for folder; do
        if [ -d "$folder" ] && ! packaged "$folder"; then
            rmdir --ignore-fail-on-non-empty "$folder"
        fi
    done
}

# libvirt looks for hooks when its daemon starts or reloads; a reload touches no guest. There is one of the two.
reload_libvirt() {
    service try-reload-or-restart libvirtd.service
    service try-reload-or-restart virtqemud.service
}

# Units came or went. Not a matter of policy-rc.d, and deb-systemd-invoke refuses it.
reload_units() {
    [ ! -d /run/systemd/system ] || systemctl --system daemon-reload >/dev/null 2>&1 || true
}

# Asked, not guessed from a version: an ip that knows "kernel" but not our name reads no rt_protos.d, and gets
# the name where it looks. As the first line, so that taking the line away gives back the same bytes.
name_protocol() {
    if [ -s "$protocols" ] && ip route show proto kernel dev lo >/dev/null 2>&1 &&
        ! ip route show proto tap32 dev lo >/dev/null 2>&1; then
        sed -i "1i$protocol_line" "$protocols"
    fi
}

unname_protocol() {
    if grep -qsxF "$protocol_line" "$protocols"; then
        sed -i "\\|^$protocol_line\$|d" "$protocols"
    fi
}
