package delegation_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/postseal/postseal/policy/delegation"
	"github.com/postseal/postseal/policy/socketmap/socketmaptest"
)

func TestMain(m *testing.M) {
	socketmaptest.Main(map[string]socketmaptest.Serve{
		"bare": socketmaptest.Answerer("\n\n", dunno),
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

// BenchmarkServer measures all but the Handler, which does nothing: a request that is
// answered from memory, and more of them than fit there, so that the Handler is asked.
func BenchmarkServer(b *testing.B) {
	var many [][]byte
	for i := range 4096 {
		many = append(many, []byte(request("recipient", fmt.Sprintf("somebody@customer%d.example.com", i%100), "instance", fmt.Sprint("4d2.6750c3a1.5e1a3.", i))))
	}
	for _, tc := range []struct {
		name     string
		requests [][]byte
	}{
		{"repeated", many[:1]},
		{"asked", many},
	} {
		for _, conns := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/conns=%d", tc.name, conns), func(b *testing.B) {
				floor, ours := socketmaptest.Start(b, "bare"), socketmaptest.Start(b, "delegation")
				socketmaptest.CompareFramed(b, socketmaptest.Ending("\n\n"), floor, ours, conns, tc.requests...)
			})
		}
	}
}
