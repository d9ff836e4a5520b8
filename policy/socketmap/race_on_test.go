//go:build race

package socketmap

// The race detector makes sync.Pool drop what it is given now and then.
const raceEnabled = true
