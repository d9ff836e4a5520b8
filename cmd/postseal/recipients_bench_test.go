package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postseal/postseal/policy"
	"github.com/postseal/postseal/policy/delegation"
	"github.com/postseal/postseal/policy/socketmap/socketmaptest"
)

func TestMain(m *testing.M) {
	socketmaptest.Main(map[string]socketmaptest.Serve{
		"bare":     socketmaptest.Answerer("\n\n", "action=DUNNO\n\n"),
		"postseal": serveRecipients,
	})
	os.Exit(m.Run())
}

// benchConfig is a configuration with rules and reservations.
func benchConfig(dir, nameServer string) string {
	var rules strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&rules, "[[rule]]\nmatch = ['.suffix%d.example', 'partner%d.example']\nlevel = 'encrypt'\nunreachable = 'refuse'\n", i, i)
	}
	return strings.NewReplacer("DIR", dir, "SERVER", nameServer).Replace(`
[socketmap]
listen = []
[delegation]
listen = []
[milter]
listen = []
[http]
listen = []
[control]
listen = ""
[resolver]
servers = ["SERVER"]
probe = ""
[cache]
path = "DIR/postseal.db"
[ledger]
path = "DIR/ledger.db"
[senders]
domains = ["sender.example", ".sender.example"]
[[senders.allow]]
login = ["newsletter@sender.example"]
from = ["news.sender.example"]
`) + rules.String()
}

// serveRecipients is what answers policy delegation in a daemon.
func serveRecipients(l net.Listener) error {
	return withEngine(func(ctx context.Context, d *daemon) error { return d.delegated.Serve(ctx, l) })
}

// withEngine calls f with a daemon that knows what benchConfig says, whose engine runs.
func withEngine(f func(context.Context, *daemon) error) error {
	dir, err := os.MkdirTemp("", "postseal")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	names, err := listenDNS()
	if err != nil {
		return err
	}
	defer names.Close()
	path := filepath.Join(dir, "postseal.toml")
	if err := os.WriteFile(path, []byte(benchConfig(dir, names.LocalAddr().String())), 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	d, err := newDaemon(ctx, &globalOptions{configPath: path, configSet: true}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	d.serving = ctx
	ended := make(chan error)
	go func() { ended <- d.run(ctx) }()
	err = f(ctx, d)
	cancel()
	return errors.Join(err, <-ended)
}

// TestServePolicy_EngineAllocatesNothing: nor does the engine with its rules, once it
// knows the destination.
func TestServePolicy_EngineAllocatesNothing(t *testing.T) {
	err := withEngine(func(ctx context.Context, d *daemon) error {
		for _, recipient := range []string{"u@customer.test", "u@Customer.TEST", "u@partner7.example", "u@null.test"} {
			r, err := delegation.ParseRequest([]byte(policyRequest(delegation.Rcpt, "newsletter@sender.example", "192.0.2.7", "bounces+1@news.sender.example", recipient)))
			if err != nil {
				return err
			}
			eventually(t, "an answer to "+recipient+" without allocation", func() bool {
				return testing.AllocsPerRun(100, func() { d.delegated.Handler.ServePolicy(ctx, r) }) == 0
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// benchRequests are more than the server's memory for repeated ones holds: a thousand
// messages to some of a hundred domains each, as Postfix 3.11 asks about them.
func benchRequests() [][]byte {
	var all [][]byte
	for i := range 4096 {
		all = append(all, fmt.Appendf(nil, "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nclient_address=192.0.2.7\n"+
			"client_name=app.sender.example\nclient_port=51234\nreverse_client_name=app.sender.example\nserver_address=192.0.2.1\nserver_port=587\n"+
			"helo_name=app.sender.example\nsender=bounces+%d@news.sender.example\nrecipient=somebody%d@customer%d.example\nrecipient_count=0\nqueue_id=\n"+
			"instance=4d2.6750c3a1.5e1a3.%d\nsize=12345\netrn_domain=\nstress=\nsasl_method=PLAIN\nsasl_username=newsletter@sender.example\nsasl_sender=\n"+
			"ccert_subject=\nccert_issuer=\nccert_fingerprint=\nccert_pubkey_fingerprint=\nencryption_protocol=TLSv1.3\n"+
			"encryption_cipher=TLS_AES_256_GCM_SHA384\nencryption_keysize=256\npolicy_context=submission\ncompatibility_level=3.11\nmail_version=3.11.7\n\n",
			i/4, i, i%100, i/4))
	}
	return all
}

// BenchmarkRecipients measures a daemon with rules whose engine and memory know all that
// is asked about. The bar is req/s÷floor ≥ 0.90 at 16 and 64 connections.
func BenchmarkRecipients(b *testing.B) {
	requests, framing := benchRequests(), socketmaptest.Ending("\n\n")
	for _, conns := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			floor, ours := socketmaptest.Start(b, "bare"), socketmaptest.Start(b, "postseal")
			c, err := net.Dial("tcp", ours.Address)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			for _, r := range requests {
				if _, err := c.Write(r); err != nil {
					b.Fatal(err)
				}
				if _, err := c.Read(make([]byte, 1024)); err != nil {
					b.Fatal(err)
				}
			}
			socketmaptest.CompareFramed(b, framing, floor, ours, conns, requests...)
		})
	}
}

// BenchmarkServePolicy is one answer that is known, without a connection and without the
// engine.
func BenchmarkServePolicy(b *testing.B) {
	k := newDesk(b, benchConfig(b.TempDir(), "127.0.0.1:53"))
	k.recipients.log = slog.New(slog.DiscardHandler)
	k.verdict = func(_, _ []byte, _ time.Time) policy.RecipientVerdict { return policy.RecipientVerdict{} }
	r, err := delegation.ParseRequest([]byte(policyRequest(delegation.Rcpt, "newsletter@sender.example", "192.0.2.7", "bounces+1@news.sender.example", "u@partner.test")))
	if err != nil {
		b.Fatal(err)
	}
	k.nullMX = func(context.Context, string) (bool, time.Time, error) { return false, time.Now().Add(time.Hour), nil }
	b.ReportAllocs()
	for b.Loop() {
		k.ServePolicy(b.Context(), r)
	}
}
