# Debian packages, where there is apt and the right to use it; sourced by the other scripts here,
# after tools/venv.sh.

# debian_packages NAME…: install those that are missing. Elsewhere it does nothing: whoever needs
# one says what to install.
debian_packages() {
    local -a missing=()
    local name
    ((EUID == 0)) && command -v apt-get >/dev/null || return 0
    for name in "$@"; do
        dpkg -s "$name" 2>/dev/null | grep -q '^Status: install ok' || missing+=("$name")
    done
    ((${#missing[@]})) || return 0
    say "installing ${missing[*]}"
    apt-get -qq update >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
        "${missing[@]}" >/dev/null 2>&1 || say "could not install ${missing[*]}"
}
