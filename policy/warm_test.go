package policy

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestWarm: the answer is there before Postfix asks, one look-up for many calls.
func TestWarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		if s := w.engine.Standing("ex.test"); s != StandingUnknown {
			t.Errorf("before: %s", s)
		}
		for range 5 {
			w.engine.Warm("Ex.Test")
		}
		time.Sleep(time.Second)
		if s := w.engine.Standing("ex.test"); s != "secure" {
			t.Errorf("after: %s", s)
		}
		if n := len(w.dns.Asked()); n == 0 || n > 8 {
			t.Errorf("%d questions", n)
		}
		w.want("ex.test", secureReply)
		w.engine.Warm("ex.test")
		synctest.Wait()
		if asked := w.dns.Asked(); len(asked) > 0 {
			t.Errorf("asked for what is known: %v", asked)
		}
	})
}

// TestStanding: what is no demand of the destination's own is the floor.
func TestStanding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.want("ex.test", "NOTFOUND ")
		for name, want := range map[string]string{"ex.test": "floor", "EX.test.": "floor", "other.test": "unknown", "a..b": "unknown", "": "unknown"} {
			if s := w.engine.Standing(name); s != want {
				t.Errorf("%q stands at %s, want %s", name, s, want)
			}
			w.engine.Warm(".") // no destination
		}
	})
}
