package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/cache/sqlite"
	"github.com/postseal/postseal/internal/ledger"
	"github.com/postseal/postseal/policy"
)

func newReportCommand(opts *globalOptions) *cobra.Command {
	c := &cobra.Command{
		Use:   "report",
		Short: "What can be shown to an auditor",
	}
	c.AddCommand(reportEnforced(opts))
	return c
}

// What a report says about itself.
const proves = "This proves which TLS policy Postfix was told and what the mail hosts offered when they were asked. " +
	"It does not prove each delivery: for that see Postfix's log, status=sent after \"TLS connection established\"."

func reportEnforced(opts *globalOptions) *cobra.Command {
	var since string
	var csv bool
	c := &cobra.Command{
		Use:   "enforced",
		Short: "Evidence about the destinations that rules demand TLS of",
		Long: `Evidence about the destinations that rules demand TLS of (level encrypt, fingerprint,
dane-only, verify or secure): rule and reason, the level that Postfix was told, what
each mail host offered when it was last asked, recipients refused and deferred at
RCPT, and when the evidence changed. The worst stands first.

` + wrap(proves, 84) + `

--since bounds the counts and which destinations are shown: those asked for, probed or
changed since. It takes 24h, 7d, 2w or a date such as 2027-03-31; 400 days are kept.
Counts are by the day: the day in which the time lies counts as a whole. With --json
the changes since are listed too, each with the evidence as it was from then on.

States: not-held (Postfix was told less than the rule demands), inert (rules do not
bind because Postfix hands the mail to another host), unreachable (no mail host offers
what is demanded), unknown (asked, without an outcome), not-probed (mail hosts are not
asked, or were not yet), reached; expired and no-rule: no rule demands it any more.

Exit code 1: a destination that is shown is not-held, inert or unreachable, or a rule is
inert.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if csv && opts.json {
				return errors.New("--csv or --json, not both")
			}
			from, err := parseSince(since, time.Now())
			if err != nil {
				return err
			}
			r, err := opts.enforced(cmd.Context(), from)
			if err != nil {
				return err
			}
			if err := r.write(cmd.OutOrStdout(), cmd.ErrOrStderr(), csv, opts.json); err != nil {
				return err
			}
			if r.findings() > 0 {
				return &exitError{exitFindings, errors.New("")}
			}
			return nil
		},
	}
	c.Flags().StringVar(&since, "since", "7d", "how far back: 24h, 7d, 2w or a date such as 2027-03-31")
	c.Flags().BoolVar(&csv, "csv", false, "print CSV (RFC 4180), a row for each destination and mail host")
	return c
}

func (r *enforcedReport) write(out, warn io.Writer, csv, json bool) error {
	switch {
	case json:
		return printJSON(out, r)
	case csv:
		for _, w := range r.Warnings {
			fmt.Fprintln(warn, "postseal:", w)
		}
		fmt.Fprintln(warn, "postseal:", proves)
		return r.writeCSV(out)
	}
	return r.writeText(out)
}

// parseSince reads how far back to look. What is longer ago than anything that is
// kept is allowed.
func parseSince(text string, now time.Time) (time.Time, error) {
	bad := fmt.Errorf("--since %.40q: write for example 24h, 7d, 2w or 2027-03-31", text)
	if t, err := time.ParseInLocation(time.DateOnly, text, time.Local); err == nil {
		if t.After(now) {
			return time.Time{}, fmt.Errorf("--since %s lies in the future", text)
		}
		return t, nil
	}
	if text == "" {
		return time.Time{}, bad
	}
	unit, known := map[byte]time.Duration{'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}[text[len(text)-1]]
	n, err := strconv.ParseUint(text[:len(text)-1], 10, 16)
	if !known || err != nil || n == 0 {
		return time.Time{}, bad
	}
	const most = 10 * ledger.Keep // far beyond what is there, and within a Duration
	return now.Add(-time.Duration(min(n, uint64(most/unit))) * unit), nil
}

// enforced has the running daemon make the report, or makes it from the daemon's file
// when none runs.
func (o *globalOptions) enforced(ctx context.Context, since time.Time) (*enforcedReport, error) {
	cfg, _, err := loadConfig(o.configPath, o.configSet)
	if err != nil {
		return nil, err
	}
	r := new(enforcedReport)
	q := url.Values{"since": {since.Format(time.RFC3339)}}
	err = newControlClient(cfg.Control.Listen).call(ctx, http.MethodGet, "/report/enforced", q, nil, r)
	if !errors.Is(err, errNoDaemon) {
		return r, err
	}
	return enforcedAlone(ctx, cfg, since)
}

// enforcedAlone makes the report from the daemon's file, and from what Postfix's
// configuration says now, where it can be read.
func enforcedAlone(ctx context.Context, cfg *Config, since time.Time) (*enforcedReport, error) {
	store, err := sqlite.OpenReadOnly(ctx, ledgerFile(cfg.Ledger.Path, nil))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("no daemon is running, and there is no %s; start one with: postseal serve, or run this as its user and with its --config", cfg.Ledger.Path)
	case err != nil:
		return nil, fmt.Errorf("no daemon is running, and its ledger cannot be read: %w", err)
	}
	defer store.Close()
	b, err := ledger.Read(ctx, store, since)
	if err != nil {
		return nil, fmt.Errorf("no daemon is running, and its ledger cannot be read: %w", err)
	}
	d, done, err := alone(ctx, cfg, cache.NewVolatile(nil))
	if err != nil {
		return nil, err
	}
	defer func() { _ = done() }()
	inert := noteRoutes(ctx, d.postfix.routing, &b, cfg.Rules, func(string, string) {})
	r := newEnforcedReport(b, cfg, inert, since, time.Now())
	r.Warnings = append(r.Warnings, "no daemon is running: this is what "+cfg.Ledger.Path+" holds; start it with: postseal serve")
	return r, nil
}

// reportEnforced answers `postseal report enforced`.
func (c *control) reportEnforced(w http.ResponseWriter, r *http.Request) {
	since, err := time.Parse(time.RFC3339, r.FormValue("since"))
	if err != nil {
		answerJSON(w, http.StatusBadRequest, failure{err.Error()})
		return
	}
	report, err := c.daemon.enforced(r.Context(), since)
	answer(w, report, err)
}

// routesTimeout bounds how long a report waits for where Postfix hands mail.
const routesTimeout = 30 * time.Second

// enforced makes the report from the ledger, with what was told until now.
func (d *daemon) enforced(ctx context.Context, since time.Time) (*enforcedReport, error) {
	b, err := d.book.Read(ctx, since)
	if err != nil {
		return nil, fmt.Errorf("the ledger cannot be read: %w", err)
	}
	cfg := d.config()
	inert := noteRoutes(ctx, d.book.routes, &b, cfg.Rules, func(destination, why string) { d.book.Inert(destination, false, why) })
	r := newEnforcedReport(b, cfg, inert, since, time.Now())
	if err := d.book.Err(); err != nil {
		r.Warnings = append(r.Warnings, "the ledger is not written, and what follows may lack the newest: "+err.Error())
	}
	return r, nil
}

// noteRoutes puts into the evidence whether rules bind for the destinations, and tells
// keep what is new. It returns why rules do not bind, whatever mail they met. Rules for a
// sender's sake bind wherever the mail goes.
func noteRoutes(ctx context.Context, r routes, all *ledger.Book, rules *policy.Rules, keep func(destination, why string)) map[*policy.Rule]string {
	ctx, cancel := context.WithTimeout(ctx, routesTimeout)
	defer cancel()
	var domains []string
	for i := range all.Entries {
		if e := &all.Entries[i]; !e.Sender && !strings.ContainsAny(e.Name, "[:") {
			domains = append(domains, e.Name)
		}
	}
	why := r.unboundAll(ctx, domains)
	for i := range all.Entries {
		e := &all.Entries[i]
		if reason, known := why[e.Name]; known && !e.Sender && e.Inert != reason {
			e.Inert = reason
			keep(e.Name, reason)
		}
	}
	return r.inertRules(ctx, rules)
}
