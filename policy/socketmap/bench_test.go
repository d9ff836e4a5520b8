package socketmap_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/postseal/postseal/policy/socketmap"
	"github.com/postseal/postseal/policy/socketmap/socketmaptest"
)

func TestMain(m *testing.M) {
	socketmaptest.Main(map[string]socketmaptest.Serve{
		"echo": socketmaptest.Echo,
		"socketmap": func(l net.Listener) error {
			s := socketmap.Server{Handler: socketmap.HandlerFunc(secure)}
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

func secure(_ context.Context, dst, _, _ []byte) []byte {
	return socketmap.AppendOK(dst, "secure match=mx1.example.com:mx2.example.com servername=hostname")
}

// BenchmarkServer measures the framing alone: the Handler does nothing.
func BenchmarkServer(b *testing.B) {
	request := socketmap.AppendNetstring(nil, "postseal newsletter-recipient.example.com")
	for _, conns := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			floor, ours := socketmaptest.Start(b, "echo"), socketmaptest.Start(b, "socketmap")
			socketmaptest.Compare(b, floor, ours, conns, request)
		})
	}
}
