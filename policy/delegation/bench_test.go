package delegation_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/postseal/postseal/policy/delegation"
	"github.com/postseal/postseal/policy/socketmap/socketmaptest"
)

func TestMain(m *testing.M) {
	socketmaptest.Main(map[string]socketmaptest.Serve{
		"bare": bare,
		"delegation": func(l net.Listener) error {
			s := delegation.Server{Handler: delegation.HandlerFunc(func(context.Context, *delegation.Request) delegation.Action {
				return delegation.Dunno()
			})}
			return s.Serve(context.Background(), l)
		},
	})
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// bare answers DUNNO to whatever ends with an empty line: the least that a server in Go
// can do.
func bare(l net.Listener) error {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		running.Go(func() {
			defer c.Close()
			buf := make([]byte, 16<<10)
			for filled := 0; ; {
				n, err := c.Read(buf[filled:])
				if err != nil {
					return
				}
				if filled += n; bytes.HasSuffix(buf[:filled], []byte("\n\n")) {
					filled = 0
					if _, err := c.Write([]byte("action=DUNNO\n\n")); err != nil {
						return
					}
				}
			}
		})
	}
}

func framing(b []byte) (int, error) {
	i := bytes.Index(b, []byte("\n\n"))
	if i < 0 {
		return 0, nil
	}
	return i + 2, nil
}

// BenchmarkServer measures all but the Handler, which does nothing: repeated requests,
// answered from memory, and requests that the Handler is asked.
func BenchmarkServer(b *testing.B) {
	for _, tc := range []struct {
		name    string
		request []byte
	}{
		{"repeated", []byte(request("recipient", "somebody@customer.example.com"))},
		{"asked", []byte(request("recipient", "somebody@customer.example.com", "instance", ""))},
	} {
		for _, conns := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/conns=%d", tc.name, conns), func(b *testing.B) {
				floor, ours := socketmaptest.Start(b, "bare"), socketmaptest.Start(b, "delegation")
				socketmaptest.CompareFramed(b, framing, floor, ours, conns, tc.request)
			})
		}
	}
}
