package policy

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/policy/dane"
)

// TestPFX16_CMB11_OrderOfHosts: in whatever order the evidence lists the hosts,
// the bytes of the answer are the same. Postfix compares policies by them.
func TestPFX16_CMB11_OrderOfHosts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := Evidence{Key: Key{Name: "ex.test", Port: 25}, Policy: drawPolicy(t), DANE: drawDANE(t)}
		order := rapid.Permutation(indices(len(e.DANE.MX.Hosts))).Draw(t, "order")
		other := e
		other.DANE.MX.Hosts, other.DANE.Hosts = nil, nil
		for _, i := range order {
			other.DANE.MX.Hosts = append(other.DANE.MX.Hosts, e.DANE.MX.Hosts[i])
			other.DANE.Hosts = append(other.DANE.Hosts, e.DANE.Hosts[i])
		}
		for _, floor := range []Floor{FloorInherit, FloorDANE, FloorEncrypt} {
			for _, c := range []Capability{Plain, Attributes, Narrowing} {
				o := Options{Floor: floor, Capability: c}
				if a, b := Decide(e, o).String(), Decide(other, o).String(); a != b {
					t.Fatalf("%+v: in one order %q, in another %q", o, a, b)
				}
			}
		}
	})
}

func indices(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// TestPFX16_LongPolicy: an answer shortened to the mail hosts (STS-061) lists them in one order too.
func TestPFX16_LongPolicy(t *testing.T) {
	var patterns []string
	for i := range 3000 {
		patterns = append(patterns, strings.Repeat("x", i%50+1)+".some.long.name.test")
	}
	p := stsPolicy(t, "*.ex.test")
	p.MX = append(p.MX, patterns...)
	one, other := evidenceOf("10 n1, 10 n2"), evidenceOf("10 n1, 10 n2")
	slices.Reverse(other.MX.Hosts)
	slices.Reverse(other.Hosts)
	for _, c := range []Capability{Plain, Attributes, Narrowing} {
		var replies []string
		for _, ev := range []dane.Evidence{one, other} {
			replies = append(replies, Decide(Evidence{Key: Key{Name: "ex.test", Port: 25}, Policy: &p, DANE: ev}, Options{Capability: c}).String())
		}
		if replies[0] != replies[1] {
			t.Errorf("capability %d: %.300q and %.300q", c, replies[0], replies[1])
		}
	}
}

// TestPFX16_CMB11_OrderOfTheDNS: two daemons that see the MX records in another
// order answer alike, narrowed lists included.
func TestPFX16_CMB11_OrderOfTheDNS(t *testing.T) {
	const zone = `
ad _mta-sts.ex.test 300 TXT "v=STSv1; id=1"
ad n1.ex.test 300 A 192.0.2.1
ad nodata n1.ex.test 300 AAAA
ad nx _25._tcp.n1.ex.test 300 TLSA
ad n2.ex.test 300 A 192.0.2.2
ad nodata n2.ex.test 300 AAAA
ad nx _25._tcp.n2.ex.test 300 TLSA
ad t1.ex.test 300 A 192.0.2.3
ad nodata t1.ex.test 300 AAAA
`
	records := []string{"ad ex.test 300 MX 10 n1.ex.test", "ad ex.test 300 MX 10 n2.ex.test", "ad ex.test 300 MX 20 t1.ex.test"}
	for _, version := range []string{"", "3.10", "3.11"} {
		for _, name := range MapNames {
			seen := map[string][]int{}
			for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {1, 2, 0}} {
				synctest.Test(t, func(t *testing.T) {
					w := start(t, zone+"ad _25._tcp.t1.ex.test 300 TLSA 3 1 1 "+strings.Repeat("ab", 32), func(c *Config) { c.Postfix.Version, _ = tlspolicy.ParseVersion(version) })
					defer w.stop()
					w.dns.Set(records[order[0]] + "\n" + records[order[1]] + "\n" + records[order[2]])
					w.hosts.set("ex.test", enforceBody)
					reply := w.askMap(name, "ex.test")
					seen[reply] = order
					if !strings.HasPrefix(reply, "OK secure match=n1.ex.test:n2.ex.test ") { // row D2.B
						t.Errorf("%s: %q", name, reply)
					}
				})
			}
			if len(seen) != 1 {
				t.Errorf("%s, Postfix %q: %v", name, version, seen)
			}
		}
	}
}
