# The lab of two MDUs, which is always BGP: what it has in place of the two racks of fabric.sh. Sourced by it.
#
#                      client 172.31.0.1-16
#                         |
#                        core                     the backbone, AS 64900
#                     /        \
#                   b1          b2                borders: MDU 1 has 10.1.0.0/16 and 10.3.0.0/16, MDU 2 10.2.0.0/16
#                  /  \        /  \
#                h1    h2    h3    l2             a leaf
#                                    \
#                                     h4          br-m1 10.1.0.1 and br-m2 10.2.0.1 on each, so that any guest runs anywhere
#
# Every router runs rendered text: a host `render frr`, the switch of a host `render switch`, a border `render border` too
# (it is a switch of hosts here, and once has a leaf behind it). Where a subnet spans MDUs, its gateway is a /32.

nodes="client core b1 b2 l2 h1 h2 h3 h4"
hosts="h1 h2 h3 h4"
well="core=2 b1=3 b2=3 l2=2 h1=1 h2=1 h3=1 h4=1"

# The switch of a host.
switch_of() { case $1 in h[12]) echo b1 ;; h3) echo b2 ;; h4) echo l2 ;; esac; }
mdu_of() { case $1 in ?1 | h2) echo 1 ;; *) echo 2 ;; esac; }

# aggregates MDU: the ranges of its guests; a border whose MDU has moved has others.
aggregates() {
    cat "$dir/aggregates.$1" 2>/dev/null || { [ "$1" = 1 ] && echo '"10.1.0.0/16", "10.3.0.0/16"' || echo '"10.2.0.0/16"'; }
}

loopback() {
    case $1 in
        core) echo 10.255.0.1 ;;
        b?) echo "10.255.0.1${1#b}" ;;
        l2) echo 10.255.0.22 ;;
        h?) echo "10.255.$(mdu_of "$1").${1#h}" ;;
    esac
}

as_of() {
    case $1 in
        core) echo 64900 ;;
        b?) echo "6490${1#b}" ;;
        l2) echo 64912 ;;
        h?) echo "6510${1#h}" ;;
    esac
}

wires_up() {
    local n host
    for n in 1 2; do
        node_up "b$n"
        # The border's end gets its address from the rendered text.
        wire core "b$n"
        in_node core ip addr add "10.47.$n.1/30" dev "b$n"
    done
    node_up l2
    link 12 b2 l2
    for host in $hosts; do
        wire "$(switch_of "$host")" "$host"
    done
}

host_config() {
    local host=$1 mdu
    mdu=$(mdu_of "$host")
    cat <<CONF
[[bridge]]
name = "br-m1"
gateway = "10.1.0.1/16"
on-link = false

[[bridge]]
name = "br-m2"
gateway = "10.2.0.1/16"
on-link = false

[migration]
settle = "$settle"

[fabric]
protocol = "bgp"
as = $(as_of "$host")
router-id = "$(loopback "$host")"
$(uplink_config "$(switch_of "$host")" "2${host#h}" "$host")

[mdu]
aggregate = [$(aggregates "$mdu")]
guests = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"]
hosts = ["10.255.$mdu.0/24"]
as = $(as_of "b$mdu")

[[backbone]]
address = "10.47.$mdu.2/30"
peer = "10.47.$mdu.1"
peer-as = $(as_of core)
port = "core"
CONF
}

# rendered HOST WHAT...: a text from the host's file.
rendered() { "$tap32" --config "$dir/$1/tap32.toml" render "${@:2}"; }
# What every router of the fabric has.
every() { rendered h1 switch frr b1 | sed '/^! on this switch/,$d'; }
# A host of the border's MDU, whose file describes it.
host_of() { [ "$(mdu_of "$1")" = 1 ] && echo h1 || echo h3; }

router_config() {
    local node=$1 switch host
    switch=$(rendered h1 switch frr b1)
    printf 'hostname %s\nlog file /run/frr/frr.log\n' "$node"
    for host in $hosts; do
        [ "$(switch_of "$host")" != "$node" ] || rendered "$host" switch frr
    done
    case $node in
        h?) rendered "$node" frr ;;
        b?) rendered "$(host_of "$node")" border frr ;;&
        b2) session "$switch" b2 l2 10.47.12.2 ;;
        l2) session "$switch" l2 b2 10.47.12.1 ;;
        core)
            every
            session "$switch" core b1 10.47.1.2
            session "$switch" core b2 10.47.2.2
            printf 'router bgp %s\n bgp router-id %s\n address-family ipv4 unicast\n  network 172.31.0.0/24\n' \
                "$(as_of core)" "$(loopback core)"
            ;;
    esac
}

guest_net() { echo "16 10.$(cut -d. -f2 <<<"$1").0.1"; }

# border_reads BORDER: its text from the files as they are now, and the end of what that text does not have any more.
border_reads() {
    local text file=$dir/$1/more.conf
    text=$(rendered "$(host_of "$1")" border frr)
    {
        printf 'no ip prefix-list TAP32-MDU\nno ip prefix-list TAP32-MDU-GUESTS\n'
        printf 'router bgp %s\n address-family ipv4 unicast\n' "$(as_of "$1")"
        node_vtysh "$1" -c 'show running-config' | { grep '^  aggregate-address ' || true; } |
            { grep -vxFf <(grep '^  aggregate-address ' <<<"$text") || true; } | sed 's/^ */  no /'
        echo "$text"
    } >"$file"
    node_vtysh "$1" -f "$file"
}

# ranges MDU-1 MDU-2: what the files say from now on.
ranges() {
    local host
    echo "$1" >"$dir/aggregates.1"
    echo "$2" >"$dir/aggregates.2"
    for host in $hosts; do
        host_config "$host" >"$dir/$host/tap32.toml"
    done
}
ranges_home() {
    ranges '"10.1.0.0/16", "10.3.0.0/16"' '"10.2.0.0/16"'
    border_reads b1
    border_reads b2
}

# move_range: MDU 1 gives 10.1.0.0/16 to MDU 2, where all its guests are. Their own /32s decide until only the new border
# announces the range; the new border's text then withdraws them. With that text first, the /32s go while the old border
# still announces the range, and drops what is for them (`ip monitor` on the core: for 108 ms).
move_range() {
    ranges '"10.3.0.0/16"' '"10.2.0.0/16", "10.1.0.0/16"'
    node_vtysh b2 -c 'configure terminal' -c 'ip prefix-list TAP32-MDU seq 10 permit 10.1.0.0/16' \
        -c "router bgp $(as_of b2)" -c 'address-family ipv4 unicast' -c 'aggregate-address 10.1.0.0/16'
    until_true 10 "the range from b2" announces b2
    border_reads b1
    until_true 10 "no range from b1" eval '! announces b1'
    border_reads b2
}
# announces BORDER: the range, as the core hears it.
announces() { node_vtysh core -c "show bgp ipv4 unicast 10.1.0.0/16 json" | grep -q "\"string\":\"$(as_of "$1")\""; }

# A guest that is a route and an address of its host: what the routers see of a guest, and an answer to each echo, without
# a QEMU. The address stands in the kernel's local table, which zebra does not read.
#
# stand_in HOST ADDRESS [CLAIM]: it runs here, and has just arrived.
stand_in() {
    local bridge
    bridge=br-m$(cut -d. -f2 <<<"$2")
    # The kernel announces no route of a bridge without carrier.
    in_node "$1" ip link show "keep-$bridge" >/dev/null 2>&1 || in_node "$1" sh -ec "
        ip link add keep-$bridge type veth peer name other-$bridge
        ip link set keep-$bridge master $bridge up
        ip link set other-$bridge up"
    in_node "$1" ip route add local "$2" dev lo
    [ $# = 2 ] || in_node "$1" ip route add "$2/32" dev "$bridge" proto 132 scope link metric 10
    in_node "$1" ip route add "$2/32" dev "$bridge" proto 132 scope link metric 4026531940
}
# stand_in_gone HOST ADDRESS: its host has cleaned up.
stand_in_gone() {
    in_node "$1" sh -c "ip route del local $2 dev lo; while ip route del $2/32 proto 132; do :; done" 2>/dev/null || true
}
# stand_in_moves ADDRESS FROM TO: the source cleans up when it has heard the claim.
stand_in_moves() {
    stand_in "$3" "$1" claim
    until_true 10 "$2 hears the claim of $1" yields "$2" "$1"
    stand_in_gone "$2" "$1"
}
yields() { in_node "$1" ip -j route show exact "$2/32" proto bgp | grep -q dst; }
# claim_ends HOST ADDRESS...: `settle` is over.
claim_ends() {
    local address
    for address in "${@:2}"; do
        in_node "$1" ip route del "$address/32" proto 132 metric 10
    done
}

