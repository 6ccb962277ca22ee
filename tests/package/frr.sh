# The rendered texts, read by the FRR of another release than this machine's, which tests/setup.rs asks. Sourced by
# tests/packages.

# frr_root RELEASE: a root with that release's FRR, made once.
frr_root() {
    local root_dir=$roots/frr-$1.new
    [ ! -d "$roots/frr-$1" ] || return 0
    base "$1"
    say "making a root of Debian $1 with FRR"
    rm -rf "$root_dir"
    cp -a "$roots/$1" "$root_dir"
    # Nothing starts while it is made.
    printf '#!/bin/sh\nexit 101\n' >"$root_dir/usr/sbin/policy-rc.d"
    chmod 755 "$root_dir/usr/sbin/policy-rc.d"
    inside sh -ec 'apt-get update -qq; apt-get install -y -qq --no-install-recommends frr; apt-get clean' \
        >"$roots/frr-$1.log" 2>&1 || die "FRR on $1: $roots/frr-$1.log"
    mv "$root_dir" "$roots/frr-$1"
}

frr_cases() {
    local release=$1 expected what text count=0
    case_name="FRR on $release"
    frr_root "$release"
    # In a copy: nothing is left in the root, which the next run uses too.
    fresh "$roots/frr-$release" frr
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
}
