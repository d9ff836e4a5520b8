package blackbox

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// zone is what the name servers know. It behaves as a validating resolver does: CNAMEs are followed, AD is set when
// every part of the answer is secure and the question had DO or AD (RFC 6840 §5.7).
type zone struct {
	mu       sync.Mutex
	sets     map[string]*rrset   // "name type"
	names    map[string]bool     // that exist, with those above them
	insecure map[string]bool     // suffixes
	log      map[string][]string // "name type" → transports
}

// rrset is the answer to one question.
type rrset struct {
	rrs      []dns.RR
	insecure bool
	rcode    int
	silent   bool          // nobody answers
	delay    time.Duration // before the answer
	tcpOnly  bool          // over UDP: truncated
	badTCP   bool          // over TCP: closed at once
	mangled  string        // what is wrong with the message: "id", "question", "short", "owner", "query", "extra"
}

func newZone() *zone {
	return &zone{sets: map[string]*rrset{}, names: map[string]bool{}, insecure: map[string]bool{}, log: map[string][]string{}}
}

// publish reads lines "NAME TYPE [!flag…] RDATA", "NAME !insecure" for all at and below a name, and "$TTL seconds". A
// record replaces those of the same name and type from earlier calls.
func (z *zone) publish(t testing.TB, text string) {
	t.Helper()
	z.mu.Lock()
	defer z.mu.Unlock()
	fresh, ttl := map[string]bool{}, "60"
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || strings.HasPrefix(words[0], ";"):
		case words[0] == "$TTL":
			ttl = words[1]
		case words[1] == "!insecure":
			z.insecure[dns.Fqdn(words[0])] = true
		default:
			if err := z.line(fresh, ttl, words, line); err != nil {
				t.Fatalf("zone: %q: %v", line, err)
			}
		}
	}
}

func (z *zone) line(fresh map[string]bool, ttl string, words []string, line string) error {
	name, kind := dns.Fqdn(words[0]), words[1]
	key := name + " " + kind
	set := z.sets[key]
	if set == nil || !fresh[key] {
		set = &rrset{}
		z.sets[key], fresh[key] = set, true
	}
	for n := name; n != "."; {
		z.names[n] = true
		_, n, _ = strings.Cut(n, ".")
		if n == "" {
			n = "."
		}
	}
	rest := line[strings.Index(line, kind)+len(kind):]
	for rest = strings.TrimSpace(rest); strings.HasPrefix(rest, "!"); rest = strings.TrimSpace(rest) {
		var flag string
		flag, rest, _ = strings.Cut(rest, " ")
		if err := set.flag(strings.TrimPrefix(flag, "!")); err != nil {
			return err
		}
	}
	if rest == "" {
		return nil
	}
	rr, err := dns.NewRR(strings.Join([]string{name, ttl, "IN", kind, rest}, " "))
	if err == nil {
		set.rrs = append(set.rrs, rr)
	}
	return err
}

func (s *rrset) flag(word string) error {
	name, value, _ := strings.Cut(word, "=")
	switch name {
	case "insecure":
		s.insecure = true
	case "servfail":
		s.rcode = dns.RcodeServerFailure
	case "refused":
		s.rcode = dns.RcodeRefused
	case "notimp":
		s.rcode = dns.RcodeNotImplemented
	case "formerr":
		s.rcode = dns.RcodeFormatError
	case "silent":
		s.silent = true
	case "tcp":
		s.tcpOnly = true
	case "tcpbroken":
		s.tcpOnly, s.badTCP = true, true
	case "id", "question", "short", "owner", "query", "extra":
		s.mangled = name
	case "delay":
		d, err := time.ParseDuration(value)
		s.delay = d
		return err
	default:
		return fmt.Errorf("unknown flag %q", word)
	}
	return nil
}

// asked counts the questions for a name and type, over any transport.
func (z *zone) asked(name, kind string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return len(z.log[dns.Fqdn(name)+" "+kind])
}

// questions lists what was asked at and below a domain.
func (z *zone) questions(domain string) []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	var all []string
	for q := range z.log {
		name, _, _ := strings.Cut(q, " ")
		if dns.IsSubDomain(dns.Fqdn(domain), name) {
			all = append(all, q)
		}
	}
	return all
}

// answer is what a validating resolver says, without header bits of the asker.
func (z *zone) answer(q dns.Question, transport string) (m *dns.Msg, last *rrset) {
	z.mu.Lock()
	defer z.mu.Unlock()
	name, kind := strings.ToLower(q.Name), dns.TypeToString[q.Qtype]
	z.log[name+" "+kind] = append(z.log[name+" "+kind], transport)
	m = &dns.Msg{}
	m.AuthenticatedData = true
	for range 12 {
		if z.isInsecure(name) {
			m.AuthenticatedData = false
		}
		set := z.sets[name+" "+kind]
		alias := z.sets[name+" CNAME"]
		switch {
		case set != nil:
			m.Answer = append(m.Answer, set.rrs...)
			m.Rcode = set.rcode
			m.AuthenticatedData = m.AuthenticatedData && !set.insecure && set.rcode == dns.RcodeSuccess
			if len(set.rrs) == 0 && set.rcode == dns.RcodeSuccess {
				m.Ns = denial(name)
			}
			return m, set
		case alias != nil && len(alias.rrs) > 0:
			m.Answer = append(m.Answer, alias.rrs[0])
			m.AuthenticatedData = m.AuthenticatedData && !alias.insecure
			name = strings.ToLower(alias.rrs[0].(*dns.CNAME).Target)
		default:
			if !z.names[name] {
				m.Rcode = dns.RcodeNameError
			}
			m.Ns = denial(name)
			return m, &rrset{}
		}
	}
	m.Rcode, m.AuthenticatedData = dns.RcodeServerFailure, false
	return m, &rrset{}
}

func (z *zone) isInsecure(name string) bool {
	for suffix := range z.insecure {
		if dns.IsSubDomain(suffix, name) {
			return true
		}
	}
	return false
}

func denial(name string) []dns.RR {
	labels := dns.SplitDomainName(name)
	apex := dns.Fqdn(strings.Join(labels[max(0, len(labels)-2):], "."))
	rr, err := dns.NewRR(apex + " 30 IN SOA ns." + apex + " root." + apex + " 1 3600 600 86400 30")
	if err != nil {
		return nil
	}
	return []dns.RR{rr}
}

// view is how one name server differs from the truth of the zone.
type view struct {
	stripAD bool
	silent  bool
	offline bool // no MTA-STS records, no addresses of policy hosts
	dead    bool // SERVFAIL to everything but the probe
	refuse  bool
	delay   time.Duration
}

func (v view) alters(q dns.Question) (rcode int, altered bool) {
	name := strings.ToLower(q.Name)
	switch {
	case v.refuse:
		return dns.RcodeRefused, true
	case name == ".":
		return 0, false
	case v.dead, v.offline && (strings.HasPrefix(name, "_mta-sts.") || strings.HasPrefix(name, "mta-sts.")):
		return dns.RcodeServerFailure, true
	}
	return 0, false
}

// nameServer answers from the zone on UDP and TCP port 53 of an address. The view may change while it runs.
type nameServer struct {
	zone    *zone
	mu      sync.Mutex
	view    view
	servers []*dns.Server
}

func startNameServer(z *zone, address string, v view) (*nameServer, error) {
	s := &nameServer{zone: z, view: v}
	pc, err := net.ListenPacket("udp", address+":53")
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", address+":53")
	if err != nil {
		return nil, err
	}
	s.servers = []*dns.Server{{PacketConn: pc, Handler: s}, {Listener: l, Handler: s}}
	for _, server := range s.servers {
		up := make(chan struct{})
		server.NotifyStartedFunc = func() { close(up) }
		go func() { _ = server.ActivateAndServe() }()
		<-up
	}
	return s, nil
}

func (s *nameServer) close() {
	for _, server := range s.servers {
		_ = server.Shutdown()
	}
}

func (s *nameServer) set(v view) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view = v
}

// ServeDNS answers one question.
func (s *nameServer) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	s.mu.Lock()
	v := s.view
	s.mu.Unlock()
	tcp := w.LocalAddr().Network() == "tcp"
	q := r.Question[0]
	m, set := s.zone.answer(q, w.LocalAddr().Network())
	if rcode, altered := v.alters(q); altered {
		m, set = &dns.Msg{}, &rrset{}
		m.Rcode = rcode
	}
	if v.silent || set.silent {
		return
	}
	if tcp && set.badTCP {
		w.Close()
		return
	}
	time.Sleep(set.delay + v.delay)
	opt := r.IsEdns0()
	ad := m.AuthenticatedData && !v.stripAD && (r.AuthenticatedData || opt != nil && opt.Do())
	rcode := m.Rcode
	m.SetReply(r)
	m.Rcode, m.AuthenticatedData, m.RecursionAvailable = rcode, ad, true
	size := dns.MinMsgSize
	if opt != nil {
		m.SetEdns0(1232, opt.Do())
		size = int(opt.UDPSize())
	}
	switch set.mangled {
	case "id":
		m.Id++
	case "question":
		m.Question = []dns.Question{{Name: "other.test.", Qtype: q.Qtype, Qclass: q.Qclass}}
	case "owner":
		for i, rr := range m.Answer {
			m.Answer[i] = dns.Copy(rr)
			m.Answer[i].Header().Name = "other.test."
		}
	case "query":
		m.Response = false
	case "extra":
		for _, rr := range m.Answer {
			rr = dns.Copy(rr)
			rr.Header().Name = "other.test."
			m.Answer = append(m.Answer, rr)
		}
	case "short":
		_, _ = w.Write([]byte{byte(r.Id >> 8), byte(r.Id), 0x81})
		return
	}
	switch {
	case !tcp && set.tcpOnly:
		m.Answer, m.Truncated = nil, true
	case !tcp:
		m.Truncate(size)
	}
	_ = w.WriteMsg(m) // the asker has gone: its own matter
}
