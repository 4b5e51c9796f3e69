#!/bin/sh
# Turns a fresh Debian root ($1) into the lab's bare host and fetches what installers may ask for. Runs outside the root.
# The environment gives: packages (the directory for them) and wanted (their names).
set -eu
root=$1

# Everything that an installation on this root would fetch, with and without recommended packages.
for recommended in true false; do
    # shellcheck disable=SC2086
    APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get --yes --quiet=2 --download-only \
        -o APT::Install-Recommends=$recommended -o Dir::Cache::archives="$packages/" install $wanted
done
rm -rf "$packages/partial" "$packages/lock"

# Hosts have no way out: their only source is the lab's own directory.
echo 'deb [trusted=yes] file:/srv/packages ./' > "$root/etc/apt/sources.list"
echo 'Acquire::Languages "none";' > "$root/etc/apt/apt.conf.d/90pgha-lab"
rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap"
mkdir -p "$root/srv/packages"

# An administrator, and somebody who is not.
for user in 1000:ops 1001:nosudo; do
    chroot "$root" useradd --uid "${user%%:*}" --user-group --create-home --shell /bin/bash "${user#*:}"
    mkdir -m 0700 "$root/home/${user#*:}/.ssh"
    chroot "$root" chown "${user#*:}:" "/home/${user#*:}/.ssh"
done
echo 'ops ALL=(ALL) NOPASSWD: ALL' > "$root/etc/sudoers.d/ops"
chmod 0440 "$root/etc/sudoers.d/ops"
cat > "$root/etc/ssh/sshd_config.d/pgha-lab.conf" <<'SSHD'
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin no
PasswordAuthentication no
UseDNS no
SSHD

# What is each host's own is made with the host.
rm -f "$root"/etc/ssh/ssh_host_*
: > "$root/etc/machine-id"

# The journal must tell what happened before a power loss.
mkdir -p "$root/var/log/journal"

# Maintenance that would only disturb measurements.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
