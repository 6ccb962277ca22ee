# The rendered texts, read by the FRR of another release than this machine's, which tests/setup.rs asks. Sourced by
# tests/packages.

frr_cases() {
    local release=$1 expected what text count=0
    case_name="FRR on $release"
    host_root "$release"
    # In a copy: nothing is left in the root, which the next run uses too.
    fresh "$roots/$release-host" frr
    printf '  %s: %s\n' "$case_name" "$(inside dpkg-query -Wf '${Version}' frr)"
    for what in tests/golden/render/*/what; do
        expected=${what%/what}/expected
        [[ $(cat "$what") =~ ^(frr|switch frr|border frr) && -e $expected && $(cat "$expected") != "error: "* ]] || continue
        cp "$expected" "$root_dir/text"
        text=$(inside vtysh -C -f /text 2>&1) || text="vtysh failed: $text"
        check "$expected is read without a word" same "" "$text"
        count=$((count + 1))
    done
    check "texts were read" [ "$count" -ge 6 ]
    cp tests/golden/render/seed-frr/expected "$root_dir/text"
    check "a guest's route is taken before its bridge has carrier" same "inactive, then selected" "$(without_carrier 2>&1)"
}

# What FRR has of a guest's route through a bridge without carrier, before it reads the text and after.
without_carrier() {
    inside unshare -n --pid --fork --kill-child bash -ec "$(declare -f die until_true)"'
        mount -t proc proc /proc
        ip link add br-l2 type bridge
        ip addr add 10.0.0.1/24 dev br-l2
        ip link set br-l2 up
        # As a tap that nobody has open. Without any port a bridge has carrier.
        ip link add vnet0 type veth peer name guest
        ip link set vnet0 master br-l2 up
        shows() { [[ $($1) == *"$2"* ]]; }
        until_true 10 "a bridge without carrier" shows "ip link show br-l2" NO-CARRIER
        mkdir -p /run/frr
        chown frr:frr /run/frr
        for daemon in mgmtd zebra; do /usr/lib/frr/$daemon -d -A 127.0.0.1 >/dev/null 2>&1; done
        ip route add 10.0.0.10/32 dev br-l2 proto 132 scope link metric 4026531940
        route() { vtysh -c "show ip route 10.0.0.10/32 json"; }
        until_true 10 "the route of the kernel in zebra" shows route "\"protocol\":\"kernel\""
        shows route "\"selected\":true" && printf "selected, then " || printf "inactive, then "
        vtysh -f /text >/dev/null 2>&1
        until_true 10 "the route selected" shows route "\"selected\":true"
        echo selected'
}
