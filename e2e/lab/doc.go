// Package lab builds worlds in which a real Postfix sends mail: signed and unsigned zones under an authority in this
// process, a real unbound that validates, HTTPS policy hosts and SMTP sinks under a private CA, one or more Postfix
// instances of any installed version, and the postseal binary.
//
// # Isolation
//
// A program that uses the package calls [Enter] first. It runs itself again as the first processes of a new network,
// mount and pid namespace, so that nothing on the host is touched and everything ends with that process. Each [World]
// then has a network namespace of its own: every address of 127.0.0.0/8 on ports 25, 53 and 443 belongs to it alone,
// generated configurations need no port numbers, and worlds run side by side.
//
// # Limits
//
// Linux and root only (Postfix's master insists). IPv4 only. The processes of one world share the mount namespace with
// all others, so /etc/resolv.conf is the same everywhere; it names 127.0.0.1, which is another resolver in each world.
package lab

import "time"

// Limits and deadlines of the laboratory. None of them is a pause: each bounds a wait for a condition.
const (
	startDeadline = 20 * time.Second      // a daemon listens, a Postfix has started
	stopDeadline  = 10 * time.Second      // a process that was asked to end has ended
	pollInterval  = 10 * time.Millisecond // between two looks at a log or a port
	peerDeadline  = 60 * time.Second      // one SMTP command, one HTTP request
	maxLine       = 64 << 10              // bytes of one SMTP line
	maxMessage    = 16 << 20              // bytes of one message at a sink
	maxReply      = 100_000               // bytes of a socketmap reply; Postfix's own limit
)

// Dir is where worlds live, in every root file system. It is a tmpfs of the namespace; the name is short because the
// path of a unix socket ends at 107 bytes.
const Dir = "/media"
