# A host's life with the deb under a systemd that runs: installed, enabled, booted, reloaded, upgraded, rebooted and
# purged, with a guest of QEMU, which DHCP tells its address, and one of libvirt. What runs is asked of systemd, the kernel
# (ip, bridge, tc), zebra, libvirt and the core router. Sourced by tests/packages.
#
#     core 10.47.1.1 -- h1 10.47.1.2, br-l2 10.0.0.1/24

our_units="tap32-setup tap32-watch tap32-dhcp"

boot_cases() {
    local release=$1 nodes="core h1" hosts=h1 kind=deb started=$SECONDS step
    guest_image
    host_root "$release"
    node_up core
    node_up h1
    patient_config h1
    frr_start core
    plug h1
    boot_root "$release-host" h1
    guest_files h1
    # Where Debian's prometheus-node-exporter looks.
    mkdir -p "$root_dir/var/lib/prometheus/node-exporter"
    boot h1
    printf '  %s: %s\n' "$release" "$(inside dpkg-query -Wf '${Package} ${Version}, ' systemd frr libvirt-daemon-system \
        qemu-system-x86 dnsmasq-base)"
    for step in installed purged enabled booted sandboxed dhcp upgraded rebooted removed; do
        case_name="$release: $step"
        started=$SECONDS
        "boot_case_$step"
        printf '  %s: %s s\n' "$case_name" $((SECONDS - started))
    done
    unplug h1
    umount -R "$work/h1"
    lab_down
}

unit() { within h1 systemctl show -P "$2" "$1"; }
is() { [ "$(within h1 systemctl is-active "$1")" = "$2" ]; }
# What the tables of the kernel and of the core router say is not as it should be, judged by ip, bridge and tc.
wrong() {
    ip netns exec "$(ns core)" env PYTHONPATH=tests/package PYTHONDONTWRITEBYTECODE=1 \
        python3 -c 'import sys, year; print(*year.Host(1, sys.argv[1], True).wrong(), sep=", ")' "$(cat "$work/h1.pid")"
}
right() { [ -z "$(wrong)" ]; }
all_right() {
    (until_true 30 "the routes and guards of both guests" right) || die "$case_name: $(wrong)"
    until_true 60 "the guests" reached 10.0.0.10 10.0.0.11
}
# systemctl ends with 1 where there is none.
unit_files() { within h1 sh -c 'systemctl list-unit-files --plain --no-legend "$@" || true' sh "$@" 'tap32*'; }
none_failed() { silent within h1 systemctl list-units --state=failed --plain --no-legend 'tap32*'; }
guarded() { in_node h1 tc -j filter show dev "$1" ingress | jq -e 'any(.[]; .kind == "bpf")' >/dev/null; }
not_guarded() { ! guarded "$1"; }
said() { [[ $(within h1 journalctl -b -o cat -u "$1") == *"$2"* ]]; }
process_of() { unit "$1" MainPID; }
# What the kernel keeps of a unit's sandbox.
sandbox() {
    within h1 sed -n 's/^\(CapEff\|NoNewPrivs\|Seccomp\):\s*//p' "/proc/$(process_of "$1")/status" | paste -sd ' '
}

# What one writes into /etc/tap32.toml; each WORD is a line more in the section of the bridge.
configure() {
    sed "/^gateway/r "<(printf '%s\n' "$@") "$dir/h1/tap32.toml" >"$root_dir/etc/tap32.toml"
}

boot_case_installed() {
    # What --timeout 120 does to a libvirtd without guests.
    quietly within h1 systemctl stop libvirtd
    quietly within h1 dpkg -i /debs/tap32.deb
    check "nothing is enabled" silent unit_files --state=enabled
    check "nothing runs" silent within h1 systemctl list-units --plain --no-legend 'tap32*'
    check "libvirtd, which did not run, is not started" is libvirtd inactive
    check "it has a socket" is libvirtd.socket active
    check "systemd knows every word of the units" same "" "$(within h1 systemd-analyze verify --man=no \
        $(printf '%s.service ' $our_units) 2>&1 | grep tap32)"
    local name
    for name in $our_units; do
        check "$name is hardened" quietly within h1 systemd-analyze security --offline=true --threshold=30 "$name.service"
    done
    configure
    quietly within h1 systemctl start tap32-setup
    create_on_h1 within trial
    check "the socket started libvirtd, which has read its hooks" routed h1 10.0.0.20
    check "guarded" guarded vnet0
    quietly within h1 virsh destroy trial
    check "gone with the guest" until_true 10 "the end of the route" not_routed h1
}

boot_case_purged() {
    quietly within h1 dpkg --purge tap32
    create_on_h1 within after
    check "purged: libvirtd, which runs, calls no hook" not_routed h1
    quietly within h1 virsh destroy after
    quietly within h1 dpkg -i /debs/older.deb
    until_true 20 "a guest with a route" next_is_routed within
    check "installed: libvirtd, which ran, has read its hooks" routed h1 10.0.0.20
    quietly within h1 virsh destroy next
}

boot_case_enabled() {
    configure
    ln -s ../guest.xml "$root_dir/etc/libvirt/qemu/autostart/guest.xml"
    quietly within h1 systemctl enable $our_units guest
    restart
}

# restart: of the machine, in order.
restart() {
    quietly within h1 systemctl reboot
    until_true 60 "the end of the host" host_ended
    unplug h1
    plug h1
    boot h1
}
host_ended() { [ ! -d "/proc/$(cat "$work/h1.nspawn")" ]; }

boot_case_booted() {
    local name made
    made=$(unit tap32-setup ActiveEnterTimestampMonotonic)
    check "setup has ended well" [ "${made:-0}" -gt 0 ]
    for name in frr libvirtd tap32-watch tap32-dhcp guest; do
        check "$name began after setup's end" [ "$(unit $name InactiveExitTimestampMonotonic)" -ge "$made" ]
    done
    for name in $our_units frr libvirtd; do
        check "$name is active" is $name active
    done
    check "both guests are routed, guarded and reached" all_right
    check "none of ours failed" none_failed
    check "zebra has both routes from the kernel" same "10.0.0.10/32 10.0.0.11/32" "$(within h1 vtysh \
        -c 'show ip route kernel json' |
        jq -r '[to_entries[] | select(.value[0].selected and (.key | startswith("10.0.0."))).key] | sort | join(" ")')"
}

boot_case_sandboxed() {
    local watch metrics=$root_dir/var/lib/prometheus/node-exporter/tap32.prom
    watch=$(process_of tap32-watch)
    check "it says READY=1" same "notify running" "$(unit tap32-watch Type) $(unit tap32-watch SubState)"
    check "in its sandbox: CAP_NET_ADMIN, no new privileges, a filter of system calls" same "0000000000001000 1 2" \
        "$(sandbox tap32-watch)"
    in_node h1 ip route flush proto 132
    in_node h1 tc qdisc del dev tap0 clsact
    in_node h1 tc qdisc del dev vnet0 clsact
    check "routes and guards are back" all_right
    # What it was told is taken without a restart, and the metrics can be written where its unit says.
    configure 'guard = false' '[watch]' 'metrics = "/var/lib/prometheus/node-exporter/tap32.prom"'
    quietly within h1 systemctl reload tap32-watch
    check "reloaded: no guards" until_true 10 "the guards' end" not_guarded tap0
    check "reloaded: metrics" until_true 10 "the metrics" grep -q '^tap32_taps{bridge="br-l2"} 2$' "$metrics"
    echo 'no TOML' >"$root_dir/etc/tap32.toml"
    quietly within h1 systemctl reload tap32-watch
    check "a broken file is named" until_true 30 "what it says" said tap32-watch /etc/tap32.toml
    configure
    quietly within h1 systemctl reload tap32-watch
    check "reloaded: guards again" all_right
    check "all in one process" same "$watch 0" "$(process_of tap32-watch) $(unit tap32-watch NRestarts)"
    check "systemd's watchdog hears from it" until_true 20 "WATCHDOG=1" heard
}
# Later than with its READY=1, in microseconds.
heard() {
    [ "$(unit tap32-watch WatchdogTimestampMonotonic)" -gt $(($(unit tap32-watch ActiveEnterTimestampMonotonic) + 1000000)) ]
}

boot_case_dhcp() {
    local before text=/run/tap32-dhcp/dnsmasq.conf
    check "the guest has its address by DHCP" grep -q 'dhcp bound eth0 10.0.0.10/24 from 10.0.0.1' "$root_dir/guest/console"
    # dnsmasq gives capabilities up by itself.
    check "in its sandbox" same " 1 2" "$(sandbox tap32-dhcp | cut -c17-)"
    configure 'dns = ["10.47.1.1"]'
    quietly within h1 systemctl restart tap32-dhcp
    check "restarted: it has the new file" quietly within h1 grep -q 'option:dns-server,10.47.1.1' $text
    before=$(leases)
    check "and answers" until_true 20 "a lease" leased
    # With less patience than its own second, as it shall try more often than systemd's five times.
    within h1 sh -ec 'mkdir -p /run/systemd/system/tap32-dhcp.service.d && cd $_ &&
        printf "[Service]\nRestartSec=100ms\n" >fast.conf && systemctl daemon-reload'
    echo 'no TOML' >"$root_dir/etc/tap32.toml"
    within h1 systemctl restart tap32-dhcp 2>/dev/null && die "$case_name: it starts with a broken file"
    check "a broken file is named" until_true 30 "what it says" said tap32-dhcp /etc/tap32.toml
    check "and the text is the old one" quietly within h1 grep -q 'option:dns-server,10.47.1.1' $text
    check "it is tried again" until_true 60 "six times" tried_again 6
    configure
    check "it comes back once the file is fixed" until_true 20 "dnsmasq" is tap32-dhcp active
}
tried_again() { [ "$(unit tap32-dhcp NRestarts)" -ge "$1" ]; }
# Its guest asks again every second.
leases() { grep -c 'dhcp renew eth0 10.0.0.10/24 from 10.0.0.1' "$root_dir/guest/console"; }
leased() { [ "$(leases)" -gt "$before" ]; }

boot_case_upgraded() {
    local set_up watch server
    set_up=$(unit tap32-setup ActiveEnterTimestampMonotonic)
    watch=$(process_of tap32-watch)
    server=$(process_of tap32-dhcp)
    watching 10.0.0.10
    quietly within h1 dpkg --force-confold -i /debs/tap32.deb
    watching_ends
    printf '  %s: %s, longest gap %s ms, %s route events\n' "$case_name" "$(grep 'packets transmitted' "$work/pings")" \
        "$(longest_gap)" "$(events | wc -l)"
    check "no packet lost" same 0 "$(lost)"
    check "no route withdrawn or touched" same "" "$(events)"
    check "another watch" [ "$(process_of tap32-watch)" != "$watch" ]
    check "of the new version" same /usr/sbin/tap32 "$(within h1 readlink "/proc/$(process_of tap32-watch)/exe")"
    check "another DHCP server" [ "$(process_of tap32-dhcp)" != "$server" ]
    check "setup did not run again" same "$set_up" "$(unit tap32-setup ActiveEnterTimestampMonotonic)"
    check "nothing of ours failed" none_failed
}

boot_case_rebooted() {
    restart
    boot_case_booted
}

boot_case_removed() {
    local before
    before=$(routes h1)
    quietly within h1 dpkg --remove tap32
    check "the routes of guests that run stay" same "$before" "$(routes h1)"
    check "and both are reached" quietly reached 10.0.0.10 10.0.0.11
    check "nothing of ours runs" silent within h1 systemctl list-units --plain --no-legend 'tap32*'
    quietly within h1 dpkg --purge tap32
    check "the same when purged" same "$before" "$(routes h1)"
    check "no unit of ours" silent unit_files
    check "none failed" none_failed
    check "nothing of ours is left" silent within h1 find / /run -ignore_readdir_race -xdev \
        \( -path /debs -o -path /var/tmp/tap32-lab -o -path /var/log \) -prune -o \
        \( -name '*tap32*' -o -lname '*tap32*' \) -print
}
