// Package conf reads what a Postfix on this host is configured to do: its
// version, and the effective parameters of every service that runs smtp(8) or
// lmtp(8), that is main.cf overlaid by the -o options of master.cf, expanded.
//
// It asks postconf(1), and postmap(1) about tables that route mail (Router), so that defaults, $name, ${name?…} and
// compatibility_level mean what this version of Postfix makes of them. Both
// are run without a shell, with a deadline, a bound on its output, and almost
// no environment.
//
// Only services whose smtp_tls_policy_maps names one of our sockets count
// (Snapshot.Ours): they are the ones that ask us. From them follow the level
// that an answer NOTFOUND leaves in force, whether `secure` and `dane-only` can
// be obeyed at all, and the Problems that would stop mail or make answers void.
// Where there is no Postfix (ErrNoPostfix), and where no service asks us,
// nothing is assumed.
//
// # Bugs
//
// $service_name is known in -o options only, not in main.cf. Whether user
// postfix can reach a unix socket is not judged here.
package conf
