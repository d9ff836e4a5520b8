#!/bin/sh
# Installs what the stories need, and makes the root file systems that hold the other versions of Postfix: Debian's
# trixie and sid, by debootstrap.
#
# They go to $POSTSEAL_ROOTS, by default .roots in the repository, which git ignores; the folder may be a cache that
# outlives the checkout. A root that is there is left alone, so a second run takes no time. Each is built under another
# name and then renamed: what is there is whole. Needs root and a Debian host, whose own Postfix is tested as well.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
roots=${POSTSEAL_ROOTS:-$here/.roots}
suites="trixie sid"
# systemd: systemd-analyze, which checks our units. opendkim: a signer, and another receiver. gcc, libc6-dev,
# libopendkim-dev: what milter/dkim is compared with.
packages="postfix unbound iproute2 util-linux debootstrap ca-certificates systemd
	opendkim opendkim-tools miltertest gcc libc6-dev libopendkim-dev"

say() { printf 'roots: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "only root can make root file systems"
command -v apt-get >/dev/null || fail "apt-get is missing: this is not Debian, and its mirror is where the roots come from"

# without_daemons runs a command while packages may not start services, and leaves the host's policy-rc.d as it was.
policy=/usr/sbin/policy-rc.d
without_daemons() {
	kept=$(mktemp -d)
	had=no
	if [ -e "$policy" ] || [ -L "$policy" ]; then
		had=yes
		cp -a "$policy" "$kept/policy"
	fi
	trap restore_policy EXIT
	trap 'exit 130' INT TERM
	rm -f "$policy"
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	"$@"
	restore_policy
	trap - EXIT INT TERM
}

restore_policy() {
	rm -f "$policy"
	if [ "$had" = yes ]; then cp -a "$kept/policy" "$policy"; fi
	rm -rf "$kept"
}

install_packages() {
	echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

missing=
for package in $packages; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing="$missing $package"
done
wanted=
for suite in $suites; do
	[ -x "$roots/$suite/usr/sbin/postfix" ] || wanted="$wanted $suite"
done
if [ -z "$missing$wanted" ]; then
	say "$roots is complete"
	exit 0
fi

apt-get update -q
if [ -n "$missing" ]; then
	say "installing$missing"
	# shellcheck disable=SC2086 # a list of words
	without_daemons install_packages $missing
fi

# The mirror is whatever apt uses; debootstrap does not read apt's proxy.
# shellcheck source=/dev/null
. /etc/os-release
# shellcheck disable=SC2016 # apt expands $(REPO_URI)
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $VERSION_CODENAME" | sort -u | head -n 1)
[ -n "$mirror" ] || fail "apt knows no mirror for $VERSION_CODENAME"
eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
[ -z "${http_proxy:-}" ] || export http_proxy

mkdir -p "$roots"
for suite in $wanted; do
	say "making $suite"
	building="$roots/.building-$suite.$$"
	rm -rf "$roots/.building-$suite".*
	log="$roots/$suite.log"
	# With --include the package is configured inside debootstrap, cleanly; later, in a bare chroot, it would fail.
	if ! debootstrap --variant=minbase --include=postfix,ca-certificates "$suite" "$building" "$mirror" >"$log" 2>&1; then
		tail -n 20 "$log" >&2
		rm -rf "$building"
		fail "debootstrap $suite failed; the whole log is $log"
	fi
	rm -rf "$building"/var/cache/apt/archives/*.deb "$log"
	rm -rf "${roots:?}/$suite"
	mv "$building" "$roots/$suite"
done
say "$roots is complete"
