# Prints what is true of this host, one fact per line, fields parted by tabs. Changes nothing. The installer puts
# `files`, `shown`, `units`, `packages`, `users`, `port` and `conffiles` in front.
export LC_ALL=C TZ=UTC PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
tab=$(printf '\t')
say() { first=$1; shift; printf '%s' "$first"; for field; do printf '\t%s' "$field"; done; printf '\n'; }

say clock "$(date +%s%N)"
say uid "$(id -u)"
( . /etc/os-release && say os "${ID:-}" "${VERSION_ID:-}" "${PRETTY_NAME:-}" )
say machine "$(uname -m)" "$(uname -n)" "$(cat /etc/machine-id 2>/dev/null)"
say container "$(systemd-detect-virt -c 2>/dev/null)"
[ -d /run/systemd/system ] && say systemd yes
while read -r key value _; do [ "$key" = MemTotal: ] && say memory "$value"; done </proc/meminfo
for limit in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do
    [ -r "$limit" ] && say memory_limit "$(cat "$limit")"
done
for place in /var /var/lib/postgresql /var/lib/pgbackrest; do
    [ -d "$place" ] && df -kP "$place" | { read -r _; read -r _ _ _ free _ target; say disk "$place" "$free" "$target"; }
done
locale -a 2>/dev/null | while read -r name; do say locale "$name"; done
# Only looked at from outside: whoever opens a watchdog arms it.
for device in /dev/watchdog*; do [ -c "$device" ] && say watchdog "$device" "$(stat -c %G "$device")"; done
for device in /sys/class/watchdog/*; do
    [ -r "$device/nowayout" ] && read -r value <"$device/nowayout" && [ "$value" = 1 ] && say nowayout "/dev/${device##*/}"
done
find /proc/[0-9]*/fd -lname '/dev/watchdog*' -printf '%h %l\n' 2>/dev/null | while read -r fds device; do
    { read -r name <"${fds%/fd}/comm"; } 2>/dev/null && say holder "$device" "$name"
done
systemctl show -p RuntimeWatchdogUSec -p WatchdogDevice 2>/dev/null | {
    every=0 device=
    while IFS='=' read -r key value; do
        case $key in RuntimeWatchdogUSec) every=$value ;; WatchdogDevice) device=$value ;; esac
    done
    # Without WatchdogDevice= it is the first (systemd-system.conf(5)).
    [ "$every" = infinity ] && every=default
    [ "${every:-0}" != 0 ] && say fed "${device:-/dev/watchdog0}" "$every"
}
modinfo -n softdog >/dev/null 2>&1 && say softdog yes
for name in $users; do getent passwd "$name" >/dev/null && say user "$name"; done

set --
for file in $files; do
    if [ -L "$file" ]; then say link "$file" "$(readlink "$file")"; fi
    if [ -e "$file" ] || [ -L "$file" ]; then set -- "$@" "$file"; fi
done
if [ $# -gt 0 ]; then
    stat -c "file${tab}%n${tab}%F${tab}%a${tab}%U${tab}%G${tab}%Y" -- "$@"
fi
set --
for file in $files; do if [ -f "$file" ]; then set -- "$@" "$file"; fi; done
[ $# -gt 0 ] && sha256sum -- "$@" | while read -r sum name; do say sum "$name" "$sum"; done
for file in $shown; do
    if [ -f "$file" ]; then printf 'text\t%s\t' "$file"; base64 -w0 "$file"; printf '\n'; fi
done
for conffile in $conffiles; do
    dpkg-query -W -f='${Conffiles}\n' "${conffile%%:*}" 2>/dev/null | while read -r name sum _; do
        [ "$name" = "${conffile#*:}" ] && [ -f "$name" ] &&
            [ "$(md5sum <"$name")" = "$sum  -" ] && say pristine "$name"
    done
done

[ -n "$units" ] && systemctl show --no-pager -p Id -p LoadState -p ActiveState -p SubState -p UnitFileState \
    -p ActiveEnterTimestamp -p StateChangeTimestamp -p NeedDaemonReload -- $units 2>/dev/null |
    while IFS= read -r line; do say unit "$line"; done
missing=
for package in $packages; do
    state=$(dpkg-query -W -f='${db:Status-Status} ${Version}' "$package" 2>/dev/null)
    case $state in "installed "*) say package "$package" "${state#installed }" ;; *) missing="$missing $package" ;; esac
done
for package in $missing; do say missing "$package"; done
[ -n "$missing" ] && apt-cache policy $missing 2>/dev/null | while IFS= read -r line; do say policy "$line"; done

ss -Hltnp 2>/dev/null | while read -r _ _ _ local _ process; do
    pid=${process#*pid=}; pid=${pid%%,*}; unit=
    if [ -r "/proc/$pid/cgroup" ]; then
        while IFS= read -r line; do
            case ${line##*/} in *.service) unit=${line##*/} ;; esac
        done <"/proc/$pid/cgroup"
    fi
    name=${process#*\"}
    say listen "$local" "${name%%\"*}" "$unit"
done

if command -v curl >/dev/null && [ -n "$port" ]; then
    for path in primary replica; do
        say agent "$path" "$(curl -s -m 3 -o /dev/null -w '%{http_code}' "http://127.0.0.1:8008/$path")"
    done
    if curl -sf -m 3 -o /dev/null http://127.0.0.1:8008/primary; then
        runuser -u postgres -- psql -XAtq -h /var/run/postgresql -p "$port" -d postgres \
            -c "select 'role', rolname from pg_roles where rolcanlogin union all select 'database', datname from pg_database" \
            -F "$tab" 2>/dev/null
    fi
fi
say done
