#!/usr/bin/env bash
# Fetches what building, the tests and the demo need and this machine lacks:
#   tools      a C++ compiler, make, libclang, a JDK and Maven, npm, redis-server, openssl  (Debian, as root)
#   ClickHouse the engine as a library, from npm
#   Kafka      the broker's jars, from Maven
#   promtool   what tests the alerts, from Debian's package of Prometheus
# Tools come from the machine's own package clients. Parts go to $WEIR_PARTS, by default the user's cache folder.
# Does nothing, quickly, when everything is there. `parts.sh demo` fetches only what the demo needs.
set -euo pipefail

chdb_version=26.5.3
kafka_version=4.3.1

parts="${WEIR_PARTS:-${XDG_CACHE_HOME:-$HOME/.cache}/weir/parts}"
what="${1:-all}"

say() { printf 'parts: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# The Debian packages of the tools that are missing, one a line.
missing_packages() {
  command -v c++ >/dev/null || echo g++
  command -v make >/dev/null || echo make
  command -v perl >/dev/null || echo perl # OpenSSL's build asks for it.
  command -v npm >/dev/null || echo npm
  has_libclang || echo libclang-dev
  [ "$what" = demo ] && return
  command -v java >/dev/null || echo openjdk-17-jdk-headless
  command -v mvn >/dev/null || echo maven
  command -v redis-server >/dev/null || echo redis-server
  command -v openssl >/dev/null || echo openssl
}

has_libclang() {
  [ -n "${LIBCLANG_PATH:-}" ] && return 0
  # libclang-cpp, which comes with LLVM alone, is another library.
  local folder
  for folder in '/usr/lib/llvm-*/lib' '/usr/lib/*' '/usr/lib*'; do
    compgen -G "$folder/libclang.so*" >/dev/null && return 0
    compgen -G "$folder/libclang-[0-9]*.so*" >/dev/null && return 0
  done
  return 1
}

install_tools() {
  local packages
  packages="$(missing_packages | tr '\n' ' ')"
  [ -z "${packages// /}" ] && return
  command -v apt-get >/dev/null || fail "please install, with this system's package manager: $packages"
  [ "$(id -u)" = 0 ] || fail "please run once: sudo apt-get install $packages"
  say "installing $packages"
  apt-get update -qq
  # shellcheck disable=SC2086 # a list of names
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
}

# Everything is laid out in a folder beside and moved into place, so that a half of it is never taken for the whole.
fetch_clickhouse() {
  local to="$parts/chdb-$chdb_version"
  [ -f "$to/libchdb.so" ] && return
  [ "$(uname -sm)" = "Linux x86_64" ] || fail "the embedded ClickHouse is fetched for Linux on x86-64 only, this is $(uname -sm)"
  say "fetching ClickHouse's engine (167 MB)"
  local new="$parts/.new-chdb-$$"
  mkdir -p "$new"
  (cd "$new" && npm pack --silent "@chdb/lib-linux-x64-gnu@$chdb_version" >/dev/null)
  tar -xzf "$new"/*.tgz -C "$new" --strip-components=1 package/libchdb.so
  rm "$new"/*.tgz
  rm -rf "$to" && mv "$new" "$to"
}

fetch_kafka() {
  local to="$parts/kafka-$kafka_version"
  compgen -G "$to/kafka_*.jar" >/dev/null && return
  say "fetching Kafka $kafka_version (54 MB)"
  local new="$parts/.new-kafka-$$"
  mkdir -p "$new"
  cat >"$new/pom.xml" <<POM
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>weir</groupId><artifactId>kafka-for-tests</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$kafka_version</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$kafka_version</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
  (cd "$new" && mvn -q -B -Dstyle.color=never dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=libs)
  rm -rf "$to" && mv "$new/libs" "$to"
  rm -rf "$new"
}

# Debian's package would start a server and make a user for it: only the tool is taken out of it.
fetch_promtool() {
  command -v promtool >/dev/null && return
  local to="$parts/promtool"
  [ -x "$to/promtool" ] && return
  command -v apt-get >/dev/null || fail "please install promtool (of Prometheus), with this system's package manager"
  say "fetching promtool (with its package 19 MB)"
  local new="$parts/.new-promtool-$$"
  mkdir -p "$new"
  # Nobody has to be root for it where the lists of packages are there.
  (cd "$new" && apt-get download -qq prometheus 2>/dev/null) || {
    [ "$(id -u)" = 0 ] || fail "please run once: sudo apt-get update"
    apt-get update -qq
    (cd "$new" && apt-get download -qq prometheus)
  }
  dpkg-deb --fsys-tarfile "$new"/prometheus_*.deb | tar -x -C "$new" --strip-components=3 ./usr/bin/promtool
  rm "$new"/*.deb
  rm -rf "$to" && mv "$new" "$to"
}

# A minimal toolchain lacks what `make lint` asks for.
fetch_lints() {
  cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 && return
  command -v rustup >/dev/null || fail "please install rustfmt and clippy beside cargo"
  say "adding rustfmt and clippy to the toolchain"
  rustup --quiet component add rustfmt clippy
}

command -v cargo >/dev/null || fail "please install Rust first (rustup, stable): weir is written in it"
install_tools
mkdir -p "$parts"
fetch_clickhouse
[ "$what" = demo ] && exit
fetch_lints
fetch_kafka
fetch_promtool
