# The lab: two hosts in two racks, two access switches a rack, a core, a client; every node a namespace.
# Sourced by up, down, virsh and by tests/lab.rs through `tests/lab/up`. TAP32_LAB tells two labs apart,
# TAP32_LAB_FABRIC=bgp brings one up with BGP instead of OSPF. With TAP32_LAB_FABRIC=mdu it is another lab: mdu.sh.
#
#                      client 172.31.0.1-16
#                         |
#                        core
#             /       /        \       \
#          sw1a     sw1b      sw2a    sw2b
#             \       /          \     /
#                 h1                h2          br-l2 10.0.0.1/24 on both, libvirtd on both

. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

id=${TAP32_LAB:-play}
dir=/var/tmp/tap32-lab/$id
nodes="client core sw1a sw1b sw2a sw2b h1 h2"
hosts="h1 h2"

ns() { echo "tap32lab-$id-$1"; }
# in_node NODE COMMAND: on a host with the host's own configuration and its own vtysh.
in_node() {
    local node=$1
    shift
    case $node in
        h?) ip netns exec "$(ns "$node")" env PATH="$dir/$node/bin:$PATH" TAP32_CONFIG="$dir/$node/tap32.toml" "$@" ;;
        *) ip netns exec "$(ns "$node")" "$@" ;;
    esac
}
. "$(dirname "${BASH_SOURCE[0]}")/fabric.sh"

# A libvirtd of its own: private /run and /var, its own hostname and uuid, our hook.
libvirtd_start() {
    local node=$1 home=$dir/$1/libvirt
    mkdir -p "$home"/{etc/hooks/qemu.d,lib,log,cache,run}
    hook_as_installed "$node"
    cat >"$home/etc/libvirtd.conf" <<EOF
host_uuid = "00000000-0000-4000-8000-0000000000${node#h}${node#h}"
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
log_outputs = "2:file:$home/log/libvirtd.log"
EOF
    cat >"$home/etc/qemu.conf" <<EOF
security_driver = "none"
user = "root"
group = "root"
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
EOF
    in_node "$node" env -i PATH="$dir/$node/bin:$PATH" unshare -mu sh -c '
        mount --make-rprivate / && hostname "$1" && mount -t tmpfs none /run && mkdir -p /run/libvirt &&
        for pair in etc:/etc/libvirt lib:/var/lib/libvirt log:/var/log/libvirt cache:/var/cache/libvirt run:/run/libvirt; do
            mkdir -p "${pair#*:}" && mount --bind "$2/${pair%%:*}" "${pair#*:}"
        done && exec libvirtd --listen --pid-file "$2/pid"' sh "$node" "$home" >"$home/log/out" 2>&1 </dev/null &
}

# hook_as_installed NODE: a script in the place of the link, for the hook needs a file that is not in this machine's /etc.
hook_as_installed() {
    local hook=$dir/$1/libvirt/etc/hooks/qemu.d/50-tap32
    rm -f "$hook"
    printf '#!/bin/sh\n%sexec %s libvirt "$@"\n' "$(hook_config "$1")" "$tap32" >"$hook"
    chmod +x "$hook"
}
# libvirt gives its hooks no environment of ours.
hook_config() { printf 'export TAP32_CONFIG=%s\n ' "$dir/$1/tap32.toml"; }

# lab_virsh NODE ARGUMENTS: virsh in the host's own view.
lab_virsh() {
    local node=$1
    shift
    nsenter -t "$(cat "$dir/$node/libvirt/pid")" -m -u -n virsh -q "$@"
}

lab_down() {
    local node pids
    for node in $nodes; do
        pids=$(ip netns pids "$(ns "$node")" 2>/dev/null || true)
        [ -z "$pids" ] || kill -9 $pids 2>/dev/null || true
        ip netns del "$(ns "$node")" 2>/dev/null || true
    done
    rm -rf "$dir"
}

# hook_mode MODE: what libvirt calls on both hosts.
#   tap32   as installed
#   late [SECONDS]    as installed, but the source cleans up a second late, or so many
#   yield   settled routes only: nobody claims
#   seed    the article's script when the tap comes, and its inverse when the guest is gone
hook_mode() {
    local host hook
    for host in $hosts; do
        hook=$dir/$host/libvirt/etc/hooks/qemu.d/50-tap32
        rm -f "$hook"
        case $1 in
            tap32) hook_as_installed "$host" && continue ;;
            late) printf '#!/bin/sh\n%s[ "$2" != stopped ] || sleep %s\nexec %s libvirt "$@"\n' "$(hook_config "$host")" "${2:-1}" "$tap32" ;;
            yield) printf '#!/bin/sh\n[ "$2" != migrate ] || exit 0\nexec %s libvirt "$@"\n' "$tap32" ;;
            seed) cat <<EOF
#!/bin/bash
xml=\$(cat)
case \$2 in
    start) bash $root/tests/seed-ifup "\$(sed -n "s/.*<target dev='\([^']*\)'.*/\1/p" <<<"\$xml" | head -1)" ;;
    stopped) ip route del "\$($tap32 decode "\$(sed -n "s/.*<mac address='\([^']*\)'.*/\1/p" <<<"\$xml" | head -1)")/32" dev br-l2 ;;
esac
exit 0
EOF
                ;;
        esac >"$hook"
        chmod +x "$hook"
    done
}

# domain NAME ADDRESS [PEER]: the XML of a small guest, with the interface that `tap32 render libvirt` prints.
domain() {
    local name=$1 address=$2 peer=${3:-} length gateway config=$dir/h1/tap32.toml
    read -r length gateway < <(guest_net "$address")
    # Without a lab, what `render` prints from no file.
    [ -e "$config" ] || config=/dev/null
    cat <<EOF
<domain type='qemu'>
  <name>$name</name>
  <memory unit='MiB'>128</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>$lab/vmlinuz</kernel>
    <initrd>$lab/initrd.gz</initrd>
    <cmdline>console=ttyS0 quiet panic=-1 addr=$address/$length gw=$gateway${peer:+ peer=$peer}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact'><model fallback='allow'>Nehalem</model></cpu>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
$("$tap32" --config "$config" render libvirt "$address" | sed "s|<model type='virtio'/>|&<driver ioeventfd='off'/><rom enabled='no'/>|")
    <serial type='file'><source path='/var/tmp/tap32-lab/$id/$name.console'/><target port='0'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
EOF
}
