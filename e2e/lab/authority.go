//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// authorityAddress is where the authority listens in every world; unbound asks it there.
const authorityAddress = "127.0.0.1:5301"

// Fault is what the authority does wrong for one name and type.
type Fault string

// The faults.
const (
	ServFail Fault = "servfail" // answer SERVFAIL
	Bogus    Fault = "bogus"    // sign wrongly, so that a validator answers SERVFAIL
	Silent   Fault = "silent"   // do not answer at all
)

// AllNames as the name of a fault means every question.
const AllNames = "*"

// Authority answers for all zones of a world. Records and faults change while it runs; questions are counted.
type Authority struct {
	mu     sync.Mutex
	zones  map[string]*zone
	faults map[question]Fault
	asked  map[question]int

	servers []*dns.Server
	group   sync.WaitGroup
}

type question struct {
	name  string // lower case, with the final dot
	qtype uint16 // TypeANY: every type
}

// NewAuthority serves the zones in the network until Close.
func NewAuthority(network *Network, zones []*zone) (*Authority, error) {
	a := &Authority{
		zones:  make(map[string]*zone),
		faults: make(map[question]Fault),
		asked:  make(map[question]int),
	}
	for _, z := range zones {
		a.zones[z.name] = z
	}
	packets, err := network.ListenPacket("udp", authorityAddress)
	if err != nil {
		return nil, err
	}
	listener, err := network.Listen("tcp", authorityAddress)
	if err != nil {
		return nil, errors.Join(err, packets.Close())
	}
	a.serve(&dns.Server{PacketConn: packets, Handler: a})
	a.serve(&dns.Server{Listener: listener, Handler: a})
	return a, nil
}

func (a *Authority) serve(server *dns.Server) {
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	a.servers = append(a.servers, server)
	a.group.Go(func() {
		// It ends by Shutdown; an error can only be a socket that was closed under it.
		if err := server.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
			panic(fmt.Sprintf("lab authority: %v", err))
		}
	})
	<-started
}

// Close ends the service.
func (a *Authority) Close() error {
	var errs []error
	for _, server := range a.servers {
		errs = append(errs, server.Shutdown())
	}
	a.group.Wait()
	return errors.Join(errs...)
}

// SetFault makes the authority misbehave for a name and type ("ANY": all types), or for [AllNames]. An empty fault
// heals it.
func (a *Authority) SetFault(name, qtype string, fault Fault) error {
	q, err := parseQuestion(name, qtype)
	if err != nil {
		return err
	}
	switch fault {
	case ServFail, Bogus, Silent, "":
	default:
		return fmt.Errorf("dns fault %q: want servfail, bogus or silent", fault)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if fault == "" {
		delete(a.faults, q)
	} else {
		a.faults[q] = fault
	}
	return nil
}

func parseQuestion(name, qtype string) (question, error) {
	t, ok := dns.StringToType[strings.ToUpper(qtype)]
	if !ok {
		return question{}, fmt.Errorf("dns type %q is unknown", qtype)
	}
	if name == AllNames {
		return question{name: AllNames, qtype: dns.TypeANY}, nil
	}
	return question{name: dns.CanonicalName(name), qtype: t}, nil
}

// Add adds a record in master file form, with absolute names, to its zone.
func (a *Authority) Add(record string) error {
	record, err := expandKeys(record)
	if err != nil {
		return err
	}
	rr, err := dns.NewRR(record)
	if err != nil {
		return err
	}
	rr.Header().Ttl = recordTTL
	a.mu.Lock()
	defer a.mu.Unlock()
	z := a.zoneOf(dns.CanonicalName(rr.Header().Name))
	if z == nil {
		return fmt.Errorf("no zone for %s", rr.Header().Name)
	}
	z.records = append(z.records, rr)
	return nil
}

// Remove removes all records of that name and type; it is an error if there was none.
func (a *Authority) Remove(name, qtype string) error {
	q, err := parseQuestion(name, qtype)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	z := a.zoneOf(q.name)
	if z == nil {
		return fmt.Errorf("no zone for %s", name)
	}
	before := len(z.records)
	z.records = slices.DeleteFunc(z.records, func(rr dns.RR) bool {
		return dns.CanonicalName(rr.Header().Name) == q.name && (q.qtype == dns.TypeANY || rr.Header().Rrtype == q.qtype)
	})
	if len(z.records) == before {
		return fmt.Errorf("no %s record of %s", qtype, name)
	}
	return nil
}

// TXT returns the TXT records of a name, the strings of each joined.
func (a *Authority) TXT(name string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	name = dns.CanonicalName(name)
	z := a.zoneOf(name)
	if z == nil {
		return nil
	}
	var texts []string
	for _, rr := range z.lookUp(name, dns.TypeTXT) {
		texts = append(texts, strings.Join(rr.(*dns.TXT).Txt, ""))
	}
	return texts
}

// keyRecords lists the DKIM key records as OpenDKIM's TestPublicKeys wants them: a line for each, name and text.
func (a *Authority) keyRecords() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var lines strings.Builder
	for _, z := range a.zones {
		for _, rr := range z.records {
			if txt, ok := rr.(*dns.TXT); ok && strings.Contains(txt.Hdr.Name, "._domainkey.") {
				fmt.Fprintf(&lines, "%s %s\n", strings.TrimSuffix(dns.CanonicalName(txt.Hdr.Name), "."), strings.Join(txt.Txt, ""))
			}
		}
	}
	return lines.String()
}

// Asked counts the questions for a name and type so far.
func (a *Authority) Asked(name, qtype string) (int, error) {
	q, err := parseQuestion(name, qtype)
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked[q], err
}

// zoneOf finds the deepest zone that holds the name. The caller holds mu.
func (a *Authority) zoneOf(name string) *zone {
	for rest, end := name, false; !end; {
		if z := a.zones[rest]; z != nil {
			return z
		}
		var next int
		if next, end = dns.NextLabel(rest, 0); !end {
			rest = rest[next:]
		}
	}
	return nil
}

// ServeDNS answers one question; it is the dns.Handler.
func (a *Authority) ServeDNS(w dns.ResponseWriter, request *dns.Msg) {
	reply := new(dns.Msg).SetReply(request)
	reply.Authoritative = true
	if len(request.Question) != 1 {
		reply.Rcode = dns.RcodeFormatError
	} else if !a.answer(reply, request) {
		return
	}
	if request.IsEdns0() != nil {
		reply.SetEdns0(4096, true)
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			reply.Truncate(int(request.IsEdns0().UDPSize()))
		}
	}
	if err := w.WriteMsg(reply); err != nil && !errors.Is(err, net.ErrClosed) {
		w.Close()
	}
}

// answer fills the reply; false means silence.
func (a *Authority) answer(reply, request *dns.Msg) bool {
	q := question{name: dns.CanonicalName(request.Question[0].Name), qtype: request.Question[0].Qtype}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked[q]++
	fault := a.faultOf(q)
	z := a.zoneOf(q.name)
	switch {
	case fault == Silent:
		return false
	case fault == ServFail:
		reply.Rcode = dns.RcodeServerFailure
		return true
	case z == nil:
		reply.Rcode = dns.RcodeRefused
		return true
	}
	if err := z.answer(reply, q); err != nil {
		reply.Rcode = dns.RcodeServerFailure
		return true
	}
	if fault == Bogus {
		spoil(reply.Answer)
		spoil(reply.Ns)
	}
	return true
}

func (a *Authority) faultOf(q question) Fault {
	for _, key := range []question{q, {q.name, dns.TypeANY}, {AllNames, dns.TypeANY}} {
		if fault := a.faults[key]; fault != "" {
			return fault
		}
	}
	return ""
}

// spoil makes every signature wrong.
func spoil(rrs []dns.RR) {
	for _, rr := range rrs {
		if sig, ok := rr.(*dns.RRSIG); ok {
			sig.Signature = "AAAA" + sig.Signature[4:]
		}
	}
}
