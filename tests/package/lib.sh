# Roots to install into, what is in them, and how it is judged. Sourced by tests/packages.

# Its own lab, with namespaces and folders after our process id.
TAP32_LAB=$$
TAP32_LAB_FABRIC=ospf
. tests/lab/lib.sh
. tests/roots.sh

work=/var/tmp/tap32-packages-$$
passed=0
mkdir -p "$work"

end() {
    lab_down 2>/dev/null
    # Killed above, they end a moment later.
    local group
    for group in /sys/fs/cgroup{,/systemd,/unified}/tap32-$$-*; do
        [ ! -d "$group" ] || timeout 20 sh -c 'until find "$1" -depth -type d -delete; do sleep 0.1; done' sh "$group" 2>/dev/null || true
    done
    umount -lR "$work"/* 2>/dev/null || true
    rm -rf "$work"
}

# check WHAT COMMAND...: one thing that must be so.
check() {
    local what=$1
    shift
    "$@" || die "${case_name:-}: not so: $what"
    passed=$((passed + 1))
}
# silent COMMAND...: it ends well and prints nothing.
silent() {
    local said
    said=$("$@") && [ -z "$said" ] || { echo "$said" >&2 && return 1; }
}
same() { [ "$1" = "$2" ] || { diff <(echo "$1") <(echo "$2") >&2 && return 1; }; }

# fresh LOWER [NAME]: $root_dir is a copy of it, laid over it; the packages are in its /debs.
# What is written goes into memory: a layer may not lie inside the one below it, which can be this machine's root.
fresh() {
    local name=${2:-case}
    ! mountpoint -q "$work/$name" || umount -R "$work/$name"
    mkdir -p "$work/$name"
    mount -t tmpfs tmpfs "$work/$name"
    mkdir "$work/$name"/{root,upper,work}
    root_dir=$work/$name/root
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$work/$name/upper,workdir=$work/$name/work" "$root_dir"
    mount -t proc proc "$root_dir/proc"
    mkdir -p "$root_dir/debs"
    cp "$packages"/tap32_*.deb "$root_dir/debs/tap32.deb"
    cp "$packages"/tap32-*.rpm "$root_dir/debs/tap32.rpm"
    cp "$older"/target/packages/tap32_*.deb "$root_dir/debs/older.deb"
    cp "$older"/target/packages/tap32-*.rpm "$root_dir/debs/older.rpm"
}

# inside COMMAND...: in the root, with no terminal to ask.
inside() { chroot "$root_dir" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@" </dev/null; }

# install FILE...: what it says is in the log, which is shown if it fails.
install() { quietly inside dpkg -i "$@"; }
quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2 && die "${case_name:-}: failed: $*"; }; }

# Every file under /etc, /usr and /var with its owner, mode, target and content. Not dpkg's and rpm's own books.
listing() {
    (cd "$root_dir" && find etc usr var -path var/lib/dpkg -prune -o -path var/lib/rpm -prune -o -path usr/lib/sysimage -prune -o \
        -path var/log -prune -o -path var/cache -prune -o -printf '%M %u:%g %p %l\n' -o -true | sort -k3
        find etc usr var -path var/lib/dpkg -prune -o -path var/lib/rpm -prune -o -path usr/lib/sysimage -prune -o -path var/log -prune -o \
            -path var/cache -prune -o -type f -print0 | sort -z | xargs -0 sha256sum)
    inside dpkg-divert --list
}

what_is() {
    local file=$root_dir$1
    if [ -L "$file" ]; then
        echo "-> $(readlink "$file")"
    elif [ -f "$file" ]; then
        echo "file $(sha256sum "$file" | cut -c1-8)"
    elif [ -d "$file" ]; then
        echo "folder"
    else
        echo "-"
    fi
}

# table WHEN PATH...: what each path is, whose, and which package says it is its own.
table() {
    local path when=$1
    shift
    printf '  %s: %s\n' "$case_name" "$when"
    for path; do
        printf '    %-40s %-25s %-22s %s\n' "$path" "$(what_is "$path")" \
            "$([ ! -e "$root_dir$path" ] && [ ! -L "$root_dir$path" ] || stat -c '%U:%G %a' "$root_dir$path")" \
            "$(whose "$path")"
    done
}
whose() {
    if [ "$kind" = rpm ]; then
        rpm --root "$root_dir" -qf "$1" 2>/dev/null | grep -v 'not owned' || true
    else
        inside dpkg -S "$1" 2>/dev/null | sed -n 's/^diversion by \(.*\) to: .*/diverted by \1/p; s/^\([a-z0-9-]*\): .*/\1/p' | paste -sd ' '
    fi
}
paths="/usr/sbin/tap32 /etc/qemu-ifup /etc/qemu-ifup.distrib /etc/qemu-ifdown /etc/qemu-ifdown.distrib
    /etc/libvirt/hooks/qemu.d/50-tap32 /etc/tap32.toml /etc/iproute2/rt_protos.d/tap32.conf /etc/iproute2/rt_protos"

ours() { [ "$(readlink "$root_dir$1")" = /usr/sbin/tap32 ]; }
absent() { [ ! -e "$root_dir$1" ] && [ ! -L "$root_dir$1" ]; }
holds() { grep -q -- "$2" "$root_dir$1"; }

# A systemd that runs, as far as a package can see: its systemctl writes down what it is asked. `asked COMMAND...`
# prints what that was while the command ran.
with_systemd() {
    mkdir -p "$root_dir/run/systemd/system"
    printf '#!/bin/sh\necho "$*" >>/asked\n' >"$root_dir/usr/bin/systemctl.new"
    chmod 755 "$root_dir/usr/bin/systemctl.new"
    mv "$root_dir/usr/bin/systemctl.new" "$root_dir/usr/bin/systemctl"
}
asked() {
    : >"$root_dir/asked"
    "$@"
    grep -oE '(daemon-reload|(stop|start|restart|try-restart|try-reload-or-restart|enable|disable)( --now)?( [a-z0-9-]*\.service)+)' "$root_dir/asked" | uniq | paste -sd ';'
}
