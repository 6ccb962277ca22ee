# The packages under test and an older version of them, what linters say, and the other ways to build. Sourced by tests/packages.

packages=$root/target/packages
# Of the two folders, one has the package's name, whatever the clone's is: cargo writes the package's id differently there.
twin=$lab/twins/tap32
[ "${root##*/}" != tap32 ] || twin=$lab/twins/another
older=$lab/older

# sources FOLDER: the same sources there. Its target/ and the files' times are kept, or every run would compile anew.
sources() {
    mkdir -p "$1"
    find "$1" -mindepth 1 -maxdepth 1 ! -name target -exec rm -rf {} +
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp -p --parents -t "$1"
}

build_packages() {
    epoch=$(git log -1 --format=%ct)
    as_user mkdir -p "$lab"
    build_in "$root"
    # What the second build must not depend on: folder, the user's folder of crates, times and modes of the sources.
    sources "$twin"
    find "$twin"/{packaging,LICENSE,CHANGELOG.md} -exec touch -hd 2001-02-03 {} +
    chmod -R go= "$twin/packaging"
    as_user mkdir -p "$lab/crates"
    as_user ln -sfn "$(as_user sh -c 'echo "${CARGO_HOME:-$HOME/.cargo}"')/registry" "$lab/crates/registry"
    build_in "$twin" "CARGO_HOME=$lab/crates"
    # The previous version: a lower number, and other words in the configuration file.
    sources "$older"
    sed -i 's/^version = "[0-9.]*"/version = "0.0.9"/' "$older/Cargo.toml"
    sed -i '/^name = "tap32"/{n;s/".*"/"0.0.9"/}' "$older/Cargo.lock"
    sed -i '1a # The older file.' "$older/packaging/tap32.toml"
    # Quickly: what it holds is installed and upgraded, hardly ever run.
    build_in "$older" CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
}

# build_in FOLDER [VARIABLE=VALUE]
build_in() {
    local log=$lab/packages.log
    # Not the Debian roots under it, whose owners are theirs.
    [ -z "${SUDO_USER:-}" ] || find "$1" -path "$roots" -prune -o -exec chown -h "$SUDO_USER" {} +
    as_user env -C "$1" SOURCE_DATE_EPOCH="$epoch" TAP32_TOOLS="$root/target/tools" "${@:2}" packaging/build >"$log" 2>&1 ||
        { tail -20 "$log" >&2 && die "packaging/build failed in $1: $log"; }
}

same_bytes_twice() {
    case_name="two builds"
    check "the same bytes" same "$(cat "$packages/SHA256SUMS")" "$(cat "$twin/target/packages/SHA256SUMS")"
    (cd "$packages" && sha256sum --quiet -c SHA256SUMS && cat SHA256SUMS)
    # What must not depend on the machine: its folders, and anything to install first.
    check "no folder of this machine in the program" sh -c "! grep -qaE '($root|$twin)/(src|target)|$HOME/.cargo' target/stage/tap32"
    check "news that dpkg can read" same tap32 "$(dpkg-deb --fsys-tarfile "$packages"/*.deb |
        tar -xO ./usr/share/doc/tap32/NEWS.Debian.gz | gzip -d | dpkg-parsechangelog -l - -S Source)"
    check "no dependency of the deb" same "" "$(dpkg-deb -f "$packages"/*.deb Depends Pre-Depends)"
    check "no dependency of the rpm" same "/bin/sh" "$(rpm -qp --requires "$packages"/*.rpm | grep -vE '^(rpmlib|config)\(' | sort -u)"
    check "a bill of materials" sh -c "jq -e '.bomFormat == \"CycloneDX\" and ([.components[].name] | index(\"rtnetlink\"))' target/stage/tap32.cdx.json >/dev/null"
    check "with every crate of the program" same "" "$(comm -23 \
        <(cargo tree --locked -e normal --prefix none --target x86_64-unknown-linux-gnu --format '{p}' | cut -d' ' -f1,2 | tr -d v | grep -v '^tap32' | sort -u) \
        <(jq -r '.components[] | "\(.name) \(.version)"' target/stage/tap32.cdx.json | tr -d v | sort -u))"
}

linted() {
    case_name=linters
    check "lintian" same "" "$(lintian --allow-root --fail-on none --pedantic "$packages"/*.deb 2>&1)"
    check "rpmlint" grep -q '0 errors, 0 warnings' <(rpmlint -c packaging/rpmlint.toml "$packages"/*.rpm 2>&1)
    check "shellcheck of the deb's scripts" shellcheck target/stage/deb/*
    check "shellcheck of the rpm's scripts" shellcheck -s sh target/stage/rpm/*
    check "shellcheck of the completion" shellcheck packaging/completions/tap32.bash
    check "zsh reads its completion" zsh -n packaging/completions/_tap32
    check "fish completes verbs" grep -q '^reconcile' <(fish -c 'source packaging/completions/tap32.fish; complete -C "tap32 rec"')
    check "bash completes verbs" same reconcile "$(bash -c '. packaging/completions/tap32.bash; COMP_WORDS=(tap32 rec) COMP_CWORD=1; _tap32; echo "${COMPREPLY[*]}"')"
    check "bash completes interfaces" same lo "$(bash -c '. packaging/completions/tap32.bash; COMP_WORDS=(tap32 status lo) COMP_CWORD=2; _tap32; echo "${COMPREPLY[*]}"')"
    check "bash completes options" same --dry-run "$(bash -c '. packaging/completions/tap32.bash; COMP_WORDS=(tap32 up --dr) COMP_CWORD=2; _tap32; echo "${COMPREPLY[*]}"')"
    check "the manual pages" same "" "$(mandoc -T lint -W error packaging/man/*.[578])"
}

refused() { [[ $(cd "$work/release" && packaging/release check 2>&1) == *"$1"* ]]; }
release_checked() {
    case_name="packaging/release"
    git clone -q . "$work/release"
    cp packaging/release "$work/release/packaging/"
    in_release() { git -C "$work/release" -c user.name=test -c user.email=test "$@"; }
    local version
    version=$(dpkg-deb -f "$packages"/*.deb Version)
    version=${version%-*}
    # A section that is there already would hide what is looked for.
    sed -i "s/^## $version,.*/## $version, unreleased/" "$work/release/CHANGELOG.md"
    in_release commit -qam unreleased --allow-empty
    check "refuses a version without its section" refused "has no section of $version"
    sed -i "s/^## $version,.*/## $version, 2026-01-31/" "$work/release/CHANGELOG.md"
    check "refuses what is not committed" refused "differs from its commit"
    in_release commit -qam "the section"
    check "refuses nothing else" sh -c "cd '$work/release' && packaging/release check"
    in_release tag v9.9.9
    check "refuses another version's tag" refused "is tagged v9.9.9"
    in_release tag -d v9.9.9 >/dev/null
    in_release tag "v$version"
    check "takes the right tag" sh -c "cd '$work/release' && packaging/release check"
    sed -i "/^## $version,/,\$ s/^- /  /" "$work/release/CHANGELOG.md"
    in_release commit -qam "an empty section"
    check "refuses an empty section" refused "says nothing under $version"
}

cargo_installed() {
    case_name="cargo install"
    as_user env CARGO_TARGET_DIR="$root/target" cargo install --quiet --locked --path . --root "$root/target/installed"
    check "a binary that runs" same "tap32 $(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)" "$(target/installed/bin/tap32 --version)"
    check "static" grep -q 'statically linked' <(file -b target/installed/bin/tap32)
    check "with its verbs" same 10.0.0.10 "$(target/installed/bin/tap32 decode 02:42:0a:00:00:0a)"
    rm -rf target/installed
}
