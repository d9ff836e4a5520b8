package reach

import (
	"crypto/x509"
	"slices"
	"testing"
	"time"
)

// FuzzTLSA: whatever is in the DNS, records that cannot be used never make a
// certificate good, and only a DANE-EE(3) record that holds the very data, or a
// trust anchor, does. What is judged twice is judged alike.
func FuzzTLSA(f *testing.F) {
	id := issue(f, newPKI(f).root, "mx.ex.test", named("mx.ex.test"))
	for _, r := range []TLSA{record(3, 1, 1, id.cert), record(3, 0, 0, id.cert), record(2, 1, 0, id.cert), {1, 1, 1, nil}} {
		f.Add(r.Usage, r.Selector, r.MatchingType, r.Data)
	}
	now := time.Now()
	f.Fuzz(func(t *testing.T, usage, selector, kind uint8, data []byte) {
		r := TLSA{usage, selector, kind, data}
		sound := usable([]TLSA{r})
		if len(sound) == 1 && (usage < 2 || usage > 3 || selector > 1 || kind > 2 || len(data) == 0) {
			t.Fatalf("usable: %v", r)
		}
		if !slices.EqualFunc(agile(sound), sound, func(a, b TLSA) bool { return a.MatchingType == b.MatchingType }) {
			t.Fatalf("alone, and yet weaker than another: %v", r)
		}
		d, err := demandOf(&Target{Host: "mx.ex.test", Level: DANEOnly, TLSA: []TLSA{r}})
		if err != nil {
			t.Fatal(err)
		}
		j := judge(d, id.chain(), x509.NewCertPool(), now)
		if j.meets && (len(sound) == 0 || usage == daneEE && !r.matches(id.cert)) || j.meets && j.doubt != "" {
			t.Fatalf("%v: %+v", r, j)
		}
		if again := judge(d, id.chain(), x509.NewCertPool(), now); again != j {
			t.Fatalf("%+v, then %+v", j, again)
		}
	})
}
