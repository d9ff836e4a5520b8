//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/postseal/postseal/e2e/lab"
	"github.com/rogpeppe/go-internal/txtar"
)

// destination is one row of the table.
type destination struct {
	domain   string
	impostor bool // not the genuine server answers there
	about    string
}

// outcome is what became of the two messages to a destination, and what postseal had said.
type outcome struct {
	answer        string
	stock, sealed fate
}

// fate is what a Postfix did with a message.
type fate struct {
	delivered bool
	cleartext bool
	trust     string // of the TLS connection, in Postfix's word
	reason    string // why it was held
}

// readWorld unpacks the archive and reads the list of destinations.
func readWorld(archive []byte) ([]destination, lab.Spec, error) {
	dir, err := os.MkdirTemp("", "postseal-demo")
	if err != nil {
		return nil, lab.Spec{}, err
	}
	defer os.RemoveAll(dir)
	parsed := txtar.Parse(archive)
	if err := txtar.Write(parsed, dir); err != nil {
		return nil, lab.Spec{}, err
	}
	var list []destination
	for _, file := range parsed.Files {
		if file.Name != "destinations" {
			continue
		}
		for line := range strings.Lines(string(file.Data)) {
			words := strings.Fields(line)
			list = append(list, destination{words[0], words[1] == "impostor", strings.Join(words[2:], " ")})
		}
	}
	spec, err := lab.ReadSpec(os.DirFS(dir))
	return list, spec, err
}

// quickRetry lets the second try count as one after minimal_backoff_time, which is 300 s by default. Postfix counts
// whole seconds, so that a second less would pass for one.
const (
	quickRetry = "minimal_backoff_time = 3s\n"
	retryAfter = 4 * time.Second
)

// stockConfig is main.cf as Debian installs it, as far as TLS to other servers goes.
const stockConfig = quickRetry + "smtp_tls_policy_maps =\nsmtp_dns_support_level =\n"

// deliverAll sends one message to every destination by either Postfix, lets them try twice, and collects what happened.
func deliverAll(ctx context.Context, w *lab.World, in lab.Installation, config string, list []destination) ([]outcome, error) {
	stock, err := w.NewPostfix(in, "stock", "127.0.0.1:2525", stockConfig)
	if err != nil {
		return nil, err
	}
	sealed, err := w.NewPostfix(in, "sealed", "127.0.0.1:2526", quickRetry)
	if err != nil {
		return nil, err
	}
	daemon, err := w.NewPostseal(sealed, config)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(daemon.Start(ctx), stock.Start(ctx), sealed.Start(ctx)); err != nil {
		return nil, err
	}
	for _, p := range []*lab.Postfix{stock, sealed} {
		if err := sendAndRetry(ctx, p, list); err != nil {
			return nil, err
		}
	}
	outcomes := make([]outcome, len(list))
	for i, d := range list {
		reply, err := lab.Ask(w.Network, "QUERY", d.domain)
		if err != nil {
			return nil, err
		}
		outcomes[i] = outcome{answer: reply, stock: fateOf(w, stock, token(stock, i)), sealed: fateOf(w, sealed, token(sealed, i))}
	}
	return outcomes, nil
}

func token(p *lab.Postfix, i int) string { return fmt.Sprintf("%s-%d", p.Name, i) }

// sendAndRetry gives every message a second try after minimal_backoff_time, which is when a Postfix at level "may" falls
// back to cleartext.
func sendAndRetry(ctx context.Context, p *lab.Postfix, list []destination) error {
	for i, d := range list {
		if err := p.Send(ctx, token(p, i), "someone@"+d.domain); err != nil {
			return err
		}
	}
	if err := awaitAttempts(ctx, p, len(list)); err != nil {
		return err
	}
	held := 0
	for _, d := range p.Log.Deliveries() {
		if d.Status != "sent" {
			held++
		}
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(retryAfter):
	}
	if err := p.Flush(ctx); err != nil {
		return err
	}
	return awaitAttempts(ctx, p, len(list)+held)
}

func awaitAttempts(ctx context.Context, p *lab.Postfix, n int) error {
	for len(p.Log.Deliveries()) < n {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d delivery attempts: %w", len(p.Log.Deliveries()), n, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// fateOf reads a message's last delivery attempt, and believes the sink, not the log, about cleartext.
func fateOf(w *lab.World, p *lab.Postfix, token string) fate {
	var last lab.Delivery
	for _, d := range p.Log.Deliveries() {
		if d.ID == token {
			last = d
		}
	}
	received := w.Received(token)
	if len(received) == 0 {
		return fate{reason: last.Reason}
	}
	clear := slices.ContainsFunc(received, func(m lab.Message) bool { return !m.TLS })
	return fate{delivered: true, cleartext: clear, trust: last.Trust}
}
