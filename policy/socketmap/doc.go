// Package socketmap serves and asks lookup tables in the protocol of
// socketmap_table(5). A Server reads one request at a time from a connection,
// hands map name and key to a Handler and frames what the Handler appends.
//
// # Protocol
//
// Requests and replies are netstrings, `LENGTH:PAYLOAD,`. A request's payload is
// `MAPNAME KEY`, split at the first space only: a key may hold anything that a
// transport table can hold, and arrives as Postfix has it, neither folded nor
// IDNA-encoded. A reply's payload is `OK DATA`, `NOTFOUND ` (with its space),
// `TEMP REASON`, `TIMEOUT REASON` or `PERM REASON`. Postfix sends one request
// and waits; requests that arrive together are answered in their order.
//
// What is no netstring, announces more than MaxRequest bytes or has no space in
// it ends the connection without an answer: after wrong framing nothing that
// follows can be trusted to begin where it seems to.
//
// # Promises
//
// The server never closes an idle connection, except the one idle longest, for
// more than MinIdle, and only when MaxConns connections are open and another one
// knocks. Postfix retries once after an EOF, but not when errno is a left-over
// ETIMEDOUT of a slow mail host: then a close defers the delivery
// (src/util/dict_sockmap.c). For the same reason Serve goes on accepting and
// answering after its context has ended, see Server.Drain.
//
// A reply that Postfix would misread, or that breaks the limits below, never
// leaves: a TEMP takes its place, since Postfix then waits with the mail, while
// anything else could send it with less protection than was meant.
//
// # Security
//
// The protocol knows no authentication. Listen on loopback or on a unix socket.
package socketmap

import "time"

// Limits, with Postfix's own beside them.
const (
	// MaxRequest is the longest payload of a request in bytes. Postfix 3.12 asks
	// no more either (socketmap_max_query_size); a policy key is below 300.
	MaxRequest = 10000
	// MaxReply is the longest payload of a reply in bytes
	// (DICT_SOCKMAP_MAX_REPLY, socketmap_max_reply_size). One byte more and the
	// unread rest would desynchronise the connection.
	MaxReply = 100000
	// MaxReason is how much of a reason Postfix logs, in characters.
	MaxReason = 200
	// MinIdle is how long a connection must have been idle before it may be
	// closed to make room. Postfix closes after 10 s, or 100 s when its process
	// is blocked (DICT_SOCKMAP_DEF_MAX_IDLE, _TTL; max_idle).
	MinIdle = 110 * time.Second

	// DefaultMaxConns is well above smtp(8)'s default_process_limit of 100 per
	// service.
	DefaultMaxConns = 4096
	// DefaultDrain is above the 100 s (DICT_SOCKMAP_DEF_MAX_TTL) after which
	// Postfix has given up every connection that it had.
	DefaultDrain = 105 * time.Second
	// DefaultRequestTimeout is the time between the first byte of a request and
	// its last. Postfix writes a request at once.
	DefaultRequestTimeout = 10 * time.Second
	// DefaultWriteTimeout is the least time that a peer gets to take a reply; it
	// may get twice as much. Postfix waits in read(2) for it.
	DefaultWriteTimeout = 10 * time.Second

	finishTimeout = 10 * time.Second // after the drain, for what is being answered
	readSize      = 512              // an idle connection's buffer: a policy key and more
	readGrowth    = 1024             // how much more than it has sent a half-sent request may hold
	writeSize     = 2048             // a reply with MTA-STS attributes
	maxKept       = 16 << 10         // larger reply buffers are not kept
)
