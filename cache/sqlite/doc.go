// Package sqlite keeps records in an SQLite file, over kill -9 and power loss.
//
// It is a cache.Store: one table of records, each with a checksum of its own; one
// goroutine that writes, in transactions which concurrent calls share; readers
// beside it, also from other processes (OpenReadOnly) while the daemon runs.
//
// # Promises
//
//   - What Put or Delete returned nil for is on the disk: write-ahead log,
//     synchronised at every commit.
//   - A damaged file stops nobody. It is moved aside to PATH.damaged-TIME, loudly,
//     and what can be read of it goes on in a new file: page by page, without
//     trusting its structure, only records whose checksum matches. Damage found
//     later, by a query or by the check of the whole file soon after the start and
//     every day, is handled in the same way, while callers wait.
//   - A full or read-only disk refuses writes, says why (Err), and goes on reading;
//     writing is tried again with later calls.
//   - One process writes: it holds a lock on PATH.lock (CCH-09).
//   - A file of a newer version is refused and left as it is.
//
// # Limits
//
// Records count seconds of their expiry. What has expired is removed within some
// hours. Damage that swallows whole commits at the end of the write-ahead log
// cannot be told from a crash. The file must not be on a network file system.
package sqlite

import "time"

// Limits of the store.
const (
	busyTimeout  = 5 * time.Second  // for another process, such as the sqlite3 command, that holds the file
	queryTimeout = 30 * time.Second // for one query; a chunk of All takes milliseconds
	retryAfter   = 15 * time.Second // between attempts to write to a file that could not be opened for writing

	readers    = 4       // connections that read
	chunkRows  = 512     // records that All reads at once
	chunkBytes = 4 << 20 // bytes of values that All reads at once, and one record more

	queueLength = 256      // calls of Put and Delete that wait without blocking each other
	batchCalls  = 256      // calls that share one commit at most
	batchBytes  = 16 << 20 // bytes that share one commit, and one call more

	walLimit = 64 << 20 // bytes of the write-ahead log that stay allocated

	purgeEvery = time.Hour     // between removals of expired records
	purgeRows  = 500           // expired records removed in one commit
	clockSlack = 1 * time.Hour // a clock that moved further is not trusted with removals (STS-097)

	checkFirst   = time.Minute      // after the start, when the queries that waited for it are answered
	checkEvery   = 24 * time.Hour   // between checks of the whole file
	checkTimeout = 10 * time.Minute // for one; 100,000 records take about a second

	salvageTime = 20 * time.Second // for reading a damaged file, so that a start is not delayed for ever
	keepDamaged = 3                // damaged files kept beside the store, the newest
)
