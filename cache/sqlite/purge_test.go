package sqlite

import (
	"testing"
	"time"
)

// A clock that was set costs no records: they are looked at again an hour later.
func TestSTS097_NoRemovalAfterAJumpOfTheClock(t *testing.T) {
	const day, year = 24 * time.Hour, 8766 * time.Hour
	for _, c := range []struct {
		wall, passed time.Duration
		want         bool
	}{
		{time.Hour, time.Hour, true},
		{time.Hour + 20*time.Minute, time.Hour, true},
		{0, time.Hour, true},
		{2 * year, time.Hour, false},
		{-2 * day, time.Hour, false},
		{2*time.Hour + time.Second, time.Hour, false},
		{-time.Second, time.Hour, false},
	} {
		if got := plausible(c.wall, c.passed); got != c.want {
			t.Errorf("plausible(%v, %v) = %v", c.wall, c.passed, got)
		}
	}
}
