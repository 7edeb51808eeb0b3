#!/usr/bin/env bash
# What boot.sh has its systemd do.
set -euo pipefail
trap 'systemctl poweroff --force --force' EXIT
fail() {
    echo "FAILED: $1"
    journalctl --boot --no-pager --unit 'sidewire*' --lines 40
    exit 1
}
publish() {
    curl --silent --fail --max-time 60 --data '{"channel":"a","data":1}' "$@" >/dev/null
}
state() {
    systemctl show --property "$2" --value "$1"
}

systemd-sysusers
install -d -m 700 /etc/sidewire/secrets; printf 'secret' >/etc/sidewire/secrets/app-token
systemctl start sidewire.socket
publish http://127.0.0.1:7070/v1/publish || fail "a publish to the socket starts the service"
# The publish did not have to wait for that.
for attempt in $(seq 100); do
    [[ $(state sidewire.service ActiveState) == active ]] && break
    [[ $attempt == 100 ]] && fail "it is active"
    sleep 0.1
done
[[ $(state sidewire.service StatusText) == "ready; 0 clients" ]] || fail "it tells how it goes"
[[ $(stat --format %G /run/sidewire/app.sock) == sidewire-app ]] || fail "the socket has its group"
publish --unix-socket /run/sidewire/app.sock http://localhost/v1/publish || fail "the Unix socket"
runuser --user nobody -- curl --silent --max-time 5 --unix-socket /run/sidewire/app.sock http://localhost/ &&
    fail "others reach the Unix socket"

# A credential reaches the service, and nobody else.
systemctl restart sidewire.service || fail "it restarts"
pid=$(state sidewire.service MainPID)
[[ $(cat "/proc/$pid/root/run/credentials/sidewire.service/secret_app-token") == secret ]] || fail "the credential is there"

(for _ in $(seq 300); do publish http://127.0.0.1:7070/v1/publish || exit 1; done) &
publisher=$!
for _ in 1 2 3 4 5; do
    systemctl restart sidewire.service || fail "it restarts under load"
done
wait "$publisher" || fail "no publish is refused"
kept=$(curl --silent http://127.0.0.1:7090/metrics | sed -n 's/^sidewire_log_events //p')
[[ $kept == 302 ]] || fail "each event is kept once: $kept are"

systemctl reload sidewire.service || fail "it reloads"
[[ $(state sidewire.service ActiveState) == active ]] || fail "it is active after a reload"

# The watchdog bites a process that stands still.
mkdir -p /run/systemd/system/sidewire.service.d
printf '[Service]\nWatchdogSec=2\n' >/run/systemd/system/sidewire.service.d/watchdog.conf
systemctl daemon-reload
systemctl restart sidewire.service
pid=$(state sidewire.service MainPID)
kill -STOP "$pid"
for attempt in $(seq 100); do
    [[ $(state sidewire.service MainPID) != "$pid" && $(state sidewire.service ActiveState) == active ]] && break
    [[ $attempt == 100 ]] && fail "the watchdog does not bite"
    sleep 0.2
done

# An instance beside it, with a log of its own.
systemctl start sidewire@shop.socket
publish --unix-socket /run/sidewire/shop/app.sock http://localhost/v1/publish || fail "an instance"
[[ -e /var/lib/private/sidewire-shop/meta && -e /var/lib/private/sidewire/meta ]] || fail "two logs"

systemctl stop sidewire.socket sidewire.service sidewire@shop.socket sidewire@shop.service
[[ $(state sidewire.service Result) == success ]] || fail "it ends in order"
echo "boot passed"
