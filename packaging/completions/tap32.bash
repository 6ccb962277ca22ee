# Made from src/cli/table.rs: UPDATE=1 cargo test --test generated
# shellcheck shell=bash
_tap32() {
    local word=${COMP_WORDS[COMP_CWORD]} words
    case ${COMP_WORDS[COMP_CWORD - 1]} in
        --mac)
            COMPREPLY=()
            return
            ;;
        --bridge)
            mapfile -t COMPREPLY < <(cd /sys/class/net && compgen -f -- "$word")
            return
            ;;
        --config)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            return
            ;;
    esac
    if [ "$COMP_CWORD" = 1 ]; then
        words="up down reconcile watch status uplink libvirt setup doctor render arrival decode encode --config --verbose --help --version"
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
        return
    fi
    case ${COMP_WORDS[1]} in
        up) words="--mac --bridge --dry-run --config --verbose --help --version" ;;
        down) words="--mac --dry-run --config --verbose --help --version" ;;
        reconcile) words="--dry-run --config --verbose --help --version" ;;
        watch) words="--config --verbose --help --version" ;;
        status) words="--all --json --check --config --verbose --help --version" ;;
        uplink) words="--json --dry-run --config --verbose --help --version" ;;
        libvirt) words="--config --verbose --help --version" ;;
        setup) words="--dry-run --config --verbose --help --version" ;;
        doctor) words="--json --config --verbose --help --version" ;;
        render) words="--config --verbose --help --version" ;;
        arrival) words="--config --verbose --help --version" ;;
        decode) words="--config --verbose --help --version" ;;
        encode) words="--config --verbose --help --version" ;;
        *) words= ;;
    esac
    case ${COMP_WORDS[1]}:$word in
        *:-*) ;;
        up:* | down:* | status:*) words=$(cd /sys/class/net && compgen -f) ;;
        *) words= ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -F _tap32 tap32
