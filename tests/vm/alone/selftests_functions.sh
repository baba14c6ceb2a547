
# SPDX-License-Identifier: MIT
# Put behind upstream's functions.sh: what it does to livepatch modules is done by pylivepatch.
# Of insmod and rmmod the messages are expected, too.
function package {
	local status
	printf '%q ' "$@" >"$PLP_REQUESTS"
	{
		read -r status
		cat >&2
	} <"$PLP_ANSWERS"
	return "$status"
}

function insmod {
	if [[ $(modinfo "$1" | awk '/^livepatch:/{print $NF}') == "Y" ]]; then
		package load "$@"
	else
		command insmod "$@"
	fi
}

function rmmod {
	if [[ -e "/sys/module/$1/taint" && $(cat "/sys/module/$1/taint") == *K* ]]; then
		package unload "$1"
	else
		command rmmod "$@"
	fi
}

function disable_lp() {
	local mod="$1"

	log "% echo 0 > /sys/kernel/livepatch/$mod/enabled"
	package revert "$mod" || die "failed to disable livepatch $mod"
	loop_until '[[ ! -e "/sys/kernel/livepatch/$mod" ]]' ||
		die "failed to disable livepatch $mod"
}
