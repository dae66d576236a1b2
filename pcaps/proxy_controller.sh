#!/bin/sh
# The spammer's side of a residential proxy: hands out addresses and feeds its own mailer through the proxy.
# usage: proxy_controller.sh CONTROL_PORT FIRST_DATA_PORT; reads "PAUSE_S MX_ADDRESS SENDER RECIPIENT" lines.
set -eu
control_port=$1 data_port=$2
control=$(mktemp -u --suffix=.pipe /run/lab/control.XXXXXX)
mkfifo "$control"
nc -l "$control_port" <"$control" &
exec 3>"$control"
while read -r pause_s mx sender recipient; do
    sleep "$pause_s"
    swaks --pipe "nc -l -N $data_port" --helo "${sender#*@}" --from "$sender" --to "$recipient" \
        --header "Subject: news for you" --body "lab test body $data_port" &
    sleep 0.5
    echo "$mx $data_port" >&3
    wait $! || true # a refused mail is not an error here
    data_port=$((data_port + 1))
done
