//go:build race

package sqlite_test

// raceEnabled: the race detector makes everything several times slower; it finds
// nothing in the thousandth damaged file that it did not find in the hundredth.
const raceEnabled = true
