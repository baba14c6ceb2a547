
# SPDX-License-Identifier: MIT
# Put behind upstream's functions.sh: what it does to livepatch modules is done by pylivepatch.
# Of insmod and rmmod the messages are expected, too.
function insmod {
	if [[ $(modinfo "$1" | awk '/^livepatch:/{print $NF}') == "Y" ]]; then
		python3 "$PLP_HELPER" load "$@"
	else
		command insmod "$@"
	fi
}

function rmmod {
	if [[ -e "/sys/module/$1/taint" && $(cat "/sys/module/$1/taint") == *K* ]]; then
		python3 "$PLP_HELPER" unload "$1"
	else
		command rmmod "$@"
	fi
}

function disable_lp() {
	local mod="$1"

	log "% echo 0 > /sys/kernel/livepatch/$mod/enabled"
	python3 "$PLP_HELPER" revert "$mod" || die "failed to disable livepatch $mod"
	loop_until '[[ ! -e "/sys/kernel/livepatch/$mod" ]]' ||
		die "failed to disable livepatch $mod"
}
