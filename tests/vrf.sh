#!/bin/busybox sh
# shellcheck shell=dash
# tests/vrf.rs runs it as the first process of a virtual machine, whose kernel has VRFs, bonds, VLANs and dummies. It prints
# a line for each check, and "end" with their number.
export PATH=/bin
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
# The shell would take its own, which knows little.
ip() { /bin/ip "$@"; }
mkdir -p /etc /run /tmp
while read -r module; do insmod "/modules/$module.ko" || echo "FAILED insmod $module"; done </modules/order
ip link set lo up

number=0
# check WHAT COMMAND...: the command must succeed.
check() {
    what=$1
    shift
    number=$((number + 1))
    if said=$("$@" 2>&1); then echo "ok $what"; else echo "FAILED $what: $(echo "$* said: $said" | tail -c 900)"; fi
}
# refused WHAT WORD COMMAND...: the command must exit 1 with one line on stderr that has the word, print nothing else, and
# change nothing.
refused() {
    what=$1 word=$2
    shift 2
    number=$((number + 1))
    before=$(state)
    "$@" >/tmp/out 2>/tmp/err
    code=$?
    if [ $code = 1 ] && [ ! -s /tmp/out ] && [ "$(wc -l </tmp/err)" = 1 ] && grep -qF -- "$word" /tmp/err &&
        [ "$before" = "$(state)" ]; then
        echo "ok $what"
    else
        echo "FAILED $what: exit $code, out: $(cat /tmp/out), err: $(cat /tmp/err)"
        [ "$before" = "$(state)" ] || { echo "$before" >/tmp/before && state | diff /tmp/before -; }
    fi
}
not() { ! "$@"; }
has() { printf '%s' "$1" | grep -qF -- "$2"; }
# Without what the kernel changes by itself a moment later.
state() {
    ip -o link show | sed 's/<[^>]*>//; s/ state [A-Z]*//; s/ qdisc [a-z_]*//'
    ip -o -4 addr show
    ip -4 route show table all | sed -E 's/ (linkdown|dead)//g'
    ip neigh show nud permanent
    cat /proc/sys/net/ipv4/conf/br-l2/proxy_arp
}
route_of() { ip route show table main proto 132; }
xml() {
    echo "<domain><devices><interface type='bridge'><mac address='$2'/><source bridge='br-l2'/><target dev='$1'/></interface></devices></domain>"
}
hook() { xml vnet1 02:42:0a:00:00:0b | /hooks/qemu guest "$1" begin -; }
mkdir -p /hooks
ln -s /bin/tap32 /hooks/qemu
# wait_for WHAT COMMAND...: for 10 seconds.
wait_for() {
    what=$1
    shift
    number=$((number + 1))
    for _ in $(seq 100); do
        if "$@" >/dev/null 2>&1; then
            echo "ok $what"
            return
        fi
        usleep 100000
    done
    echo "FAILED $what: not within 10 s"
}

printf '[[bridge]]\nname = "br-l2"\ngateway = "10.0.0.1/24"\n' >/etc/tap32.toml

# Ports that are no taps, of kinds that other kernels lack.
ip link add br-l2 type bridge
ip addr add 10.0.0.1/24 dev br-l2
ip link set br-l2 up
ip link add low type dummy
ip link set low up
for port in dummy1 bond1 low.5 vx0 mvl0; do
    case $port in
        dummy1) ip link add dummy1 type dummy ;;
        bond1) ip link add bond1 type bond ;;
        low.5) ip link add link low name low.5 type vlan id 5 ;;
        vx0) ip link add vx0 type vxlan id 7 dstport 4789 dev low ;;
        mvl0) ip link add link low name mvl0 type macvlan mode bridge ;;
    esac
    ip link set "$port" master br-l2 up
    refused "setup with $port" "\`ip link set dev $port nomaster\`" tap32 setup
    refused "setup -n with $port" "other-ports = true" tap32 setup -n
    ip link del "$port"
done
check "setup without them" tap32 setup
check "proxy_arp is set then" grep -q 1 /proc/sys/net/ipv4/conf/br-l2/proxy_arp

# A bridge in a VRF, and one in a bond.
ip tuntap add vnet0 mode tap
ip tuntap add vnet1 mode tap
check "a guest" tap32 up vnet0 --mac 02:42:0a:00:00:0a
check "its route" has "$(route_of)" "10.0.0.10 dev br-l2"
ip link add blue type vrf table 10
ip link set blue up
ip link add bond9 type bond
for master in blue bond9; do
    [ $master = blue ] || ip link set br-l2 down
    check "br-l2 into $master" ip link set br-l2 master $master
    check "the kernel has dropped the route, $master" not has "$(route_of)" 10.0.0.10
    refused "up, $master" $master tap32 up vnet1 --mac 02:42:0a:00:00:0b
    refused "up -n, $master" $master tap32 up -n vnet1 --mac 02:42:0a:00:00:0b
    refused "up again, $master" $master tap32 up vnet0 --mac 02:42:0a:00:00:0a
    refused "setup, $master" $master tap32 setup
    refused "setup -n, $master" $master tap32 setup -n
    refused "prepare, $master" $master hook prepare
    refused "start, $master" $master hook start
    before=$(state)
    check "reconcile has nothing to do, $master" [ -z "$(tap32 reconcile 2>&1)" ]
    status=$(tap32 status --json)
    check "status is refused, $master" has "$status" '"route":"refused"'
    check "status says why, $master" has "$status" "$master"
    check "--check, $master" not tap32 status --check
    check "one tap explained, $master" has "$(tap32 status vnet0)" "$master"
    doctor=$(tap32 doctor --json)
    check "doctor fails, $master" has "$doctor" '{"check":"br-l2 master","verdict":"fail"'
    check "doctor's fix, $master" has "$doctor" '"fix":"ip link set dev br-l2 nomaster"'
    check "nothing has changed, $master" test "$before" = "$(state)"
    ip link set dev br-l2 nomaster
    ip link set br-l2 up
    check "setup after $master" tap32 setup
    check "reconcile after $master" tap32 reconcile
    check "its route after $master" has "$(route_of)" "10.0.0.10 dev br-l2"
done

# A VRF that is put around a bridge later, with watch running; a guest can go from there.
has_route() { has "$(route_of)" 10.0.0.10; }
ip route flush proto 132
tap32 watch 2>/tmp/watch </dev/null &
wait_for "watch runs" has_route
ip link set br-l2 master blue
wait_for "watch reports it" grep -q "vnet0.*VRF blue" /tmp/watch
check "watch leaves it alone" not has_route
ip link set br-l2 nomaster
wait_for "watch gives the route back" has_route
ip link set br-l2 master blue
check "down in a VRF" tap32 down vnet0
check "the tap is off" not has "$(ip link show vnet0)" master
sed 's/^/watch said: /' /tmp/watch
echo "end $number"
poweroff -f
