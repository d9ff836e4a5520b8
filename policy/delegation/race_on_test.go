//go:build race

package delegation

// The race detector makes sync.Pool drop what it is given now and then.
const raceEnabled = true
