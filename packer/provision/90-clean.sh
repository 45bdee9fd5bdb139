#!/bin/sh
# Takes away what belongs to this build and not to the image: identities, logs, caches, the key Packer came in with.
set -eu
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/apt /var/log/dpkg.log \
  /var/log/alternatives.log /var/log/bootstrap.log ~root/.ssh ~root/.cache /tmp/postern /etc/ssh/ssh_host_*
rm -f /var/lib/systemd/random-seed /var/lib/dbus/machine-id /var/lib/chrony/* /etc/.pwd.lock
rm -rf /var/lib/systemd/timesync /var/log/journal/* /var/lib/systemd/network /run/postern*
: >/etc/machine-id
: >/var/log/wtmp
: >/var/log/lastlog 2>/dev/null || true
rm -f /etc/hostname
echo postern >/etc/hostname
# What is made of /usr is as new as that: the first boot need not make it again (systemd-update-done.service(8)).
touch -r /usr /etc/.updated /var/.updated
sync
fstrim -a 2>/dev/null || true
