#!/bin/bash
# SPDX-License-Identifier: MIT
# Runs upstream's livepatch selftests in a guest: selftests.sh DIRECTORY
set -u
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
cp -r "$1" /tmp/livepatch
cd /tmp/livepatch || exit
ln -s "$PYLIVEPATCH_LAB_MODULES" test_modules
mount -t debugfs none /sys/kernel/debug 2>/dev/null
mkdir -p /tmp/bin
for name in awk diff; do ln -sf "$(command -v busybox)" /tmp/bin/$name; done
printf '#!/bin/sh\nexec nproc\n' >/tmp/bin/getconf
chmod +x /tmp/bin/getconf
export PATH=$PATH:/tmp/bin KDIR=/ PLP_REQUESTS=/tmp/requests PLP_ANSWERS=/tmp/answers
mkfifo $PLP_REQUESTS $PLP_ANSWERS
python3 "$here/selftests_helper.py" $PLP_REQUESTS $PLP_ANSWERS &
trap 'kill $!' EXIT
cp functions.sh functions.upstream
cat functions.upstream "$here/selftests_functions.sh" >functions.package
passed=0 failed=0 alike=0
for test in test-*.sh; do
	echo "# $test"
	cp functions.package functions.sh
	modprobe klpctl
	bash "./$test" </dev/null
	status=$?
	command rmmod klpctl || status=1
	if [ $status = 0 ]; then
		passed=$((passed + 1))
		continue
	fi
	# What this kernel does not do by itself either, is not klpctl's matter.
	cp functions.upstream functions.sh
	echo "# $test, without klpctl"
	if bash "./$test" </dev/null; then
		failed=$((failed + 1))
		echo "# $test failed"
	else
		alike=$((alike + 1))
	fi
done
echo "# $passed passed, $failed failed, $alike fail without klpctl, too"
[ $failed = 0 ] && [ $passed -ge 6 ]
