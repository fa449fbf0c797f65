#!/usr/bin/env bash
# Runs Go tests several times beside busy processes, four for each processor:
# test/loaded.sh COUNT PACKAGES... [-- FLAGS OF go test]. It ends the processes
# that it started, by their identifiers, however it ends.
set -euo pipefail
count=$1
shift
packages=() flags=()
while [ $# -gt 0 ]; do
	[ "$1" != -- ] || { shift && flags=("$@") && break; }
	packages+=("$1")
	shift
done
busy=()
end() { [ ${#busy[@]} -eq 0 ] || kill "${busy[@]}" 2>/dev/null || true; }
trap end EXIT
trap 'exit 130' INT TERM
for _ in $(seq $((4 * $(nproc)))); do
	(while :; do :; done) &
	busy+=($!)
done
echo "beside ${#busy[@]} busy processes"
failed=0
for i in $(seq "$count"); do
	echo "run $i of $count"
	"${GO:-go}" test -count=1 "${flags[@]}" "${packages[@]}" || failed=$((failed + 1))
done
echo "$failed of $count runs failed"
[ "$failed" -eq 0 ]
