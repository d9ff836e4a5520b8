package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/cache/sqlite"
	"github.com/postseal/postseal/internal/ledger"
	"github.com/postseal/postseal/policy"
)

// recallTimeout bounds what the engine asks the ledger.
const recallTimeout = 5 * time.Second

// What is kept as the level answered where it is no level.
const (
	notAnswered = "NOTFOUND" // policy.Decision.Level: main.cf decides
	levelOfMain = "main.cf"  // the same, where main.cf itself demands more than the rule
)

// book is the daemon's ledger, in the words of the engine: a policy.Observer.
type book struct {
	*ledger.Ledger
	store cache.Store
	rules sync.Map // *policy.Rule → *ledger.Rule
	// stronger tells whether main.cf demands more than any rule's encrypt. It must not
	// be called before the daemon is whole.
	stronger func() bool
	routes   routes
}

// routes knows which rules bind; *routing does.
type routes interface {
	// unboundAll says of domains why rules for them do not bind, "" where they do; those
	// of which nobody knows are left out.
	unboundAll(ctx context.Context, domains []string) map[string]string
	// inertRules says of rules why they do not bind; those that do are left out.
	inertRules(ctx context.Context, rules *policy.Rules) map[*policy.Rule]string
}

// newBook opens the ledger. That it cannot be opened keeps no mail and no daemon:
// evidence is then kept in memory, and lost at a restart.
func (d *daemon) newBook(ctx context.Context, path string) *book {
	store := openLedger(ctx, path, d.log)
	return &book{
		Ledger: ledger.New(ledger.Config{Store: store, Logger: d.log, Registerer: d.registry}), store: store,
		stronger: func() (is bool) {
			d.postfix.with(func(p policy.Postfix) { is = p.Main == policy.MainStronger })
			return is
		},
	}
}

func ledgerFile(path string, logger *slog.Logger) sqlite.Config {
	return sqlite.Config{Path: path, Logger: logger, Name: "ledger", Loss: "no enforcement rests on it, evidence of the past may be lost"}
}

func openLedger(ctx context.Context, path string, logger *slog.Logger) cache.Store {
	store, err := sqlite.Open(ctx, ledgerFile(path, logger))
	if err == nil {
		return store
	}
	logger.Error("no ledger on disk: evidence for 'postseal report' is kept in memory and lost at a restart", "path", path, "error", err)
	if below, readErr := sqlite.OpenReadOnly(ctx, ledgerFile(path, logger)); readErr == nil {
		return cache.NewFrozen(err, below)
	}
	return cache.NewVolatile(err)
}

// close is called when nobody has anything to tell any more.
func (b *book) close() error { return errors.Join(b.Flush(context.Background()), b.store.Close()) }

// Answered is of policy.Observer.
func (b *book) Answered(destination string, r *policy.Rule, level string) {
	if level == notAnswered && b.stronger() {
		level = levelOfMain
	}
	b.Ledger.Answered(destination, b.rule(r), level)
}

// Reached is of policy.Observer.
func (b *book) Reached(destination string, r *policy.Rule, s policy.Standing) {
	hosts := make([]ledger.Host, len(s.Hosts))
	for i, h := range s.Hosts {
		hosts[i] = ledger.Host{Host: h.Host, Port: h.Port, Level: h.Level, Verdict: h.Verdict.String(), Address: h.Address, At: h.At, Offered: h.Offered,
			Version: h.Version, Cipher: h.Cipher, Names: h.Names, Expires: h.Expires, Text: h.Text, Cause: h.Cause, Stripped: h.Stripped}
	}
	b.Ledger.Reached(destination, b.rule(r), hosts, s.LastSecured)
}

// secured is policy.Config.Secured.
func (b *book) secured(destination string) time.Time {
	ctx, cancel := context.WithTimeout(context.Background(), recallTimeout)
	defer cancel()
	return b.LastSecured(ctx, destination)
}

// witnesses is policy.Config.Witnesses. Of many the rules may still want only some.
func (b *book) witnesses() []string {
	const most = 100
	ctx, cancel := context.WithTimeout(context.Background(), recallTimeout)
	defer cancel()
	return b.LatelySecured(ctx, time.Now().Add(-24*time.Hour), most)
}

// refused counts a recipient that a rule does not let pass.
func (b *book) refused(destination string, a policy.RecipientAction) {
	switch a {
	case policy.RecipientRefuse:
		b.Refused(destination)
	case policy.RecipientDefer:
		b.Deferred(destination)
	}
}

// rule is a rule as the ledger keeps it, made once.
func (b *book) rule(r *policy.Rule) *ledger.Rule {
	if kept, ok := b.rules.Load(r); ok {
		return kept.(*ledger.Rule)
	}
	kept, _ := b.rules.LoadOrStore(r, keptRule(r))
	return kept.(*ledger.Rule)
}

func keptRule(r *policy.Rule) *ledger.Rule {
	return ledger.NewRule(ledger.Rule{Source: r.Source, Match: r.Match, Sender: r.Sender, Level: r.Level(), Unreachable: r.Unreachable.String(), Reason: r.Reason, Until: r.Until})
}
