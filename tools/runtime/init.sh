#!/bin/sh
# The first process of a node, in mount, process and network namespaces that are new. It makes a directory the node's root:
# /run is empty, as after every start; /usr is the machine's and cannot be written, but for /usr/local; all else is what the
# node wrote itself.
#
# usage: init.sh DISK PROGRAMS
set -eu
disk=$1
programs=$2

lend() {
	mkdir -p "$disk$2"
	mount -o bind,ro "$1" "$disk$2"
}

mount --make-rprivate /
mount --bind "$disk" "$disk"
for place in /usr /bin /sbin /lib /lib32 /lib64 /libx32 /etc/alternatives; do
	if [ -L "$place" ]; then
		[ -L "$disk$place" ] || cp -P "$place" "$disk$place"
	elif [ -d "$place" ]; then
		lend "$place" "$place"
	fi
done
lend "$programs" /programs
mkdir -p "$disk/usr.local/bin" "$disk/usr.local/sbin"
[ ! -d /usr/local ] || mount --bind "$disk/usr.local" "$disk/usr/local"

cd "$disk"
mkdir -p old proc sys dev run tmp root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs -o mode=0755 tmpfs run
pivot_root . old
cd /
umount -l /old
mount --make-rshared / # as systemd does it, so that containers may follow the node's mounts
echo up
exec sleep infinity
