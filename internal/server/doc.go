// Package server keeps the connections of a small server: it accepts them, admits so
// many at once, knows which of them are idle, and ends them when the server ends. It
// knows no protocol; that is the Handle of a Config, which is called with each
// connection.
//
// # Mechanism
//
// A connection is idle or busy. Its protocol says which (Conn.Wake, Conn.Rest), and
// each change is one atomic operation on the connection alone, so that processors do
// not meet at a lock. Whoever closes a connection from outside changes its state
// first: an idle one is closed at once, a busy one is told, and its protocol learns
// of it from the next Rest.
//
// When there is no room for a connection, it waits, and the listener's backlog behind
// it, until another has gone. With Config.MinIdle, the one idle longest is closed to
// make room once it has been idle for more than that.
//
// # Promises
//
// Until Conns.Close is called, a busy connection is not closed from outside before
// Config.Finish has passed, and an idle one only to make room, or after drain and Grace.
//
// Conns.Serve returns when every goroutine that it started, or that Conn.Hold told it
// of, has ended. Lack of descriptors or memory does not end it.
//
// # Limits
//
// A protocol sets its own deadlines for reading. Stats and the choice of the one idle
// longest walk over all connections: both are for thousands, not for millions.
package server

import "time"

const (
	minBackoff  = 5 * time.Millisecond // after the first failed accept(2)
	maxBackoff  = time.Second          // after many
	logInterval = 10 * time.Second     // between two lines about the same kind of mishap
)
