# $1 of a scriptlet is the number of this package's versions that will be left: 1 is an installation, 2 an upgrade,
# 0 a removal. What stands in our place at the installation is kept beside; after that it is the operator's.
left=$1

displace() {
    if [ "$left" = 1 ] && is_there "$1" && ! is_ours "$1"; then
        if is_there "$1.before-tap32"; then
            echo "tap32: $1 stays as it is, as $1.before-tap32 is there already: move that away and install tap32 again" >&2
            return 1
        fi
        mv "$1" "$1.before-tap32" || exit 1
    fi
}

put_back() {
    if is_ours "$1"; then
        rm -f "$1"
    fi
    if is_there "$1.before-tap32"; then
        if is_there "$1"; then
            echo "tap32: $1 is not our link and stays; what was there before is $1.before-tap32" >&2
        else
            mv "$1.before-tap32" "$1"
        fi
    fi
}

packaged() {
    rpm -qf "$1" >/dev/null 2>&1
}

service() {
    [ ! -d /run/systemd/system ] || systemctl "$@" >/dev/null 2>&1 || true
}
