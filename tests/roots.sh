# Debian roots, made once in target/lab/roots; `rm -r target/lab/roots` has all of them made anew. What uses one lays a
# layer over it.

roots=$lab/roots

this_release() { (. /etc/os-release && echo "$VERSION_CODENAME"); }
# Of Debian 12 and 13, the one that this machine is not.
other_release() { [ "$(this_release)" = trixie ] && echo bookworm || echo trixie; }

# base RELEASE: a root with what the packages' cases need: iproute2, systemd, and all that qemu-system-common depends on,
# which itself lies beside it in /debs.
base() {
    local release=$1 made=$roots/$1.new
    [ ! -d "$roots/$release" ] || return 0
    need debootstrap=debootstrap
    say "making a root of Debian $release"
    # Of the user who called sudo, as all else in target/.
    as_user mkdir -p "$roots"
    rm -rf "$made"
    debootstrap --variant=minbase --include=iproute2,systemd,qemu-system-common "$release" "$made" \
        >"$roots/$release.log" 2>&1 || die "debootstrap $release failed: see $roots/$release.log"
    # Nothing of these roots outlives a power cut: no file waits for the disk.
    echo force-unsafe-io >"$made/etc/dpkg/dpkg.cfg.d/fast"
    chroot "$made" sh -ec 'mkdir /debs && cd /debs && apt-get download -qq -o APT::Sandbox::User=root qemu-system-common &&
        dpkg --purge qemu-system-common && apt-get clean' >>"$roots/$release.log" 2>&1 ||
        die "cannot get qemu-system-common of Debian $release: see $roots/$release.log"
    # The same with another script inside, as a later version could bring.
    dpkg-deb -R "$made"/debs/qemu-system-common_*.deb "$made/later"
    sed -i 's/^Version: .*/&+later/' "$made/later/DEBIAN/control"
    echo '# A later version.' >>"$made/later/etc/qemu-ifup"
    dpkg-deb -b "$made/later" "$made/debs/later.deb" >/dev/null
    rm -rf "$made/later"
    mv "$made/debs"/qemu-system-common_*.deb "$made/debs/qemu.deb"
    mv "$made" "$roots/$release"
}

# host_root RELEASE: a root with every program that the tests run and a systemd that boots, $roots/RELEASE-host. Made anew
# when the tests run others.
host_root() {
    local release=$1 made=$roots/$1-host.new packages
    packages="systemd-sysv dbus kmod udev $(printf '%s\n' $suite | cut -d= -f2 | sort -u | xargs)"
    [ "$(cat "$roots/$release-host/packages" 2>/dev/null)" != "$packages" ] || return 0
    base "$release"
    say "making a root of Debian $release with all that the tests run"
    rm -rf "$made" "$roots/$release-host"
    cp -a "$roots/$release" "$made"
    # shellcheck disable=SC2086 # a word each
    furnish "$made" "$roots/$release-host.log" $packages
    echo "$packages" >"$made/packages"
    mv "$made" "$roots/$release-host"
}

# furnish ROOT LOG PACKAGE...: installs them, and starts nothing meanwhile.
furnish() {
    local policy=$1/usr/sbin/policy-rc.d log=$2
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    # Its /proc goes with its mount namespace, also when it fails.
    unshare --mount sh -ec 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"' "$1" \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C sh -ec '
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends "$@"
        apt-get clean' sh "${@:3}" </dev/null >"$log" 2>&1 || die "cannot install the programs into $1: see $log"
    rm "$policy"
}
