# On Debian /etc/qemu-ifup and /etc/qemu-ifdown are conffiles of qemu-system-common: diverted, so that dpkg goes
# on looking after them under their other name, whether that package is installed, upgraded or removed.
# The diversion also remembers that our link was made. Somebody else's diversion stays as it is.
displace() {
    case $(dpkg-divert --listpackage "$1") in
        '')
            if ! is_there "$1"; then
                :
            elif ! packaged "$1"; then
                # The operator's own: out of dpkg's way, whatever qemu-system-common brings later.
                mv "$1" "$1.before-tap32" || exit 1
            elif is_there "$1.distrib"; then
                # dpkg-divert moves nothing onto a file that is there already.
                echo "tap32: $1 stays as it is, as $1.distrib is there already: move that away and install tap32 again" >&2
                return 1
            fi
            dpkg-divert --quiet --package tap32 --divert "$1.distrib" --rename --add "$1" || exit 1
            ;;
        tap32) ;;
        *)
            is_ours "$1" || echo "tap32: $1 is diverted by somebody else and stays as it is: ln -sf $tap32 $1 lets QEMU call tap32" >&2
            return 1
            ;;
    esac
}

put_back() {
    if [ "$(dpkg-divert --listpackage "$1")" != tap32 ]; then
        # An earlier removal may have been cut off between the diversion's end and the operator's script.
        if ! is_there "$1" && is_there "$1.before-tap32"; then
            mv "$1.before-tap32" "$1"
        fi
        return 0
    fi
    # dpkg 1.21 and 1.22 pass over a diverted conffile when its package is purged: it is nobody's then.
    packaged "$1" || rm -f "$1.distrib"
    if is_ours "$1"; then
        rm -f "$1"
    elif is_there "$1" && { is_there "$1.distrib" || is_there "$1.before-tap32"; }; then
        echo "tap32: $1, which is not our link, is kept as $1.dpkg-old" >&2
        mv -f "$1" "$1.dpkg-old"
    fi
    dpkg-divert --quiet --package tap32 --divert "$1.distrib" --rename --remove "$1"
    if is_there "$1.before-tap32"; then
        ! is_there "$1" || mv "$1" "$1.dpkg-dist"
        mv "$1.before-tap32" "$1"
    fi
}

# Whether a package has the path; the lines about diversions say nothing of that.
packaged() {
    dpkg-query -S "$1" 2>/dev/null | grep -qv '^diversion '
}

# Through policy-rc.d, with which an administrator keeps services from being touched.
service() {
    [ ! -d /run/systemd/system ] || deb-systemd-invoke "$@" >/dev/null 2>&1 || true
}
