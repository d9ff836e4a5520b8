// Package systemd is the daemon's side of its service manager: listeners by
// socket activation, messages about its state, the watchdog; and listeners of its
// own, for sockets that nobody passes.
//
// Beside it lie the units. README.md tells how they are installed and why they
// are as they are.
//
// Everything here also works without systemd: there are then no listeners in the
// environment, and messages go nowhere.
package systemd

import "time"

// Limits.
const (
	dialTimeout = time.Second // to see whether anybody listens on a unix socket that exists
)
