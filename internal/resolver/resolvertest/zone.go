package resolvertest

import (
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// Zone makes a Handler of a table, in the notation of New but without delay and
// hang. What the table does not name is refused.
func Zone(table string) func(q *Query) *dns.Msg {
	z := zone{}
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); len(f) > 0 && !strings.HasPrefix(f[0], "#") {
			z.add(f)
		}
	}
	return z.answer
}

type owner struct{ name, rtype string }

type zone map[owner]*zoneEntry

type zoneEntry struct {
	ad      bool
	kind    string // "", "nx", "nodata", "servfail"
	records []string
	ttl     uint32
}

func (z zone) add(f []string) {
	var e zoneEntry
	for ; f[0] == "ad" || f[0] == "nx" || f[0] == "nodata" || f[0] == "servfail"; f = f[1:] {
		if f[0] == "ad" {
			e.ad = true
		} else {
			e.kind = f[0]
		}
	}
	k := owner{name: bare(f[0])}
	switch e.kind {
	case "servfail":
		k.rtype = f[1]
	case "nx", "nodata":
		k.rtype = f[2]
		fmt.Sscan(f[1], &e.ttl)
	default:
		rr := record(strings.Join(append([]string{dns.Fqdn(f[0])}, f[1:]...), " "))
		k.rtype, e.records = dns.TypeToString[rr.Header().Rrtype], []string{rr.String()}
	}
	if old := z[k]; old != nil {
		old.records = append(old.records, e.records...)
		return
	}
	z[k] = &e
}

func (z zone) answer(q *Query) *dns.Msg {
	ad, chain, name := true, []string(nil), q.Name
	for range 20 {
		e := z[owner{name, q.Type}]
		if alias := z[owner{name, "CNAME"}]; e == nil && alias != nil {
			ad, chain = ad && alias.ad, append(chain, alias.records[0])
			name = bare(record(alias.records[0]).(*dns.CNAME).Target)
			continue
		}
		if e == nil {
			return q.Fail(dns.RcodeRefused)
		}
		rcode := dns.RcodeSuccess
		switch e.kind {
		case "servfail":
			return q.Fail(dns.RcodeServerFailure)
		case "nx":
			rcode = dns.RcodeNameError
			fallthrough
		case "nodata":
			m := q.Deny(ad && e.ad, rcode, name, e.ttl, e.ttl)
			m.Answer = q.Answer(ad, chain...).Answer
			return m
		}
		return q.Answer(ad && e.ad, append(chain, e.records...)...)
	}
	return q.Answer(ad, chain...) // a loop, as far as it was followed
}
