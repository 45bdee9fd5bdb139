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
# Whoever the build came in as on a cloud: admin there, packer here, each with a key and every right.
rm -rf /home/*/.ssh /etc/sudoers.d/90-cloud-init-users /etc/sudoers.d/google_sudoers
for home in /home/*; do
  user=${home##*/}
  if id "$user" >/dev/null 2>&1; then passwd --lock "$user" && usermod --shell /usr/sbin/nologin --expiredate 1 "$user"; fi
done
rm -f /etc/hostname
echo postern >/etc/hostname
# What is made of /usr is as new as that: the first boot need not make it again (systemd-update-done.service(8)).
touch -r /usr /etc/.updated /var/.updated
sync
fstrim -a 2>/dev/null || true
