#!/bin/sh
# The guest's first process: makes the machine usable, runs the driver, powers off whatever happened.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t devtmpfs dev /dev
exec >/dev/ttyS0 2>&1 </dev/null
mount -t proc proc /proc
# As udev makes it: programs are given files named /dev/stdin.
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
/bin/boot-guest /dev/ttyS1
echo "boot-guest: exit $?"
poweroff -f
