# Debian roots, made once in target/lab/roots. What uses one lays a layer over it. Sourced by tests/run and tests/packages.

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
    mkdir -p "$roots"
    rm -rf "$made"
    debootstrap --variant=minbase --include=iproute2,systemd,qemu-system-common "$release" "$made" \
        >"$roots/$release.log" 2>&1 || die "debootstrap $release failed: $roots/$release.log"
    # Nothing of these roots outlives a power cut: no file waits for the disk.
    echo force-unsafe-io >"$made/etc/dpkg/dpkg.cfg.d/fast"
    chroot "$made" sh -ec 'mkdir /debs && cd /debs && apt-get download -qq -o APT::Sandbox::User=root qemu-system-common &&
        dpkg --purge qemu-system-common && apt-get clean' >>"$roots/$release.log" 2>&1
    # The same with another script inside, as a later version could bring.
    dpkg-deb -R "$made"/debs/qemu-system-common_*.deb "$made/later"
    sed -i 's/^Version: .*/&+later/' "$made/later/DEBIAN/control"
    echo '# A later version.' >>"$made/later/etc/qemu-ifup"
    dpkg-deb -b "$made/later" "$made/debs/later.deb" >/dev/null
    rm -rf "$made/later"
    mv "$made/debs"/qemu-system-common_*.deb "$made/debs/qemu.deb"
    mv "$made" "$roots/$release"
}

# host_root RELEASE: a root with every program that the tests run and a systemd that boots, $roots/RELEASE-host.
host_root() {
    local release=$1 made=$roots/$1-host.new
    [ ! -d "$roots/$release-host" ] || return 0
    base "$release"
    say "making a root of Debian $release with all that the tests run"
    rm -rf "$made"
    cp -a "$roots/$release" "$made"
    # Nothing starts while it is made.
    printf '#!/bin/sh\nexit 101\n' >"$made/usr/sbin/policy-rc.d"
    chmod 755 "$made/usr/sbin/policy-rc.d"
    mount -t proc proc "$made/proc"
    chroot "$made" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C sh -ec '
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends systemd-sysv dbus kmod udev "$@"
        apt-get clean
        rm /usr/sbin/policy-rc.d' sh $(printf '%s\n' $suite | cut -d= -f2 | sort -u) </dev/null \
        >"$roots/$release-host.log" 2>&1 || die "the programs of Debian $release: $roots/$release-host.log"
    umount "$made/proc"
    mv "$made" "$roots/$release-host"
}
