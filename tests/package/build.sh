# The packages under test, an older version of them, and what linters say. Sourced by tests/packages.

packages=$root/target/packages
twin=$lab/twin
older=$twin/target/older

build_packages() {
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s)
    export SOURCE_DATE_EPOCH TAP32_TOOLS=$root/target/tools
    as_user env SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" TAP32_TOOLS="$TAP32_TOOLS" packaging/build
    # The same sources in another folder; its target/ is kept, or every run would compile everything twice.
    mkdir -p "$twin"
    find "$twin" -mindepth 1 -maxdepth 1 ! -name target -exec rm -rf {} +
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$twin"
    (cd "$twin" && packaging/build) >"$lab/twin.log" 2>&1 || die "the second build failed: $lab/twin.log"
    rm -rf "$older" && mkdir -p "$older"
    # The previous version: a lower number, and another default in the configuration file.
    (cd "$twin" && sed -i 's/^version = "[0-9.]*"/version = "0.0.9"/' Cargo.toml &&
        sed -i '/^name = "tap32"/{n;s/".*"/"0.0.9"/}' Cargo.lock && sed -i 's/^# An unknown key/# (0.0.9) &/; 1a # The older file.' packaging/tap32.toml &&
        packaging/build "$older") >>"$lab/twin.log" 2>&1 || die "building the older version failed: $lab/twin.log"
}

same_bytes_twice() {
    case_name="two builds in two folders"
    check "the same bytes" same "$(cat "$packages/SHA256SUMS")" "$(cat "$twin/target/packages/SHA256SUMS")"
    (cd "$packages" && sha256sum --quiet -c SHA256SUMS && cat SHA256SUMS)
    # What must not depend on the machine: its folders, and anything to install first.
    check "no folder of this machine in the program" sh -c "! grep -qaE '$root|$twin|$HOME/.cargo' target/stage/tap32"
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
    check "bash completes interfaces" same lo "$(bash -c '. packaging/completions/tap32.bash; COMP_WORDS=(tap32 up lo) COMP_CWORD=2; _tap32; echo "${COMPREPLY[*]}"')"
    check "bash completes options" same --dry-run "$(bash -c '. packaging/completions/tap32.bash; COMP_WORDS=(tap32 up --dr) COMP_CWORD=2; _tap32; echo "${COMPREPLY[*]}"')"
    check "the manual pages" same "" "$(mandoc -T lint -W error packaging/man/*.[58])"
}
