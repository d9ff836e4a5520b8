//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/postseal/postseal/e2e/lab"
	"github.com/postseal/postseal/policy/delegation"
)

// byName answers as the local part of the recipient says.
func byName(asked *atomic.Int64) delegation.Handler {
	return delegation.HandlerFunc(func(_ context.Context, r *delegation.Request) delegation.Action {
		asked.Add(1)
		switch local, _, _ := strings.Cut(string(r.Recipient()), "@"); local {
		case "later":
			return delegation.DeferIfPermit("4.7.10", "postseal: no TLS; try again later")
		case "now":
			return delegation.Defer(450, "4.7.10", "postseal: no TLS; try again later")
		case "never":
			return delegation.Reject(550, "5.7.10", "postseal: no TLS")
		}
		return delegation.Dunno()
	})
}

// TestPOL04_RestrictionLists holds actions against real smtpd(8), in each of its lists: with what permits the client
// after them (ports from 2001), asked by several lists (2008), and with a refusal for good after them (2009, 2010). A
// deferral arrives with its code and text, yields to that refusal, and is that of its recipient alone.
func TestPOL04_RestrictionLists(t *testing.T) {
	for _, in := range postfixes(t) {
		t.Run("postfix-"+in.Version.String(), func(t *testing.T) {
			t.Parallel()
			s := worldOf(t, in, "testdata/worlds/restrictions.txtar")
			var asked atomic.Int64
			l, err := s.world.Network.Listen("tcp", "127.0.0.1:8464")
			if err != nil {
				t.Fatal(err)
			}
			serving(t, l, &delegation.Server{Handler: byName(&asked)})
			for port := 2001; port <= 2010; port++ {
				refuses := port >= 2009
				c := session(t, s.world.Network, fmt.Sprint("127.0.0.1:", port), "")
				for _, tt := range []struct{ local, want, wantWhereRefused string }{
					{"later", "450 4.7.10 .*rejected: postseal: no TLS; try again later$", "554 5.7.1 "},
					{"now", "450 4.7.10 .*rejected: postseal: no TLS; try again later$", "450 4.7.10 "},
					{"never", "550 5.7.10 .*rejected: postseal: no TLS$", "550 5.7.10 "},
					{"u", "250 ", "554 5.7.1 "},
				} {
					asked.Store(0)
					if refuses {
						tt.want = tt.wantWhereRefused
					}
					if err := c.say("RCPT TO:<"+tt.local+"@dest.test>", tt.want); err != nil {
						t.Errorf("port %d: %v", port, err)
					}
					if n := asked.Load(); n != 1 {
						t.Errorf("port %d, %s: asked %d times", port, tt.local, n)
					}
				}
			}
		})
	}
}

// serving serves until the test ends.
func serving(t *testing.T, l net.Listener, s *delegation.Server) {
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// session opens a message at an smtpd(8) as that login.
func session(t *testing.T, network *lab.Network, address, login string) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stepDeadline)
	t.Cleanup(cancel)
	c, err := dialSMTP(ctx, network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.conn.Close() })
	if err := errors.Join(c.hello(login, ""), c.envelope("s@lab.test", "", nil)); err != nil {
		t.Fatal(err)
	}
	return c
}
