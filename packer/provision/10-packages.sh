#!/bin/sh
# Installs the appliance's packages: Debian's from wherever this machine installs from, ours from what was uploaded.
# Offline it works as well, where the base holds Debian's already.
set -eu
export DEBIAN_FRONTEND=noninteractive
wanted=$(sed -e 's/#.*//' -e "s/-amd64/-$(dpkg --print-architecture)/" /tmp/postern/packages.txt)
# shellcheck disable=SC2086
if ! dpkg-query -W $wanted >/dev/null 2>&1; then
  apt-get -q update
  # shellcheck disable=SC2086
  apt-get -q install -y --no-install-recommends $wanted
fi
# Whatever else was uploaded comes too: an agent for sessions on AWS, say, which Debian does not have. Packages of both
# architectures may have been built into one folder.
set --
for package in /tmp/postern/packages/*.deb; do
  case $(dpkg-deb --field "$package" Architecture) in
    all | "$(dpkg --print-architecture)") set -- "$@" "$package" ;;
  esac
done
dpkg --install "$@"
