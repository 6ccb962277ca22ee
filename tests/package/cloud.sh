# What `tap32 render cloud-init` prints, read by cloud-init itself. Its packages are unpacked only: installed, they would
# make this machine a cloud's guest. Sourced by tests/packages.

cloud_init=$lab/cloud-init

cloud_cases() {
    cloud_init_made
    cloud_case_two_nics
    cloud_case_outside
}

cloud_init_made() {
    [ ! -d "$cloud_init" ] || return 0
    say "unpacking cloud-init"
    rm -rf "$cloud_init.new"
    mkdir -p "$cloud_init.new"
    apt-get update -qq >&2
    (cd "$cloud_init.new" && apt-get download -qq -o APT::Sandbox::User=root cloud-init python3-yaml python3-configobj \
        python3-six python3-jinja2 python3-markupsafe python3-jsonschema python3-attr python3-pyrsistent python3-oauthlib \
        python3-requests python3-urllib3 python3-chardet python3-idna python3-certifi python3-pkg-resources \
        python3-jsonpatch python3-json-pointer && for deb in *.deb; do dpkg -x "$deb" .; done && rm ./*.deb)
    mv "$cloud_init.new" "$cloud_init"
}

# rendered CASE ADDRESS...: the network-config of a golden case's tap32.toml, by what the packages hold.
rendered() { "$root/target/stage/tap32" --config "tests/golden/render/$1/tap32.toml" render cloud-init "${@:2}" >"$work/network-config"; }

# converted RENDERER: cloud-init takes it without a word of complaint; the files are in $work/converted.
converted() {
    rm -rf "$work/converted"
    PYTHONPATH=$cloud_init/usr/lib/python3/dist-packages /usr/bin/python3 -m cloudinit.cmd.main devel net-convert \
        --network-data "$work/network-config" --kind yaml --directory "$work/converted" --distro debian \
        --output-kind "$1" >"$work/cloud.log" 2>&1 && ! grep -E 'WARNING|ERROR|Traceback' "$work/cloud.log"
}
# says FILE LINE...: the file has each line, whatever it is indented by.
says() {
    local file=$work/converted/$1 line
    shift
    for line; do
        grep -qE "^ *(- +)?$line\$" "$file" || { cat "$file" >&2 && return 1; }
    done
}

cloud_case_two_nics() {
    case_name="cloud-init: a guest with two NICs"
    rendered dnsmasq-two-bridges 10.0.0.2 10.16.5.0
    check "it is taken for networkd" converted networkd
    check "the first NIC" says etc/systemd/network/10-cloud-init-eth0.network MACAddress=02:42:0a:00:00:02 \
        Address=10.0.0.2/30 Gateway=10.0.0.1 'DNS=10.9.0.2 10.9.0.3' Domains=example.org MTUBytes=9000
    check "the second NIC" says etc/systemd/network/10-cloud-init-eth1.network MACAddress=02:42:0a:10:05:00 \
        Address=10.16.5.0/16
    check "one default route" same 1 "$(cat "$work"/converted/etc/systemd/network/* | grep -c '^Gateway=')"
    check "it is taken for ifupdown" converted eni
    check "with its gateway" says etc/network/interfaces.d/50-cloud-init 'address 10.0.0.2/30' \
        'post-up route add default gw 10.0.0.1 .*' 'address 10.16.5.0/16'
}

cloud_case_outside() {
    case_name="cloud-init: a guest outside of the gateway's subnet"
    rendered dnsmasq-outside 192.0.2.5
    check "it is taken for networkd" converted networkd
    check "it is taken for netplan" converted netplan
    check "its gateway is on link" says etc/netplan/50-cloud-init.yaml 192.0.2.5/32 'on-link: true' 'via: 10.0.0.1'
}
