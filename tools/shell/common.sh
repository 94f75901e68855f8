# What tools/quickstart and tools/check share: messages, packages, LibTorch, the build.
# Sourced by bash; every function says what it does and, when it fails, what to do.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cache="${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/lathe"
torch_version=2.13.0
onednn=onednn-devel-cpu-gomp==2023.2.0
cache_data="${LATHE_DATA:-$cache/data}"
command_name="$(basename "$0")"

say() { printf '%s: %s\n' "$command_name" "$*" >&2; }
fail() { # fail MESSAGE [WHAT-TO-DO]
  say "error: $1"
  [[ -n "${2:-}" ]] && say "       $2"
  exit 1
}
seconds_since() { echo "$(($(date +%s) - $1)) s"; }

as_root() {
  if [[ $(id -u) == 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    return 1
  fi
}

# Installs the Debian packages among "$@" that are missing.
need_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null ||
    fail "this is not Debian or Ubuntu, and packages are missing: ${missing[*]}" "install them with your package manager and run again"
  say "installing ${#missing[@]} packages: ${missing[*]}"
  local log="$cache/apt.log"
  mkdir -p "$cache"
  install_packages() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >"$log" 2>&1
  }
  # The lists of a fresh machine are empty or old: fetch them only when they are needed.
  install_packages || { as_root apt-get update -q >>"$log" 2>&1 && install_packages; } ||
    fail "apt-get could not install: ${missing[*]} (log: $log)" \
      "run as root or install sudo, check the network, or install them by hand: apt-get install ${missing[*]}"
}

build_packages=(build-essential cmake ninja-build ccache lld git ca-certificates python3 python3-venv
  libfmt-dev libspdlog-dev nlohmann-json3-dev libcli11-dev libxxhash-dev libpng-dev libjpeg-dev zlib1g-dev)

# Sets and exports LATHE_TORCH: what the user has, or a virtual environment with the CPU wheel.
need_torch() {
  local own="$cache/venv-torch-$torch_version"
  if [[ -n "${LATHE_TORCH:-}" ]]; then
    compgen -G "$LATHE_TORCH/include/ATen/core/Tensor.h" >/dev/null ||
      compgen -G "$LATHE_TORCH/lib/python3*/site-packages/torch/include/ATen/core/Tensor.h" >/dev/null ||
      fail "LATHE_TORCH=$LATHE_TORCH holds no LibTorch (no include/ATen/core/Tensor.h)" \
        "point it at a virtual environment with torch, at the torch folder of a wheel, or at an unpacked libtorch zip"
    export LATHE_TORCH
    return
  fi
  export LATHE_TORCH="$own"
  if [[ -f "$own/complete" ]]; then
    need_onednn "$own"
    return
  fi
  say "installing torch $torch_version for the CPU into $own (200 MB; set LATHE_TORCH=DIR to use one that you have)"
  python3 -m venv --clear "$own" ||
    fail "could not create the virtual environment $own" "install python3-venv, and check that the folder is writable"
  local pip=("$own/bin/python" -m pip install -qq --disable-pip-version-check)
  # The default index serves PCs with a GPU build of several GB, so PyTorch's CPU index goes first.
  local cpu_index=https://download.pytorch.org/whl/cpu
  if "$own/bin/python" -c "import urllib.request as u; u.urlopen('$cpu_index/torch/', timeout=5)" 2>/dev/null; then
    "${pip[@]}" "torch==$torch_version" --index-url "$cpu_index" >&2 && "${pip[@]}" numpy pillow >&2
  else
    say "PyTorch's CPU index is out of reach; using pip's default index"
    "${pip[@]}" "torch==$torch_version" numpy pillow >&2
  fi || fail "pip could not install torch $torch_version" "check the network and the disk (df -h), or set LATHE_TORCH=DIR to a LibTorch that you have"
  touch "$own/complete"
  need_onednn "$own"
}

# Puts oneDNN for the inference engine into the virtual environment; Lathe builds without it too.
need_onednn() { # need_onednn ENVIRONMENT
  [[ -d "$1/lib/cmake/dnnl" ]] && return
  say "installing oneDNN for the inference engine into $1"
  "$1/bin/python" -m pip install -qq --disable-pip-version-check "$onednn" >&2 ||
    say "pip could not install $onednn: the build will have no inference engine"
}

# Prints the Python that has torch, or nothing when LATHE_TORCH is a LibTorch without Python.
torch_python() {
  local candidate
  for candidate in "$LATHE_TORCH/bin/python" "$LATHE_TORCH/../../../../bin/python"; do
    [[ -x "$candidate" ]] && { echo "$candidate"; return; }
  done
  if [[ -f "$LATHE_TORCH/__init__.py" ]] && PYTHONPATH="$LATHE_TORCH/.." python3 -c 'import torch' 2>/dev/null; then
    echo "env PYTHONPATH=$LATHE_TORCH/.. python3"
  fi
}

# build PRESET [TARGET...]: configures once, then builds; the log is shown only when it fails.
build() {
  local preset="$1" start log
  shift
  start=$(date +%s)
  log="$root/build/$preset.log"
  mkdir -p "$root/build"
  say "building ($preset; the first time takes some minutes, log: build/$preset.log)"
  export CCACHE_BASEDIR="$root"  # so that another clone finds what this one compiled
  local as_check=()
  [[ -n "${LATHE_WARNINGS_AS_ERRORS:-}" ]] && as_check=(-DLATHE_WARNINGS_AS_ERRORS=ON)
  (cd "$root" && cmake --preset "$preset" "${as_check[@]}" >"$log" 2>&1) ||
    { tail -n 30 "$log" >&2; fail "cmake could not configure the build" "see above and $log"; }
  (cd "$root" && cmake --build "build/$preset" -j "$(build_jobs)" ${1:+--target "$@"} >>"$log" 2>&1) ||
    { grep -E -A5 'error|FAILED' "$log" | tail -n 60 >&2; fail "the build failed" "see above and $log"; }
  say "built in $(seconds_since "$start")"
}

# LibTorch's headers take up to 1.3 GB a compiler: no more jobs than the memory holds.
build_jobs() {
  local by_memory=$(($(awk '/MemAvailable/ {print $2}' /proc/meminfo) / 1400000))
  local cores
  cores=$(nproc)
  echo $((by_memory < 1 ? 1 : by_memory < cores ? by_memory : cores))
}
