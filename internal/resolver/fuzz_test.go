package resolver

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// FuzzReply holds what is read from a reply against the library's own reading:
//   - only a message with our id and our question is a reply;
//   - the records are those that the library finds at the end of the chain;
//   - names come out in one shape, and can be asked for again.
func FuzzReply(f *testing.F) {
	for _, records := range [][]string{
		{"ex.test. 60 TXT a b"}, {"ex.test. 60 CNAME b.test.", "b.test. 30 TXT c", "b.test. 20 TXT c"},
		{"ex.test. 60 MX 1 a.ex.test."}, {"ex.test. 60 CNAME ex.test."}, {},
	} {
		m := new(dns.Msg)
		m.SetQuestion("ex.test.", dns.TypeTXT)
		m.Id, m.Response, m.AuthenticatedData, m.Compress = 0, true, true, true
		for _, text := range records {
			rr, err := dns.NewRR(text)
			if err != nil {
				f.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		soa, err := dns.NewRR("test. 60 SOA a.test. b.test. 1 2 3 4 5")
		if err != nil {
			f.Fatal(err)
		}
		m.Ns = append(m.Ns, soa)
		m.SetEdns0(1232, true)
		packet, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packet, uint8(0))
		f.Add(packet[:len(packet)-3], uint8(1))
		f.Add(packet, uint8(2))
	}
	types := []uint16{dns.TypeTXT, dns.TypeMX, dns.TypeCNAME, dns.TypeTLSA, dns.TypeA, dns.TypeAAAA}
	f.Fuzz(func(t *testing.T, packet []byte, which uint8) {
		qtype := types[int(which)%len(types)]
		q := new(question)
		if err := q.set("ex.test", qtype); err != nil {
			t.Fatal(err)
		}
		q.query[2], q.query[3] = 0, 0 // the id
		if !q.answeredBy(packet) {
			return
		}
		checkQuestion(t, packet, qtype)
		c := chain{}
		c.names[0] = q.name
		into := &names{qtype: qtype}
		p, err := q.read(packet, &c, into)
		if err != nil {
			if c.links != 0 {
				t.Error("an error moved the chain")
			}
			return
		}
		checkNames(t, append(into.names, p.canonical))
		checkRecords(t, packet, qtype, p, into.count)
	})
}

func checkQuestion(t *testing.T, packet []byte, qtype uint16) {
	if binary.BigEndian.Uint16(packet) != 0 || packet[2]&0x80 == 0 {
		t.Fatal("accepted a packet with another id, or a question")
	}
	if n := binary.BigEndian.Uint16(packet[4:]); n == 0 {
		if packet[3]&0xf == 0 || packet[3]&0xf == 3 {
			t.Fatal("accepted an answer without a question")
		}
		return
	}
	name, off, err := dns.UnpackDomainName(packet, headerSize)
	if err != nil || !strings.EqualFold(name, "ex.test.") || binary.BigEndian.Uint16(packet[off:]) != qtype || binary.BigEndian.Uint16(packet[off+2:]) != dns.ClassINET {
		t.Fatalf("accepted an answer to %q", name)
	}
}

func checkNames(t *testing.T, names []string) {
	for _, name := range names {
		if name == "" || name != strings.ToLower(name) || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("name %q", name)
		}
		wire, err := appendName(nil, name)
		if err != nil {
			t.Fatalf("name %q cannot be asked for: %v", name, err)
		}
		if again, _, err := readName(wire, 0); err != nil || again != name {
			t.Errorf("name %q comes back as %q, %v", name, again, err)
		}
	}
}

// checkRecords compares with the library, where that accepts the whole message;
// it is stricter about types that are of no interest here.
func checkRecords(t *testing.T, packet []byte, qtype uint16, p part, got int) {
	m := new(dns.Msg)
	if m.Unpack(packet) != nil || len(m.Answer) != int(binary.BigEndian.Uint16(packet[6:])) {
		return
	}
	distinct := map[string]bool{}
	for _, rr := range m.Answer {
		h := rr.Header()
		if h.Rrtype != qtype || h.Class != dns.ClassINET {
			continue
		}
		wire, _, err := dns.UnpackDomainName([]byte(mustPack(t, h.Name)), 0)
		if err != nil {
			t.Fatal(err)
		}
		if owner, _, _ := readName([]byte(mustPack(t, wire)), 0); owner != p.canonical {
			continue
		}
		h.Ttl = 0
		distinct[rr.String()] = true
	}
	// The same record may have been written in two ways (compression, the case of
	// names): then here it counts twice.
	if got < len(distinct) || (got > 0) != (len(distinct) > 0) {
		t.Errorf("%d records, the library has %d\n%v", got, len(distinct), m)
	}
}

func mustPack(t *testing.T, name string) string {
	b := make([]byte, 300)
	n, err := dns.PackDomainName(name, b, 0, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// names takes records of any of the six types, for their names.
type names struct {
	qtype uint16
	names []string
	count int
}

func (n *names) reset() { n.names, n.count = nil, 0 }

func (n *names) add(msg []byte, off, end int) error {
	var name string
	var err error
	switch n.qtype {
	case dns.TypeTXT:
		_, err = textData(msg, off, end)
	case dns.TypeMX:
		var mx MX
		mx, err = mxData(msg, off, end)
		name = mx.Host
	case dns.TypeCNAME:
		name, err = nameData(msg, off, end)
	case dns.TypeTLSA:
		_, err = tlsaData(msg, off, end)
	case dns.TypeA:
		_, err = addressData(4, "A")(msg, off, end)
	default:
		_, err = addressData(16, "AAAA")(msg, off, end)
	}
	if err != nil {
		return err
	}
	n.count++
	if name != "" {
		n.names = append(n.names, name)
	}
	return nil
}

// FuzzName: a name that is accepted packs as the library packs it, in lower
// case, and its canonical form is stable.
func FuzzName(f *testing.F) {
	for _, name := range []string{"ex.test", "EX.test.", ".", "", `a\.b\032c.test`, `\255.x`, "a..b", strings.Repeat("a.", 126) + "a", strings.Repeat("a", 64)} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		wire, err := appendName(nil, name)
		if err != nil {
			return
		}
		want := make([]byte, 300)
		n, err := dns.PackDomainName(dns.Fqdn(name), want, 0, nil, false)
		if err != nil || !strings.EqualFold(string(want[:n]), string(wire)) {
			t.Errorf("%q: % x, library % x, %v", name, wire, want[:n], err)
		}
		if len(wire) > maxNameWire || slices.ContainsFunc(wire, func(c byte) bool { return 'A' <= c && c <= 'Z' }) {
			t.Errorf("%q: % x", name, wire)
		}
		canonical, _, err := readName(wire, 0)
		if err != nil {
			t.Fatal(err)
		}
		checkNames(t, []string{canonical})
		if plain(name) && canonical != name {
			t.Errorf("%q is not canonical: %q", name, canonical)
		}
		if !within(canonical, ".") || !within(canonical, canonical) {
			t.Errorf("%q is not within itself", canonical)
		}
	})
}

func FuzzResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 192.0.2.1\noptions trust-ad\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		servers, _ := parseResolvConf(text)
		if len(servers) > maxNameserver {
			t.Errorf("%d servers", len(servers))
		}
		for _, s := range servers {
			if !s.IsValid() || s.Port() != 53 || s.Addr().IsUnspecified() {
				t.Errorf("server %s", s)
			}
		}
	})
}
