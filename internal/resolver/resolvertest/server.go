package resolvertest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Server is a name server on loopback, over UDP and TCP at one port, for what
// DNS cannot show: packets. Its fields are set before Start.
type Server struct {
	// Host is the address to listen on; empty: 127.0.0.1.
	Host string
	// Handler answers the questions, each in its own goroutine; nil in the end
	// drops the question.
	Handler func(q *Query) *dns.Msg
	// Raw, if set, answers instead of Handler and without goroutines, for
	// benchmarks: it appends the reply to dst. UDP only.
	Raw func(dst, query []byte) []byte
	// NoTCP leaves the TCP port closed.
	NoTCP bool

	addr   netip.AddrPort
	udp    *net.UDPConn
	tcp    net.Listener
	done   chan struct{}
	wg     sync.WaitGroup
	number atomic.Int64

	mu    sync.Mutex
	asked []string
}

// Query is one question as it came.
type Query struct {
	*dns.Msg
	Name string // lower case, without trailing dot
	Type string
	TCP  bool
	DO   bool
	From netip.AddrPort

	server *Server
	send   func(packet []byte)
}

// Start listens, and closes when the test ends. It returns the server.
func (s *Server) Start(t testing.TB) *Server {
	t.Helper()
	if s.Host == "" {
		s.Host = "127.0.0.1"
	}
	if err := s.listen(); err != nil {
		t.Fatalf("resolvertest: %v", err)
	}
	s.done = make(chan struct{})
	s.wg.Go(s.serveUDP)
	if s.tcp != nil {
		s.wg.Go(s.serveTCP)
	}
	t.Cleanup(s.Close)
	return s
}

// listen takes one port for both; another process may hold the TCP half.
func (s *Server) listen() (err error) {
	for range 20 {
		s.udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(s.Host), 0)))
		if err != nil {
			return err
		}
		s.udp.SetReadBuffer(4 << 20)
		s.addr = s.udp.LocalAddr().(*net.UDPAddr).AddrPort()
		if s.NoTCP || s.Raw != nil {
			return nil
		}
		if s.tcp, err = net.Listen("tcp", s.addr.String()); err == nil {
			return nil
		}
		s.udp.Close()
	}
	return err
}

// Addr is the address and port to ask.
func (s *Server) Addr() string { return s.addr.String() }

// Close stops the server and waits for its handlers.
func (s *Server) Close() {
	select {
	case <-s.done:
		return
	default:
	}
	close(s.done)
	s.udp.Close()
	if s.tcp != nil {
		s.tcp.Close()
	}
	s.wg.Wait()
}

// Asked returns the questions so far as "TYPE name", or "TYPE name tcp", and
// forgets them.
func (s *Server) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.asked
	s.asked = nil
	return a
}

// Count says how many packets with a question have come.
func (s *Server) Count() int { return int(s.number.Load()) }

func (s *Server) serveUDP() {
	buf, reply := make([]byte, 4096), make([]byte, 0, 4096)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		if s.Raw != nil {
			s.number.Add(1)
			s.udp.WriteToUDPAddrPort(s.Raw(reply[:0], buf[:n]), from)
			continue
		}
		packet := slices.Clone(buf[:n])
		s.wg.Go(func() {
			s.handle(packet, from, false, func(b []byte) { s.udp.WriteToUDPAddrPort(b, from) })
		})
	}
}

func (s *Server) serveTCP() {
	for {
		conn, err := s.tcp.Accept()
		if err != nil {
			return
		}
		s.wg.Go(func() {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			var size [2]byte
			if _, err := io.ReadFull(conn, size[:]); err != nil {
				return
			}
			packet := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(conn, packet); err != nil {
				return
			}
			from := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
			s.handle(packet, from, true, func(b []byte) {
				conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
			})
		})
	}
}

func (s *Server) handle(packet []byte, from netip.AddrPort, tcp bool, send func([]byte)) {
	m := new(dns.Msg)
	if err := m.Unpack(packet); err != nil || len(m.Question) != 1 {
		return
	}
	q := &Query{
		Msg: m, TCP: tcp, From: from, server: s, send: send,
		Name: bare(m.Question[0].Name), Type: dns.TypeToString[m.Question[0].Qtype],
	}
	if opt := m.IsEdns0(); opt != nil {
		q.DO = opt.Do()
	}
	line := q.Type + " " + q.Name
	if tcp {
		line += " tcp"
	}
	s.number.Add(1)
	s.mu.Lock()
	s.asked = append(s.asked, line)
	s.mu.Unlock()
	reply := s.Handler(q)
	if reply != nil {
		q.Send(reply)
	}
}

// Send sends a reply. Over UDP one that is larger than the question allows is
// cut and gets the TC bit.
func (q *Query) Send(m *dns.Msg) {
	if !q.TCP {
		size := dns.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			size = int(opt.UDPSize())
		}
		m.Truncate(size)
	}
	packet, err := m.Pack()
	if err != nil {
		panic(fmt.Sprintf("resolvertest: reply to %s %s: %v", q.Type, q.Name, err))
	}
	q.send(packet)
}

// SendRaw sends a packet as it is.
func (q *Query) SendRaw(packet []byte) { q.send(packet) }

// Wait waits for a time, or until the server closes.
func (q *Query) Wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-q.server.done:
	}
}

// Answer makes a reply with records in presentation form. Without any it is a
// denial without SOA. The AD bit is set as asked for, if the question had DO or
// AD (RFC 6840 §5.7).
func (q *Query) Answer(ad bool, records ...string) *dns.Msg {
	m := new(dns.Msg).SetReply(q.Msg)
	m.RecursionAvailable = true
	m.AuthenticatedData = ad && (q.DO || q.AuthenticatedData)
	for _, text := range records {
		m.Answer = append(m.Answer, record(text))
	}
	return m
}

// Deny makes a denial: NXDOMAIN or, with rcode 0, NODATA, with the SOA of a zone,
// its TTL and MINIMUM in seconds.
func (q *Query) Deny(ad bool, rcode int, zone string, ttl, minimum uint32) *dns.Msg {
	m := q.Answer(ad)
	m.Rcode = rcode
	m.Ns = append(m.Ns, record(fmt.Sprintf("%s %d SOA ns.test. host.test. 1 2 3 4 %d", dns.Fqdn(zone), ttl, minimum)))
	return m
}

// Fail makes a reply with an error code.
func (q *Query) Fail(rcode int) *dns.Msg {
	m := q.Answer(false)
	m.Rcode = rcode
	return m
}

func record(text string) dns.RR {
	rr, err := dns.NewRR(text)
	if err != nil || rr == nil {
		panic(fmt.Sprintf("resolvertest: record %q: %v", text, err))
	}
	return rr
}

// Echo is a Raw responder: it answers every A, AAAA, MX, TXT and TLSA question
// with one record, CNAME and other questions with a denial, all with AD.
func Echo(dst, query []byte) []byte {
	const header, opt = 12, 11
	end := len(query) - opt
	if end < header+5 {
		return dst
	}
	dst = append(dst, query[:end]...)
	start := dst[len(dst)-end:]
	copy(start[2:], []byte{0x81, 0xa0}) // QR RD, RA AD
	start[11] = 0                       // no additional section
	var data []byte
	switch binary.BigEndian.Uint16(query[end-4:]) {
	case dns.TypeA:
		data = echoA
	case dns.TypeAAAA:
		data = echoAAAA
	case dns.TypeMX:
		data = echoMX
	case dns.TypeTXT:
		data = echoTXT
	case dns.TypeTLSA:
		data = echoTLSA
	default:
		return dst
	}
	start[7] = 1
	dst = append(dst, 0xc0, header, query[end-4], query[end-3], 0, 1, 0, 0, 1, 44, 0, byte(len(data)))
	return append(dst, data...)
}

var (
	echoA    = []byte{192, 0, 2, 1}
	echoAAAA = []byte{0x20, 1, 0xd, 0xb8, 15: 1}
	echoMX   = []byte{0, 10, 2, 'm', 'x', 0xc0, 12}
	echoTXT  = append([]byte{15}, "v=STSv1; id=1; "...)
	echoTLSA = append([]byte{3, 1, 1}, make([]byte, 32)...)
)
