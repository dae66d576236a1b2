#!/bin/sh
# A device turned into a proxy: it calls its controller and connects to whatever addresses it is handed.
# A relayed dialogue that falls silent for four seconds is over: netcat passes no half-close on.
# usage: proxy_device.sh CONTROLLER CONTROL_PORT
set -eu
controller=$1 control_port=$2
pipe=$(mktemp -u --suffix=.pipe /run/lab/proxy.XXXXXX)
mkfifo "$pipe"
sleep infinity | nc "$controller" "$control_port" | while read -r mx data_port; do
    nc -N -w 4 "$mx" 25 <"$pipe" | nc -N -w 4 "$controller" "$data_port" >"$pipe" || true
done
