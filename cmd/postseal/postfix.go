package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postseal/postseal/internal/postfix/conf"
	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/policy"
)

// postconfTimeout bounds one reading of Postfix's configuration.
const postconfTimeout = 15 * time.Second

// versionMemory is how long the lowest version seen counts (PFX-23): while a
// Postfix is being upgraded, old processes still ask.
const versionMemory = 24 * time.Hour

// postfixWatch knows the Postfix beside the daemon, where postconf can be run.
type postfixWatch struct {
	d       *daemon
	routing *routing

	mu       sync.Mutex
	reader   *conf.Reader
	again    context.CancelFunc // ends the watch of a reader that was replaced
	snapshot *conf.Snapshot
	seen     map[tlspolicy.Version]time.Time // versions and when they were last there
	forget   *time.Timer                     // for the moment at which one of them no longer counts
	ended    bool                            // nothing is to be told any more
	told     map[string]bool                 // problems that the log has
	absent   bool                            // the log has it that there is no Postfix
}

func newPostfixWatch(d *daemon) *postfixWatch {
	w := &postfixWatch{d: d, routing: newRouting(d), reader: newReader(d), seen: map[tlspolicy.Version]time.Time{}}
	if d.registry != nil {
		d.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "postseal_postfix_problems",
			Help: "Problems of Postfix's configuration that stop mail or make answers void."}, w.severe))
	}
	return w
}

// newReader makes a reader that knows our sockets as smtp_tls_policy_maps may
// name them.
func newReader(d *daemon) *conf.Reader {
	r := &conf.Reader{Logger: d.log}
	r.Endpoints = append(r.Endpoints, d.config().Socketmap.Listen...)
	for _, l := range d.sockets.passed["socketmap"] {
		network := "inet"
		if l.Addr().Network() == "unix" {
			network = "unix"
		}
		r.Endpoints = append(r.Endpoints, network+":"+l.Addr().String())
	}
	return r
}

// read reads Postfix's configuration once and tells the engine.
func (w *postfixWatch) read(ctx context.Context) {
	w.mu.Lock()
	r := w.reader
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, postconfTimeout)
	defer cancel()
	w.take(r.Read(ctx))
}

// run follows changes until ctx ends.
func (w *postfixWatch) run(ctx context.Context) {
	defer w.end()
	for ctx.Err() == nil {
		watching, again := context.WithCancel(ctx)
		w.mu.Lock()
		r := w.reader
		w.again = again
		w.mu.Unlock()
		w.d.tell("postconf", r.Watch(watching, w.take))
		again()
	}
}

// reread is for a reload: our sockets may have changed.
func (w *postfixWatch) reread() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reader = newReader(w.d)
	if w.again != nil {
		w.again()
	}
	w.routing.look() // as our rules may have
}

// take keeps a snapshot and tells the engine and the log what follows from it.
func (w *postfixWatch) take(s *conf.Snapshot, err error) {
	switch {
	case errors.Is(err, conf.ErrNoPostfix):
		if !w.absent {
			w.d.log.Info("no Postfix here: nothing is assumed about it", "reason", err)
		}
		w.absent = true
	case err != nil:
		w.d.log.Warn("Postfix's configuration cannot be read; what was known stays", "error", err)
		return
	default:
		w.absent = false
	}
	w.mu.Lock()
	w.stamp() // the version that goes was there until now, however long ago it was read
	w.snapshot = s
	w.stamp()
	w.mu.Unlock()
	w.tellProblems()
	w.reckon()
	w.tellReach() // before the engine sums up anew
	w.routing.take(s)
}

// tellReach has mail hosts probed as the Postfix that is known would reach them.
func (w *postfixWatch) tellReach() {
	w.mu.Lock()
	s := w.snapshot
	w.mu.Unlock()
	if w.d.reach != nil {
		w.d.reach.configure(w.d.config().Reach, s)
	}
}

// complete writes a sender without a domain as Postfix will.
func (w *postfixWatch) complete(address string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.snapshot.Complete(address)
}

// stamp notes that the snapshot's version is there now. w.mu is held.
func (w *postfixWatch) stamp() {
	if v := w.current(); v.Known {
		w.seen[v] = time.Now()
	}
}

// reckon tells the engine what is known, and again when a version has not been
// seen for so long that it no longer counts.
func (w *postfixWatch) reckon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.d.engine.SetPostfix(w.known())
	if w.forget != nil {
		w.forget.Stop()
		w.forget = nil
	}
	if w.ended {
		return
	}
	var next time.Time
	for v, at := range w.seen {
		if end := at.Add(versionMemory); v != w.current() && (next.IsZero() || end.Before(next)) {
			next = end
		}
	}
	if !next.IsZero() {
		w.forget = time.AfterFunc(time.Until(next), w.reckon)
	}
}

// end lets go of the timer.
func (w *postfixWatch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if w.forget != nil {
		w.forget.Stop()
	}
}

// problems are those of the last snapshot.
func (w *postfixWatch) problems() []conf.Problem {
	w.mu.Lock()
	s := w.snapshot
	w.mu.Unlock()
	if s == nil {
		return nil
	}
	c := w.d.config()
	return s.Problems(conf.Wanted{Floor: c.TLSPolicy.Floor.String(), MapNames: policy.MapNames[:],
		Senders: c.Mode == policy.ModeEnforce && c.Rules.EnforcesSenders(time.Now()),
		DANE:    c.DANEMode() == policy.ModeEnforce, STS: c.MTASTSMode() == policy.ModeEnforce})
}

func (w *postfixWatch) severe() float64 {
	n := 0
	for _, p := range w.problems() {
		if p.Severe {
			n++
		}
	}
	return float64(n)
}

// tellProblems logs each problem once, and again when it comes back.
func (w *postfixWatch) tellProblems() {
	now := map[string]bool{}
	for _, p := range w.problems() {
		text := problemText(p)
		now[text] = true
		level := slog.LevelInfo
		if p.Severe {
			level = slog.LevelError
		}
		if !w.told[text] {
			w.d.log.Log(context.Background(), level, p.Text, "id", p.ID, "service", p.Service, "fix", fix(p))
		}
	}
	w.told = now
}

func problemText(p conf.Problem) string {
	text := p.ID + ": " + p.Text
	if p.Service != "" {
		text += " (" + p.Service + ")"
	}
	if p.Fix != "" {
		text += "; " + fix(p)
	}
	return text
}

// fix is what to do, to the end: a changed parameter counts after a reload.
func fix(p conf.Problem) string {
	if strings.HasPrefix(p.Fix, "postconf ") {
		return p.Fix + " && postfix reload"
	}
	return p.Fix
}

// warnings are the severe problems for explain and /readyz.
func (w *postfixWatch) warnings() []string {
	var all []string
	for _, p := range w.problems() {
		if p.Severe {
			all = append(all, problemText(p))
		}
	}
	return all
}

// with calls f with what is known. Whoever tells the engine does it within, so that
// what was known earlier never comes after what is known now.
func (w *postfixWatch) with(f func(policy.Postfix)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w.known())
}

// known is what the engine may assume about Postfix. Only services that ask us
// count; without one nothing is assumed. w.mu is held.
func (w *postfixWatch) known() policy.Postfix {
	var p policy.Postfix
	if s := w.snapshot; s != nil && len(s.Ours()) > 0 {
		p = policy.Postfix{Main: mainLevel(s), IgnoresPatterns: !s.EnforcesSTSPatterns(), NoRoots: !s.HasRoots(), NoDANE: !s.DANEAble()}
	}
	p.Version = w.version()
	return p
}

// version is the configured one, else the lowest seen in 24 hours.
func (w *postfixWatch) version() tlspolicy.Version {
	if v := w.d.config().TLSPolicy.PostfixVersion; v.Known {
		return v
	}
	var lowest tlspolicy.Version
	for v, at := range w.seen {
		if time.Since(at) >= versionMemory && v != w.current() {
			delete(w.seen, v)
			continue
		}
		if !lowest.Known || v.Less(lowest) {
			lowest = v
		}
	}
	return lowest
}

// current is the version of the Postfix that asks us now, unknown without one.
func (w *postfixWatch) current() tlspolicy.Version {
	if w.snapshot == nil || len(w.snapshot.Ours()) == 0 {
		return tlspolicy.Version{}
	}
	return w.snapshot.Version
}

// mainLevel is the level that holds where Postfix is told nothing; may where it is not
// known.
func (w *postfixWatch) mainLevel() tlspolicy.Level {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.snapshot != nil {
		if l, known := w.snapshot.Level(); known {
			return l
		}
	}
	return tlspolicy.May
}

// mainLevel is what floor = "inherit" has to know of main.cf (CMB-15).
func mainLevel(s *conf.Snapshot) policy.MainLevel {
	l, known := s.Level()
	switch {
	case !known || l <= tlspolicy.Dane:
		return policy.MainUpToDANE
	case l == tlspolicy.Encrypt:
		return policy.MainEncrypt
	}
	return policy.MainStronger
}
