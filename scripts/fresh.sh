#!/usr/bin/env bash
# Runs what the README says where nothing but Rust is installed: in a minimal Debian that debootstrap makes, a new one
# for each target, on a clone of the last commit. Tells how long each takes, and leaves nothing behind.
#
#   scripts/fresh.sh               `make demo ARGS=--once`, then `make test`
#   scripts/fresh.sh demo          one of them, or any other target of the Makefile
#
# Wants Linux with root, debootstrap, git, a Rust toolchain (mounted read-only), and 8 GB in $TMPDIR. The suite is this
# machine's. Settings of proxies, certificates and registries come along: variables of the environment, files of apt,
# cargo, pip and npm. Beside Rust there is only what the commands themselves are run with: make and certificates.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { echo "fresh: $*" >&2; }
fail() { say "$*"; exit 1; }

((EUID == 0)) || fail "wants root, for debootstrap and chroot"
for program in debootstrap git unshare rustc; do
    command -v "$program" >/dev/null || fail "$program is missing"
done
toolchain=$(rustc --print sysroot)
[[ $toolchain != /usr ]] || fail "Rust is installed in /usr; wants a toolchain in a folder of its own, as rustup has it"
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[[ -n $suite ]] || fail "/etc/os-release names no suite"

trap 'say "failed in line $LINENO"' ERR
work=$(mktemp -d "${TMPDIR:-/tmp}/fresh.XXXXXXXX")
# What is mounted is so in namespaces of its own, which end with the command in them: nothing is there to be unmounted.
child=
clean_up() {
    [[ -z $child ]] || kill -KILL "$child" 2>/dev/null || true
    # What was just killed may have been writing.
    rm -rf --one-file-system "$work" 2>/dev/null || { sleep 2 && rm -rf --one-file-system "$work"; }
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

# The distribution's own archives as this machine reaches them, without those of others: "URI SUITE COMPONENT" a line.
archives() {
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
        sed -nE 's/ (Debian|Ubuntu)$//p' | sort -u
}

# bring FILE..: copies files of this machine that exist to the same place.
bring() {
    local file
    for file in "$@"; do
        [[ -f $file ]] && install -D -m 644 "$file" "$base$file"
    done
    return 0
}

# inside ROOT COMMAND..: with an environment of its own.
inside() {
    local root=$1
    shift
    chroot "$root" env -i HOME=/root PATH=/opt/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

export -f inside

make_base() {
    local mirror
    mirror=$(archives | awk -v suite="$suite" '$2 == suite && $3 == "main" { print $1; exit }')
    say "making a minimal $suite"
    debootstrap --variant=minbase --include=ca-certificates,make "$suite" "$base" $mirror >"$work/debootstrap.log" 2>&1 ||
        { tail -20 "$work/debootstrap.log" >&2; fail "debootstrap failed"; }
    archives | sed 's/^/deb /' >"$base/etc/apt/sources.list"
    apt-config dump | grep -E '^Acquire::(http|https|ftp|Retries|Check-[A-Za-z-]*)(::| )' \
        >"$base/etc/apt/apt.conf.d/90host" || true
    cp -L /etc/resolv.conf /etc/hosts "$base/etc/"
    bring /etc/pip.conf /etc/npmrc /usr/local/share/ca-certificates/*.crt
    inside "$base" update-ca-certificates >/dev/null 2>&1 || fail "no certificates"
    bring "${named[@]}"
    local file
    for file in .cargo/config .cargo/config.toml .npmrc .config/pip/pip.conf .pip/pip.conf; do
        [[ ! -f $HOME/$file ]] || install -D -m 600 "$HOME/$file" "$base/root/$file"
    done
    git clone --quiet --no-local . "$base/root/bulkhead"
    mkdir -p "$base/opt/rust"
}

# What of the environment is about the network, and the files that it names, such as certificates.
named=()
passed=()
while IFS='=' read -r -d '' name value; do
    case $name in
    *_proxy | *_PROXY | PIP_* | NPM_CONFIG_* | npm_config_* | CARGO_HTTP_* | CARGO_NET_* | CARGO_REGISTR* | \
        CARGO_SOURCE_* | SSL_CERT_FILE | SSL_CERT_DIR | CURL_CA_BUNDLE | REQUESTS_CA_BUNDLE | NODE_EXTRA_CA_CERTS)
        # Folders of packages do not come along.
        [[ ! -d $value || $name == SSL_CERT_DIR ]] || continue
        passed+=("$name=$value")
        named+=("$value")
        ;;
    esac
done < <(env -0)

# run TARGET: in a copy of the base.
run() {
    local root=$work/$1 status=0 line="make $1"
    cp -a "$base" "$root"
    [[ $1 != demo ]] || line="make demo ARGS=--once"
    say "$line"
    local begun=$SECONDS
    unshare --mount --pid --fork --kill-child -- "$BASH" -euc '
        root=$1 toolchain=$2; shift 2
        mount -t proc proc "$root/proc"
        mount --rbind --make-rslave /sys "$root/sys"
        mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
        mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
        mount --bind "$toolchain" "$root/opt/rust"
        mount -o remount,bind,ro "$root/opt/rust"
        TIMEFORMAT="fresh: CPU %U s + %S s"
        time inside "$root" "$@"
    ' fresh "$root" "$toolchain" "${passed[@]}" CARGO_TERM_COLOR=never sh -c "cd /root/bulkhead && exec $line" &
    child=$!
    wait "$child" || status=$?
    child=
    local took=$((SECONDS - begun))
    ((status == 0)) || fail "$line failed ($status) after $took s"
    rm -rf --one-file-system "$root"
    results+=("$line: $((took / 60)) min $((took % 60)) s")
}

base=$work/base
make_base
results=()
(($#)) || set -- demo test
for target in "$@"; do
    run "$target"
done
for line in "${results[@]}"; do
    say "$line"
done
