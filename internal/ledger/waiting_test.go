package ledger

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postseal/postseal/cache"
)

// What waits is bounded; what is dropped is counted, and told again when it is next seen.
func TestLedger_TooMuchWaits(t *testing.T) {
	store := cache.NewVolatile(nil)
	l, r := New(Config{Store: store}), NewRule(Rule{Level: "encrypt"})
	others := int64(maxWaiting - 3)
	l.waiting.Store(others)
	tell := func() {
		for i := range 3 {
			d := fmt.Sprintf("d%d.test", i)
			l.Answered(d, r, "encrypt")
			l.Refused(d)
		}
	}
	tell()
	if n := testutil.ToFloat64(l.dropped); n != 3 {
		t.Errorf("%v dropped, want 3", n)
	}
	if err := l.Flush(t.Context()); err != nil || l.waiting.Load() != others {
		t.Errorf("%v, %d wait", err, l.waiting.Load())
	}
	tell() // one destination and two counts were not dropped
	if err := l.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	l.waiting.Store(0)
	tell()
	b, err := l.Read(t.Context(), time.Time{})
	if err != nil || len(b.Entries) != 3 || l.waiting.Load() != 0 {
		t.Errorf("%v, %+v", err, b)
	}
}

// Many destinations do not grow what is remembered beyond its limit.
func TestLedger_KnownIsBounded(t *testing.T) {
	l := New(Config{Store: cache.NewVolatile(nil)})
	r, s := NewRule(Rule{Level: "encrypt"}), &l.shards[0]
	for i := range maxKnown/shards + 10 {
		s.forget()
		s.known[name{fmt.Sprint(i), false}] = known{rule: r}
	}
	if n := len(s.known); n > maxKnown/shards || n < maxKnown/shards/2 {
		t.Errorf("%d known", n)
	}
}
