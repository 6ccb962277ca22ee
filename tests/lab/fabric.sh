# The lab's wires and routers. Sourced by lib.sh. A host's tap32.toml is the only description of it and of the
# switches above it: `tap32 setup` makes the host, `tap32 render` the routers' configuration.

# ospf, bgp or mdu; a lab that is up knows its own. `fabric` is the protocol.
shape=$(cat "$dir/fabric" 2>/dev/null || echo "${TAP32_LAB_FABRIC:-ospf}")
fabric=${shape/mdu/bgp}
# The neighbours that each router has when all is well.
well="core=4 h1=2 h2=2"
# Less than its default, so that claims end sooner; hop.rs knows it too.
settle=5s

loopback() {
    case $1 in
        core) echo 10.255.0.1 ;;
        sw1a) echo 10.255.0.11 ;;
        sw1b) echo 10.255.0.12 ;;
        sw2a) echo 10.255.0.21 ;;
        sw2b) echo 10.255.0.22 ;;
        h1) echo 10.255.1.1 ;;
        h2) echo 10.255.1.2 ;;
    esac
}

as_of() {
    case $1 in
        core) echo 65000 ;;
        sw*) echo "650$(loopback "$1" | cut -d. -f4)" ;;
        h*) echo "6510${1#h}" ;;
    esac
}

# wire UPPER LOWER: interfaces are named after the peer.
wire() {
    ip link add "$2" netns "$(ns "$1")" type veth peer name "$1" netns "$(ns "$2")"
    in_node "$1" ip link set "$2" up
    in_node "$2" ip link set "$1" up
}

# link NUMBER UPPER LOWER: a wire with a /30, .1 on the upper node, .2 on the lower.
link() {
    wire "$2" "$3"
    in_node "$2" ip addr add "10.47.$1.1/30" dev "$3"
    in_node "$3" ip addr add "10.47.$1.2/30" dev "$2"
}

# node_up NODE: a namespace that forwards; a host's is made by `tap32 setup`.
node_up() {
    local node=$1
    mkdir -p "$dir/$node"
    ip netns add "$(ns "$node")"
    case $node in
        h?) return ;;
    esac
    in_node "$node" ip link set lo up
    in_node "$node" sysctl -qw net.ipv4.ip_forward=1 net.ipv4.fib_multipath_hash_policy=1 \
        net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
}

# wires_up: every router but the core, with its links.
wires_up() {
    local switch
    for switch in sw1a sw1b sw2a sw2b; do
        switch_up "$switch"
    done
}

# switch_up SWITCH: a new one, wired to the core and to its host.
switch_up() {
    node_up "$1"
    link "$(core_link "$1")" core "$1"
    wire "$1" "h${1:2:1}"
}

# switch_gone SWITCH: taken out of the rack, its wires with it.
switch_gone() {
    local pids
    pids=$(ip netns pids "$(ns "$1")")
    [ -z "$pids" ] || kill -9 $pids
    ip netns del "$(ns "$1")"
    rm -rf "${dir:?}/$1"
    # The kernel takes a namespace down a moment later, and the wires' other ends with it.
    until_true 10 "the wires of $1" wires_gone "$1"
}
wires_gone() { ! in_node core ip link show "$1" && ! in_node "h${1:2:1}" ip link show "$1"; }

# uplink_config UPLINK LINK HOST: of its tap32.toml; the uplink is named after its switch.
uplink_config() {
    cat <<EOF

[[uplink]]
name = "$1"
address = "10.47.$2.2/30"
peer = "10.47.$2.1"
peer-as = $(as_of "$1")
switch-port = "$3"
switch-router-id = "$(loopback "$1")"
EOF
}

# host_config HOST: its tap32.toml.
host_config() {
    local host=$1 rack=${1#h} side number=0
    cat <<EOF
[[bridge]]
name = "br-l2"
gateway = "${TAP32_LAB_GATEWAY:-10.0.0.1/24}"

[migration]
settle = "$settle"

[fabric]
protocol = "$fabric"
as = $(as_of "$host")
router-id = "$(loopback "$host")"
EOF
    for side in a b; do
        number=$((number + 1))
        uplink_config "sw$rack$side" "$rack$number" "$host"
    done
}

# router_config NODE: its frr.conf.
router_config() {
    local node=$1 rendered
    echo "hostname $node
log file /run/frr/frr.log"
    case $node in
        h?) "$tap32" --config "$dir/$node/tap32.toml" render frr ;;
        sw*)
            rendered=$("$tap32" --config "$dir/h${node:2:1}/tap32.toml" render switch frr "$node")
            echo "$rendered"
            session "$rendered" "$node" core "10.47.$(core_link "$node").1"
            ;;
        core) core_config ;;
    esac
}

# The core has what every router of the fabric has, a session with each switch, and the way to the client.
core_config() {
    local switch rendered
    rendered=$("$tap32" --config "$dir/h1/tap32.toml" render switch frr sw1a)
    sed '/^! on this switch/,$d' <<<"$rendered"
    for switch in sw1a sw1b sw2a sw2b; do
        session "$rendered" core "$switch" "10.47.$(core_link "$switch").2"
    done
    case $fabric in
        ospf) echo "router ospf
 ospf router-id $(loopback core)
 redistribute kernel" ;;
        bgp) echo "router bgp $(as_of core)
 bgp router-id $(loopback core)
 address-family ipv4 unicast
  network 172.31.0.0/24" ;;
    esac
}

core_link() {
    case $1 in sw1a) echo 1 ;; sw1b) echo 2 ;; sw2a) echo 3 ;; sw2b) echo 4 ;; esac
}

# session RENDERED NODE PEER PEER-ADDRESS: a switch's end of the link to its host, made one end of another link.
session() {
    case $fabric in
        ospf) sed -n '/^interface /,/^exit/p' <<<"$1" | sed "s/^interface .*/interface $3/; / description /d; / ip address /d" ;;
        bgp) sed -n '/^router bgp /,/^exit/p' <<<"$1" | sed "s/^router bgp .*/router bgp $(as_of "$2")/
            / bgp router-id /d; / description /d; / prefix-list /d
            s/neighbor [0-9.]*/neighbor $4/; s/remote-as .*/remote-as $(as_of "$3")/" ;;
    esac
}

# frr NODE WHAT...: see tests/lab/frr.
frr() { in_node "$1" "$root/tests/lab/frr" "$dir/$1" "${@:2}"; }

# The whole file goes through vtysh, as on a real host; a line that FRR does not take ends the lab.
frr_start() {
    local node=$1
    router_config "$node" >"$dir/$node/frr.conf"
    frr "$node" start "$([ "$fabric" = bgp ] && echo bgpd || echo ospfd)"
    frr "$node" vtysh -f /run/frr/frr.conf >"$dir/$node/vtysh.out" 2>&1 ||
        die "frr.conf of $node: $(cat "$dir/$node/vtysh.out")"
}

# frr_killed NODE: with what it had in the kernel left there.
frr_killed() {
    local daemon
    for daemon in "$dir/$1"/*.pid; do
        kill -9 "$(cat "$daemon")"
        rm -f "$daemon" "${daemon%.pid}.vty"
    done
}

# next_frr: the root whose FRR a host of this machine's release is upgraded to; nothing on the newest.
next_frr() {
    . tests/roots.sh
    [ "$(this_release)" = bookworm ] || return 0
    host_root trixie
    echo "$roots/trixie-host"
}

# Without the way into the node: tests ask often.
node_vtysh() { vtysh --vty_socket "$dir/$1" "${@:2}"; }

# neighbours NODE NUMBER: whether it has that many that are Full, or Established.
neighbours() {
    case $fabric in
        ospf) [ "$(node_vtysh "$1" -c 'show ip ospf neighbor json' | grep -c '"nbrState":"Full')" = "$2" ] ;;
        bgp) [ "$(node_vtysh "$1" -c 'show bgp ipv4 unicast summary json' | grep -c '"state":"Established"')" = "$2" ] ;;
    esac
}

# guest_net ADDRESS: the length and the gateway of the guest's subnet.
guest_net() { echo "24 10.0.0.1"; }

# routers_up: every node with its wires and its FRR.
routers_up() {
    local node host i
    say "nodes and links"
    for node in client core $hosts; do
        node_up "$node"
    done
    echo "$shape" >"$dir/fabric"
    link 0 core client
    wires_up
    in_node client ip route add default via 10.47.0.1
    for i in $(seq 16); do
        in_node client ip addr add "172.31.0.$i/32" dev lo
    done
    in_node core ip route add 172.31.0.0/24 via 10.47.0.2

    say "hosts: tap32 setup"
    for host in $hosts; do
        host_config "$host" >"$dir/$host/tap32.toml"
        mkdir -p "$dir/$host/bin"
        printf '#!/bin/sh\nexec %s --vty_socket %s "$@"\n' "$(command -v vtysh)" "$dir/$host" >"$dir/$host/bin/vtysh"
        chmod +x "$dir/$host/bin/vtysh"
        ln -s "$root/tests/lab/tc" "$dir/$host/bin/tc"
        in_node "$host" "$tap32" setup
    done

    say "FRR, $shape"
    for node in $nodes; do
        [ "$node" = client ] || frr_start "$node"
    done
}

[ "$shape" != mdu ] || . "$root/tests/lab/mdu.sh"
