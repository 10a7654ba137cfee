#!/bin/sh
# Runs an unpacked firewalld in private mounts, and reloads it whenever the file
# WORK/reload appears. Mount and process namespaces are the caller's to make.
#
# usage: firewalld.sh UNPACKED WORK FIREWALL_BACKEND IPTABLES_DIR
set -eu
unpacked=$1 work=$2 backend=$3 iptables=$4

mkdir -p "$work/etc/firewalld" "$work/etc/alternatives" "$work/usr/share/polkit-1/actions"
sed "s/^FirewallBackend=.*/FirewallBackend=$backend/; s/^DefaultZone=.*/DefaultZone=trusted/" \
	"$unpacked/etc/firewalld/firewalld.conf" >"$work/etc/firewalld/firewalld.conf"
cp "$unpacked/usr/share/polkit-1/actions/org.fedoraproject.FirewallD1.desktop.policy.choice" \
	"$work/usr/share/polkit-1/actions/org.fedoraproject.FirewallD1.policy"
# firewalld knows its programs by /usr/sbin/iptables, which is a link to these.
for name in iptables ip6tables; do
	for program in $name $name-save $name-restore; do
		ln -s "$(readlink "$iptables/$program")" "$work/etc/alternatives/$program"
	done
done

mount -t overlay overlay -o "ro,lowerdir=$work/usr:$unpacked/usr:/usr" /usr
mount -t overlay overlay -o "ro,lowerdir=$work/etc:$unpacked/etc:/etc" /etc
mount -t tmpfs tmpfs /run
mkdir /run/dbus
dbus-daemon --system --fork --nopidfile
/usr/bin/python3 /usr/sbin/firewalld --nofork --nopid --log-target=console &
until firewall-cmd --state 2>/dev/null; do sleep 0.1; done
while :; do
	if [ -e "$work/reload" ]; then
		rm "$work/reload"
		firewall-cmd --reload >/dev/null
		echo reloaded
	fi
	sleep 0.05
done
