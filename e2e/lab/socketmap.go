//go:build linux

package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// SocketmapAddress is where postseal, or a [Table] in its place, listens in every world.
const SocketmapAddress = "127.0.0.1:8463"

// Ask puts one question to a socketmap server, on a connection of its own: socketmap_table(5).
func Ask(network *Network, mapName, key string) (string, error) {
	conn, err := network.Dial("tcp", SocketmapAddress)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(startDeadline)); err != nil {
		return "", err
	}
	if err := writeNetstring(conn, mapName+" "+key); err != nil {
		return "", err
	}
	return readNetstring(bufio.NewReader(conn))
}

func writeNetstring(w io.Writer, text string) error {
	_, err := fmt.Fprintf(w, "%d:%s,", len(text), text)
	return err
}

func readNetstring(r *bufio.Reader) (string, error) {
	digits, err := r.ReadString(':')
	if err != nil {
		return "", err
	}
	length, err := strconv.Atoi(strings.TrimSuffix(digits, ":"))
	if err != nil || length < 0 || length > maxReply {
		return "", fmt.Errorf("netstring length %q", digits)
	}
	text := make([]byte, length+1)
	if _, err := io.ReadFull(r, text); err != nil {
		return "", err
	}
	if text[length] != ',' {
		return "", errors.New("netstring without its comma")
	}
	return string(text[:length]), nil
}

// Table is a socketmap server with fixed answers. It stands in postseal's place only to prove that a story can fail:
// with an answer that is wrong, or a server that closes idle connections.
type Table struct {
	Answers   map[string]string // key → the whole reply; other keys: "NOTFOUND "
	IdleClose time.Duration     // a connection idle for that long is closed; 0: never

	listener net.Listener
	mu       sync.Mutex
	conns    map[net.Conn]bool // nil: closed
	group    sync.WaitGroup
}

// Serve starts answering in the network.
func (t *Table) Serve(network *Network) error {
	listener, err := network.Listen("tcp", SocketmapAddress)
	if err != nil {
		return err
	}
	t.listener, t.conns = listener, make(map[net.Conn]bool)
	t.group.Go(t.accept)
	return nil
}

// Close ends the server and its connections.
func (t *Table) Close() error {
	err := t.listener.Close()
	t.mu.Lock()
	for conn := range t.conns {
		conn.Close()
	}
	t.conns = nil
	t.mu.Unlock()
	t.group.Wait()
	return err
}

func (t *Table) accept() {
	for {
		conn, err := t.listener.Accept()
		if err != nil {
			return // closed
		}
		t.mu.Lock()
		if t.conns == nil {
			conn.Close()
		} else {
			t.conns[conn] = true
			t.group.Go(func() { t.answer(conn) })
		}
		t.mu.Unlock()
	}
}

func (t *Table) answer(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		if t.IdleClose > 0 {
			if err := conn.SetReadDeadline(time.Now().Add(t.IdleClose)); err != nil {
				return
			}
		}
		request, err := readNetstring(in)
		if err != nil {
			return
		}
		_, key, _ := strings.Cut(request, " ")
		reply, ok := t.Answers[key]
		if !ok {
			reply = "NOTFOUND "
		}
		if writeNetstring(conn, reply) != nil {
			return
		}
	}
}

// ParseTable reads lines "KEY REPLY". Empty lines and those that begin with # are skipped; a line "idle-close DURATION"
// makes a bad server of it.
func ParseTable(text string) (*Table, error) {
	t := &Table{Answers: make(map[string]string)}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, reply, ok := strings.Cut(line, " ")
		if !ok {
			return nil, fmt.Errorf("table: line %q: want KEY REPLY", line)
		}
		if key == "idle-close" {
			var err error
			if t.IdleClose, err = time.ParseDuration(reply); err != nil {
				return nil, fmt.Errorf("table: %w", err)
			}
			continue
		}
		t.Answers[key] = reply
	}
	return t, nil
}
