// Package ledger keeps, for people, what became of destinations whose mail must
// go out with TLS: which level Postfix was told, what their mail hosts were seen to
// offer, when that changed, and how many recipients were refused or deferred for it.
//
// It proves policy and reach, not deliveries. Nothing is decided from it: a ledger
// that is lost costs evidence, and no enforcement. It lives in a cache.Store of its
// own, which no operation on the daemon's cache touches.
//
// Callers tell it what happens (Answered, Reached, Refused, Deferred, Inert) and
// do not wait: what is new goes into memory, and one goroutine (Run) merges it into
// the store every two seconds. What is not new costs a look into a map. An answer
// given again moves LastAsked once an hour.
//
// # What is kept
//
//   - Of each destination: the rule, the level answered last, the last result of
//     each mail host, and when it was asked for and when the evidence changed.
//   - A history of the changes, at most 24 a day and destination, each with the
//     evidence as it was from then on.
//   - Of each destination and day: how many recipients were refused and deferred.
//
// All of it ends 400 days after it was last of use. There are no senders, no
// clients and no addresses of persons in it.
//
// # Limits
//
// What changes and changes back within two seconds is not seen, and kill -9 loses
// what was not yet written. A store that cannot be written is tried again every half
// minute; meanwhile up to 50,000 destinations and counts wait, and more are dropped
// and counted.
package ledger

import "time"

// Keep is how long evidence is kept, counted from when it was last of use.
const Keep = 400 * 24 * time.Hour

// Limits of what is kept and of what waits to be written.
const (
	writeEvery   = 2 * time.Second  // what is told meanwhile shares a commit
	retryEvery   = 30 * time.Second // after a write that failed
	writeTimeout = 30 * time.Second // for one batch
	writeBatch   = 500              // destinations and counts in one commit
	askedEvery   = time.Hour        // between two writes that only move LastAsked

	maxWaiting = 50_000  // destinations and counts that wait to be written
	maxKnown   = 200_000 // destinations whose last answer is remembered; beyond, half are forgotten
	maxChanges = 24      // changes of one destination kept of one day

	maxPatterns = 5    // of a rule
	maxReason   = 1000 // bytes of a rule's reason
	maxHosts    = 32   // mail hosts of a destination
	maxNames    = 20   // names of a host's certificate
	maxText     = 400  // bytes of any text about a host
)
