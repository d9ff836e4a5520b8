//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Message is what a sink accepted, and how it came.
type Message struct {
	Sink       string // address:port
	Names      string // what the sink's certificate says
	TLS        bool   // false: in clear
	Version    uint16 // of TLS: tls.VersionTLS13…
	ServerName string // SNI; empty: none was sent
	Resumed    bool
	From       string
	To         []string
	Data       []byte // as received, with CRLF, dots unstuffed, without the final dot
	Nth        int    // nth message of its connection, from 1
}

// Sink is a scripted SMTP server on one address.
type Sink struct {
	address string
	network *Network
	pki     *PKI

	mu          sync.Mutex
	behaviour   Behaviour
	listener    net.Listener // nil while it refuses or is stuck
	plug        []net.Conn   // what fills the accept queue while it is stuck
	plugFD      int
	conns       map[net.Conn]bool
	connections int
	messages    []Message
	group       sync.WaitGroup
}

// NewSink starts a sink on ADDRESS:PORT.
func NewSink(network *Network, pki *PKI, address string, b Behaviour) (*Sink, error) {
	s := &Sink{address: address, network: network, pki: pki, plugFD: -1, conns: make(map[net.Conn]bool)}
	return s, s.Behave(b)
}

// Behave changes the behaviour; connections that are open go on with the old one.
func (s *Sink) Behave(b Behaviour) error {
	if _, err := b.tlsConfig(s.pki, new(string)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behaviour = b
	switch {
	case b.Refuse:
		s.unplug()
		return s.stopListening()
	case b.Stuck:
		return errors.Join(s.stopListening(), s.fillQueue())
	case s.listener != nil:
		return nil
	}
	s.unplug()
	listener, err := s.network.Listen("tcp", s.address)
	if err != nil {
		return err
	}
	s.listener = listener
	s.group.Go(func() { s.accept(listener) })
	return nil
}

// Messages are those accepted so far.
func (s *Sink) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

// Connections counts the clients that were accepted so far.
func (s *Sink) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connections
}

// Close ends the sink and its connections.
func (s *Sink) Close() error {
	s.mu.Lock()
	err := s.stopListening()
	s.unplug()
	for conn := range s.conns {
		conn.Close()
	}
	s.mu.Unlock()
	s.group.Wait()
	return err
}

func (s *Sink) stopListening() error {
	if s.listener == nil {
		return nil
	}
	err := s.listener.Close()
	s.listener = nil
	return err
}

func (s *Sink) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return // closed by stopListening
		}
		s.mu.Lock()
		if s.listener != listener {
			s.mu.Unlock()
			conn.Close()
			return
		}
		s.connections++
		s.conns[conn] = true
		session := &session{sink: s, behaviour: s.behaviour, conn: conn}
		s.group.Go(func() { session.run() })
		s.mu.Unlock()
	}
}

func (s *Sink) forget(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
}

func (s *Sink) keep(m Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, m)
}

// fillQueue listens with the smallest accept queue and fills it. An address without a route would fail at once and
// prove nothing: this one lets connect(2) time out.
func (s *Sink) fillQueue() error {
	if s.plugFD >= 0 {
		return nil
	}
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		return err
	}
	number, err := net.LookupPort("tcp", port)
	if err != nil {
		return err
	}
	err = s.network.do(func() (err error) {
		s.plugFD, err = listenWithoutQueue(net.ParseIP(host), number)
		return err
	})
	if err != nil {
		return fmt.Errorf("filling the accept queue of %s: %w", s.address, err)
	}
	for {
		conn, err := s.network.Dial("tcp", s.address)
		if err != nil {
			return nil // the first that times out
		}
		s.plug = append(s.plug, conn)
	}
}

func listenWithoutQueue(ip net.IP, port int) (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	address := &syscall.SockaddrInet4{Port: port, Addr: [4]byte(ip.To4())}
	if err := errors.Join(
		syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1),
		syscall.Bind(fd, address),
		syscall.Listen(fd, 0),
	); err != nil {
		return -1, errors.Join(err, syscall.Close(fd))
	}
	return fd, nil
}

func (s *Sink) unplug() {
	for _, conn := range s.plug {
		conn.Close()
	}
	s.plug = nil
	if s.plugFD >= 0 {
		syscall.Close(s.plugFD)
		s.plugFD = -1
	}
}

// Holds tells whether the message was sent with the given token in its Message-ID.
func (m Message) Holds(token string) bool {
	return strings.Contains(strings.ToLower(string(m.Data)), "message-id: <"+strings.ToLower(token)+"@")
}
