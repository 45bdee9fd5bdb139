#!/bin/sh
# Makes the machine an appliance: our network, names, time and units, no way in, nothing that runs user data.
set -eu
from=/tmp/postern/files

# The clouds' own first-boot programs would run user data as a script and bring interfaces up their way.
for package in cloud-init cloud-guest-utils netplan.io google-guest-agent google-osconfig-agent unattended-upgrades; do
  if dpkg-query -W "$package" >/dev/null 2>&1; then
    DEBIAN_FRONTEND=noninteractive apt-get -q purge -y "$package"
  fi
done
rm -rf /etc/netplan /etc/cloud /etc/network/interfaces.d/* /etc/systemd/network/*
install -m 0644 -t /etc/systemd/network "$from"/network/*.network
install -m 0644 "$from/chrony.conf" /etc/chrony/chrony.conf
# The boot loader's menu of Debian's cloud images stays as they made it.
if [ -f /boot/grub/grub.cfg ] && grep -q '"Postern"' /boot/grub/grub.cfg; then
  : # the qemu base's own, already as it must be
elif [ -d /etc/default/grub.d ]; then
  # Where an arm64 machine's serial console is, its firmware says.
  case $(dpkg --print-architecture) in amd64) console="console=tty0 console=ttyS0,115200 " ;; *) console= ;; esac
  echo "GRUB_CMDLINE_LINUX=\"\$GRUB_CMDLINE_LINUX ${console}panic=5 $(cat "$from/kernel-options")\"" >/etc/default/grub.d/90-postern.cfg
  update-grub
fi

# The witness asks the network's resolvers itself; everybody else asks systemd-resolved, whose packets the ruleset knows.
ln -sf /run/systemd/resolve/resolv.conf /etc/resolv.conf
sed -i 's/^hosts:.*/hosts: files resolve [!UNAVAIL=return] dns/' /etc/nsswitch.conf
mkdir -p /etc/systemd/resolved.conf.d
printf '[Resolve]\nLLMNR=no\nMulticastDNS=no\nDNSStubListener=no\n' >/etc/systemd/resolved.conf.d/postern.conf

# No interface without the lockdown, and no policy before user data was read.
for unit in systemd-networkd.service postern.service; do
  mkdir -p "/etc/systemd/system/$unit.d"
  printf '[Unit]\nRequires=postern-lockdown.service\nAfter=postern-lockdown.service\n' >"/etc/systemd/system/$unit.d/lockdown.conf"
done
# The firewall comes first: the daemon waits for a root that takes writes and for the lockdown, and everything that looks for
# devices, brings up networks or offers a service waits until it is ready, or has failed. Its temporary folders are its
# own, and the folder of the resolvers' list, which is systemd-resolved's, is made before it starts: it may read later only what
# was there by then.
echo 'd /run/systemd/resolve 0755 systemd-resolve systemd-resolve -' >/etc/tmpfiles.d/postern-resolvers.conf
cat >/etc/systemd/system/postern.service.d/10-early.conf <<'UNIT'
[Unit]
DefaultDependencies=no
After=systemd-remount-fs.service
Conflicts=shutdown.target
Before=shutdown.target
[Service]
PrivateTmp=disconnected
ExecStartPre=
ExecStartPre=-+/usr/bin/systemd-tmpfiles --create postern.conf postern-resolvers.conf
UNIT
for unit in systemd-udevd systemd-udev-trigger systemd-udev-load-credentials systemd-networkd systemd-resolved \
  systemd-journal-flush systemd-random-seed; do
  mkdir -p "/etc/systemd/system/$unit.service.d"
  printf '[Unit]\nAfter=postern.service\n' >"/etc/systemd/system/$unit.service.d/firewall-first.conf"
done
mkdir -p /etc/systemd/system/sysinit.target.d
printf '[Unit]\nAfter=postern.service\n' >/etc/systemd/system/sysinit.target.d/firewall-first.conf
mkdir -p /etc/systemd/system/postern-cloudsync.service.d
printf '[Unit]\nRequires=postern-configure.service\nAfter=postern-configure.service\n' \
  >/etc/systemd/system/postern-cloudsync.service.d/configured.conf
install -m 0644 "$from/postern.toml" /etc/postern/postern.toml
systemctl enable systemd-networkd systemd-resolved chrony postern-lockdown postern postern-tune postern-forwarded.timer postern-configure \
  postern-cloudsync
# On the serial console systemd itself starts a login, wherever the kernel's is. Nobody can log in there either: root has no password. Who wants a way in adds a session agent to the image (packer/README.md).
systemctl disable ssh.service ssh.socket sshd-keygen.service 2>/dev/null || true
systemctl mask ssh.service ssh.socket systemd-networkd-wait-online.service
passwd --lock root

# Nothing here is for a desktop, and every unit less is a boot sooner.
systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
  man-db.timer fstrim.timer grub-common.service systemd-pcrmachine.service systemd-tpm2-setup.service systemd-tpm2-setup-early.service
# Nor does anything here use these file systems, or look at these files: each is a process of its own, and some load modules.
systemctl mask dev-hugepages.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount sys-fs-fuse-connections.mount \
  sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount systemd-network-generator.service systemd-pstore.service \
  getty@tty1.service
mkdir -p /etc/systemd/system-generators
for generator in gpt-auto hibernate-resume rc-local run ssh system-update sysv tpm2; do
  ln -sf /dev/null "/etc/systemd/system-generators/systemd-$generator-generator"
done
mkdir -p /etc/systemd/journald.conf.d
printf '[Journal]\nStorage=persistent\nSystemMaxUse=64M\n' >/etc/systemd/journald.conf.d/postern.conf
mkdir -p /etc/systemd/system.conf.d
printf '[Manager]\nRuntimeWatchdogSec=30s\nShowStatus=no\n' >/etc/systemd/system.conf.d/postern.conf

# To find one disk, Debian's initramfs starts udev and looks for everything: half a boot's time. Here it has the drivers of the
# clouds' disks and loads those that fit.
if [ -d /etc/initramfs-tools ]; then
  install -m 0755 "$from/initramfs/modules-hook" /etc/initramfs-tools/hooks/postern
  install -D -m 0755 "$from/initramfs/init-top-udev" /etc/initramfs-tools/scripts/init-top/udev
  install -D -m 0755 "$from/initramfs/init-bottom-udev" /etc/initramfs-tools/scripts/init-bottom/udev
  printf 'MODULES=list\nBUSYBOX=n\nKEYMAP=n\nRESUME=none\n' >/etc/initramfs-tools/conf.d/postern
  for hook in udev dmsetup; do
    if [ -e "/usr/share/initramfs-tools/hooks/$hook" ]; then
      dpkg-statoverride --force-statoverride-add --update --add root root 0644 "/usr/share/initramfs-tools/hooks/$hook"
    fi
  done
  update-initramfs -u -k all
fi
