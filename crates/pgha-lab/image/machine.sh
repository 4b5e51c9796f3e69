#!/bin/sh
# Makes of the lab's bare host ($1) one that boots as a virtual machine. Runs outside the root, before most packages are
# installed: the kernel's makes the initial RAM disk.
set -eu
root=$1

# An emulated processor is slow: the initial RAM disk holds what finds the disk and little else. The watchdog in it comes
# up before any other, so it is always /dev/watchdog0, which is also /dev/watchdog.
mkdir -p "$root/etc/initramfs-tools/conf.d" "$root/usr/share/initramfs-tools/modules.d"
printf '%s\n' MODULES=list COMPRESS=gzip > "$root/etc/initramfs-tools/conf.d/pgha-lab"
printf '%s\n' virtio_pci virtio_blk ext4 i6300esb > "$root/usr/share/initramfs-tools/modules.d/pgha-lab"

echo '/dev/vda / ext4 errors=remount-ro 0 1' > "$root/etc/fstab"
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s /lib/systemd/system/systemd-networkd.service "$root/etc/systemd/system/multi-user.target.wants/"
