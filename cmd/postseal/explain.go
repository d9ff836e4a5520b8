package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/cache/sqlite"
	"github.com/postseal/postseal/policy"
)

func newExplainCommand(opts *globalOptions) *cobra.Command {
	var ask inquiry
	c := &cobra.Command{
		Use:   "explain KEY…",
		Short: "What Postfix is told for a destination, and why",
		Long: `What Postfix is told for a destination, and why: the operator's rule, the MTA-STS
record and policy, the mail hosts with their TLSA records, and what Postfix does
at each of them. KEY is what Postfix asks for: example.com, [relay.example]:587.
Of an address it is the domain, and what becomes of mail with that envelope sender.

With --probe every mail host is connected to, as Postfix would, up to the end of the
TLS handshake and never as far as MAIL FROM: does it offer what Postfix is told to
demand? Several keys tell whether a box on our own path takes STARTTLS out. The exit
code is then 1 unless each destination has a mail host that would do. It may take
minutes where hosts do not answer.

The text can be pasted to a partner's postmaster: the reason of a rule is not in
it. It comes from the running daemon, or from a look-up of its own when none runs.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("which destination? For example: postseal explain example.com")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			explain, done, err := explainer(cmd.Context(), opts)
			if err != nil {
				return err
			}
			defer done()
			return explainAll(cmd, opts, args, ask, explain)
		},
	}
	c.Flags().BoolVar(&ask.live, "live", false, "look everything up afresh")
	c.Flags().BoolVar(&ask.probe, "probe", false, "connect to the mail hosts and see what they offer")
	return c
}

// inquiry is what is to be explained, and what is to be done for it.
type inquiry struct {
	key         string
	live, probe bool
}

type askFunc func(context.Context, inquiry) (policy.Explanation, error)

func explainAll(cmd *cobra.Command, opts *globalOptions, keys []string, what inquiry, ask askFunc) error {
	out := cmd.OutOrStdout()
	var all []policy.Explanation
	for i, key := range keys {
		what.key = key
		x, err := ask(cmd.Context(), what)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		all = append(all, x)
		if !opts.json {
			if i > 0 {
				fmt.Fprintln(out)
			}
			if err := writeExplanation(out, x); err != nil {
				return err
			}
		}
	}
	path := ownPath(all)
	var err error
	switch {
	case opts.json && len(all) == 1:
		err = printJSON(out, all[0])
	case opts.json:
		err = printJSON(out, all)
	case path != "":
		_, err = fmt.Fprintf(out, "\n! %s\n", path)
	}
	if err == nil && what.probe {
		err = probeFinding(all)
	}
	return err
}

// explainer asks the running daemon, or an engine made for the occasion.
func explainer(ctx context.Context, opts *globalOptions) (askFunc, func(), error) {
	cfg, _, err := loadConfig(opts.configPath, opts.configSet)
	if err != nil {
		return nil, nil, err
	}
	client := newControlClient(cfg.Control.Listen)
	err = client.call(ctx, http.MethodGet, "/ready", nil, nil, &readiness{})
	if err == nil {
		return func(ctx context.Context, ask inquiry) (x policy.Explanation, err error) {
			q := url.Values{"key": {ask.key}, "live": {strconv.FormatBool(ask.live)}, "probe": {strconv.FormatBool(ask.probe)}}
			if ask.probe {
				client.http.Timeout = probeTimeout
			}
			err = client.call(ctx, http.MethodGet, "/explain", q, nil, &x)
			return x, err
		}, func() {}, nil
	}
	if !errors.Is(err, errNoDaemon) {
		return nil, nil, err
	}
	return ownExplainer(ctx, cfg)
}

// ownExplainer asks an engine made from the configuration and, where it can be
// read, the store that the daemon left.
func ownExplainer(ctx context.Context, cfg *Config) (askFunc, func(), error) {
	var store cache.Store = cache.NewVolatile(nil)
	if s, err := sqlite.OpenReadOnly(ctx, sqlite.Config{Path: cfg.Cache.Path}); err == nil {
		store = s
	}
	d, done, err := alone(ctx, cfg, store)
	if err != nil {
		return nil, nil, err
	}
	d.resolver.Ready(ctx)
	ask := func(ctx context.Context, ask inquiry) (policy.Explanation, error) {
		x, err := d.explain(ctx, ask)
		x.Warnings = append(x.Warnings, "no daemon is running: this is what it would answer; start it with: postseal serve")
		return x, err
	}
	return ask, func() { _ = done() }, nil
}

// explain answers `postseal explain`.
func (d *daemon) explain(ctx context.Context, ask inquiry) (policy.Explanation, error) {
	if at := strings.LastIndexByte(ask.key, '@'); at >= 0 {
		s := d.engine.ExplainSender(ask.key)
		ask.key = ask.key[at+1:]
		x, err := d.explain(ctx, ask)
		x.Sender = &s
		return x, err
	}
	if domain, ok := strings.CutPrefix(ask.key, "."); ok {
		if _, err := policy.ParseKey(domain); err == nil {
			return explainParent(ask.key), nil
		}
	}
	var probed *policy.ProbeExplanation
	if ask.probe {
		p, err := d.engine.Probe(ctx, ask.key, d.postfix.mainLevel())
		if err != nil {
			return policy.Explanation{}, err
		}
		probed = &p
	}
	x, err := d.engine.Explain(ctx, ask.key, ask.live)
	if err == nil {
		x.Probe = probed
		x.Warnings = append(x.Warnings, d.postfix.routing.warnings(ctx, x)...)
		x.Warnings = append(x.Warnings, d.postfix.warnings()...)
	}
	return x, err
}

// explainParent is for ".example.com", which Postfix asks for on its own walk to a
// domain's parents: it never gets an answer (STS-003).
func explainParent(key string) policy.Explanation {
	x := policy.Explanation{
		Key: key, Level: "NOTFOUND", Source: policy.SourceFloor, Row: policy.RowNotNeeded, Replies: map[string]string{}, At: time.Now().UTC(),
		STS:      policy.STSExplanation{State: "off", MX: []string{}, Notes: []string{}},
		DANE:     policy.DANEExplanation{Class: "DX", Error: "not looked up", Hosts: []policy.HostExplanation{}},
		Warnings: []string{"Postfix asks for the parents of a domain as well; the answer is always NOTFOUND, because any other would hold for every domain below"},
	}
	for _, name := range policy.MapNames {
		x.Replies[name] = "NOTFOUND "
	}
	return x
}

// page writes text and remembers the first error.
type page struct {
	w   io.Writer
	err error
}

func (p *page) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

func (p *page) item(name, format string, args ...any) {
	p.line("  %-10s %s", name, fmt.Sprintf(format, args...))
}

// writeExplanation is the page that an administrator reads, or pastes: the
// verdict, the evidence, the consequence at every mail host.
func writeExplanation(w io.Writer, x policy.Explanation) error {
	p := &page{w: w}
	p.line("%s: %s", x.Key, verdict(x))
	for _, warning := range x.Warnings {
		p.line("  ! %s", warning)
	}
	if x.Withheld != "" {
		p.item("withheld", "mode monitor holds back: %s", x.Withheld)
	}
	if x.Rule != nil {
		until := ""
		if x.Rule.Until != nil {
			until = ", until " + x.Rule.Until.Format(time.DateOnly)
		}
		p.item("rule", "%s for %s (%s%s)", x.Rule.Level, strings.Join(x.Rule.Match, ", "), x.Rule.Source, until)
	}
	if x.Sender != nil {
		p.sender(x.Sender)
	}
	if x.Recipient != nil {
		p.recipient(x)
	}
	p.sts(x)
	p.dane(x)
	if x.Probe != nil {
		p.probe(x)
	}
	p.line("")
	p.line("Replies to Postfix%s, by map name:", version3(x.Postfix))
	for _, name := range policy.MapNames {
		p.line("  %-17s %s", name, x.Replies[name])
	}
	p.line("Looked at %s", x.At.Format(time.RFC3339))
	return p.err
}

func version3(v string) string {
	if v == "" {
		return ""
	}
	return " " + v
}

// verdict says in one line what is enforced and what that rests on.
func verdict(x policy.Explanation) string {
	because := map[policy.Source]string{
		policy.SourceRule: "by the operator's rule", policy.SourceDANE: "by DANE", policy.SourceSTS: "by MTA-STS",
		policy.SourceDANESTS: "by DANE and MTA-STS together", policy.SourceFloor: "nothing stronger applies", policy.SourceError: "a look-up failed",
	}[x.Source]
	if x.Level == "NOTFOUND" {
		return "no policy of its own; smtp_tls_security_level of main.cf decides (" + because + ")"
	}
	return fmt.Sprintf("%s (%s; row %s)", x.Level, because, x.Row)
}

// sender tells what becomes of mail with an envelope sender.
func (p *page) sender(s *policy.SenderExplanation) {
	held := ""
	switch {
	case s.Rule == nil:
		p.item("as sender", "%s: of no [[rule]] with sender; its mail goes by default_transport", s.Address)
		return
	case s.Monitor:
		held = "; mode monitor holds that back"
	}
	p.item("as sender", "%s: its mail goes by the transport %s, where %s is asked (rule for %s, %s)%s",
		s.Address, policy.EnforcedTransport, policy.EnforcedMap, strings.Join(s.Rule.Sender, ", "), s.Rule.Source, held)
}

func (p *page) sts(x policy.Explanation) {
	s, domain := x.STS, x.Key
	if k, err := policy.ParseKey(x.Key); err == nil {
		domain = k.Name // without port and brackets
	}
	state := map[string]string{
		"absent": "no record at _mta-sts." + domain, "unusable": "a record that cannot be used", "failed": "a record, but its policy cannot be had",
		"unanswered": "the DNS does not answer", "off": "not looked up",
	}[s.State]
	if s.Mode != "" {
		state = fmt.Sprintf("policy of mode %s, id %s, mx %s", s.Mode, orDash(s.ID), strings.Join(s.MX, " "))
	}
	p.item("MTA-STS", "%s", state)
	if s.FetchedAt != nil && s.ExpiresAt != nil {
		p.item("", "fetched %s ago, max_age %s, expires in %s", span(x.At.Sub(*s.FetchedAt)), span(time.Duration(s.MaxAge)*time.Second), span(s.ExpiresAt.Sub(x.At)))
	}
	if s.CheckedAt != nil {
		p.item("", "record looked at %s ago", span(x.At.Sub(*s.CheckedAt)))
	}
	if s.Error != "" {
		p.item("", "last trouble: %s", s.Error)
	}
	for _, n := range s.Notes {
		p.item("", "note: %s", n)
	}
}

func (p *page) dane(x policy.Explanation) {
	d := x.DANE
	secure := "not authenticated by DNSSEC"
	if d.SecureMX {
		secure = "authenticated by DNSSEC"
	}
	if d.Error != "" {
		p.item("DANE", "class %s; MX set unknown: %s", d.Class, d.Error)
		return
	}
	p.item("DANE", "class %s; MX set %s", d.Class, secure)
	for _, h := range d.Hosts {
		p.line("")
		p.line("  MX %d %s", h.Preference, h.Name)
		ad := "not authenticated"
		if h.Authentic {
			ad = "authenticated"
		}
		p.item("addresses", "%s (%s)", orDash(strings.Join(h.Addresses, " ")), ad)
		p.item("TLSA", "%s", h.Status)
		for _, r := range h.TLSA {
			p.item("", "%s", r)
		}
		for _, r := range h.Tried {
			p.item("", "asked %s", r)
		}
		if h.Error != "" {
			p.item("", "error: %s", h.Error)
		}
		if h.InPolicy != nil && !*h.InPolicy {
			p.item("MTA-STS", "the policy does not name this host")
		}
		p.item("Postfix", "%s", h.Postfix)
	}
}
