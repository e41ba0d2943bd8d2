#!/usr/bin/env bash
# `make run`: the example API in the background, and a daemon that runs examples/missions against it. Ctrl+C ends both.
#
#   API_PORT=8865 METRICS_PORT=9190 make run     other ports
#   examples/run.sh --verbose                    what follows goes to reqon; it must be on the PATH
set -euo pipefail
# Jobs get process groups of their own: Ctrl+C reaches this script alone, which ends them in order.
set -m
cd "$(dirname "$0")/.."

api_port=${API_PORT:-8765}
metrics_port=${METRICS_PORT:-9090}
api=http://127.0.0.1:$api_port
api_pid=
reqon_pid=
scratch=$(mktemp -d)

say() { printf '%s\n' "$*" >&2; }
taken() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

need_port() { # its number, who wants it, the variable that changes it
  if taken "$1"; then
    say "Port $1, which $2 needs, is taken on this machine."
    say "Stop what listens there, or choose another one: $3=$(($1 + 100)) make run"
    exit 3
  fi
}

# shellcheck disable=SC2329  # traps call it
forward_stop() { [[ -z $reqon_pid ]] || kill -TERM "$reqon_pid" 2>/dev/null || true; }

# shellcheck disable=SC2329  # traps call it
clean_up() {
  rm -rf "$scratch"
  # The shell would tell that a job was terminated; the reader knows.
  [[ -z $api_pid ]] || { kill -TERM "$api_pid" && wait "$api_pid"; } 2>/dev/null || true
}

trap clean_up EXIT
trap forward_stop INT TERM HUP

need_port "$api_port" "the example API" API_PORT
need_port "$metrics_port" "/metrics" METRICS_PORT
if ! command -v reqon >/dev/null; then
  say "reqon is not on the PATH. In a checkout: make run"
  exit 3
fi

mkfifo "$scratch/api"
python3 examples/api/server.py --port "$api_port" --touch-every 5 >"$scratch/api" </dev/null &
api_pid=$!
if ! read -r -t 20 ready <"$scratch/api" || [[ $ready != ready* ]]; then
  say "The example API did not start."
  exit 1
fi

say "The example API answers at $api, metrics are at http://127.0.0.1:$metrics_port/metrics."
say "Let it fail and watch an alert arrive:"
say "  curl -d '{\"fail\": \"500\", \"path\": \"/orders\", \"times\": 20}' $api/_control"
say "  curl $api/_alerts"
say "The alert comes within ten seconds; its end, status resolved, about a minute later, when the failures are used up."
say "Ctrl+C stops it all."
say

SHOP_URL=$api reqon examples/missions --daemon --metrics-port "$metrics_port" \
  --alert-on-failure --alert-url "$api/_alerts" "$@" </dev/null &
reqon_pid=$!

# A signal ends `wait`, not the daemon: that one takes its time to save what runs.
status=0
while kill -0 "$reqon_pid" 2>/dev/null; do
  status=0
  wait "$reqon_pid" || status=$?
done
if [[ $status -eq 0 ]]; then
  say "Stopped. What happened: .venv/bin/reqon status, .venv/bin/reqon history Pulse"
fi
exit "$status"
