package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/cache/sqlite"
	"github.com/postseal/postseal/policy"
)

func newCacheCommand(opts *globalOptions) *cobra.Command {
	c := &cobra.Command{
		Use:   "cache",
		Short: "The daemon's memory of MTA-STS policies",
	}
	c.AddCommand(cacheList(opts), cacheShow(opts), cacheRefresh(opts), cacheFlush(opts), cacheExport(opts), cacheImport(opts))
	return c
}

// memory reads the policies from the running daemon, or from its file when none runs.
func (o *globalOptions) memory(ctx context.Context) (all []policy.HeldPolicy, err error) {
	cfg, _, err := loadConfig(o.configPath, o.configSet)
	if err != nil {
		return nil, err
	}
	err = newControlClient(cfg.Control.Listen).call(ctx, http.MethodGet, "/policies", nil, nil, &all)
	if !errors.Is(err, errNoDaemon) {
		return all, err
	}
	store, err := openFile(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	return policy.ReadHeld(ctx, store)
}

// openFile opens the daemon's file to read, when none runs.
func openFile(ctx context.Context, cfg *Config) (cache.Store, error) {
	store, err := sqlite.OpenReadOnly(ctx, sqlite.Config{Path: cfg.Cache.Path})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("no daemon is running, and there is no %s; start one with: postseal serve, or run this as its user and with its --config", cfg.Cache.Path)
	case err != nil:
		return nil, fmt.Errorf("no daemon is running, and its file cannot be read: %w", err)
	}
	return store, nil
}

func cacheList(opts *globalOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the policies held",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := opts.memory(cmd.Context())
			if err != nil {
				return err
			}
			if opts.json {
				return printJSON(cmd.OutOrStdout(), orEmpty(all))
			}
			if len(all) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "postseal: no policies yet; each comes with the first question about its domain")
				return nil
			}
			return printHeld(cmd.OutOrStdout(), all)
		},
	}
}

func printHeld(w io.Writer, all []policy.HeldPolicy) error {
	rows := [][]string{{"DOMAIN", "MODE", "ID", "EXPIRES", "CLASS", "MX"}}
	for _, h := range all {
		rows = append(rows, []string{h.Domain, h.Mode, h.ID, "in " + span(time.Until(h.ExpiresAt)), orDash(h.Class), strings.Join(h.MX, " ")})
	}
	return printTable(w, rows)
}

func cacheShow(opts *globalOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "show DOMAIN",
		Short: "Show the policy held of a domain, as it was published",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := opts.memory(cmd.Context())
			if err != nil {
				return err
			}
			k, err := policy.ParseKey(args[0])
			if err != nil {
				return fmt.Errorf("%.100q: %w", args[0], err)
			}
			for _, h := range all {
				if h.Domain == k.Name {
					return showHeld(cmd.OutOrStdout(), h, opts.json)
				}
			}
			return &exitError{exitFindings, fmt.Errorf("%w: %s", policy.ErrNotHeld, k.Name)}
		},
	}
}

func showHeld(w io.Writer, h policy.HeldPolicy, asJSON bool) error {
	if asJSON {
		return printJSON(w, h)
	}
	_, err := fmt.Fprintf(w, "%s: id %s, fetched %s ago, expires in %s\n\n%s\n", h.Domain, h.ID, span(time.Since(h.FetchedAt)), span(time.Until(h.ExpiresAt)),
		strings.TrimRight(strings.ReplaceAll(h.Body, "\r\n", "\n"), "\n"))
	return err
}

func cacheRefresh(opts *globalOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "refresh DOMAIN",
		Short: "Fetch a domain's policy now",
		Long: `Fetch a domain's policy now. When that fails it exits 1 and says why; a policy that
is held stays in force until it expires.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := keyQuery(args[0])
			if err != nil {
				return err
			}
			var h policy.HeldPolicy
			began := time.Now()
			err = opts.change(cmd.Context(), http.MethodPost, "/policy/refresh", q, nil, &h, func(e *policy.Engine) (err error) {
				h, err = e.Refresh(cmd.Context(), args[0])
				return err
			})
			if err != nil {
				return err
			}
			return showRefreshed(cmd.OutOrStdout(), h, began, opts.json)
		},
	}
}

// showRefreshed shows a policy that was fetched after began. One that was fetched
// earlier is what is left when the fetch has failed.
func showRefreshed(w io.Writer, h policy.HeldPolicy, began time.Time, asJSON bool) error {
	failed := h.FetchedAt.Before(began)
	if asJSON || !failed {
		if err := showHeld(w, h, asJSON); err != nil || !failed {
			return err
		}
	}
	return &exitError{exitFindings, fmt.Errorf("%s: the policy could not be fetched: %s\npostseal: the one held (mode %s, id %s, fetched %s ago) stays until %s, for %s",
		h.Domain, cmp.Or(h.Error, "too many fetches are under way"), h.Mode, h.ID, span(time.Since(h.FetchedAt)), h.ExpiresAt.Format(time.RFC3339), span(time.Until(h.ExpiresAt)))}
}

// keyQuery carries a key to the daemon, if it is one.
func keyQuery(text string) (url.Values, error) {
	if _, err := policy.ParseKey(text); err != nil {
		return nil, fmt.Errorf("%.100q: %w", text, err)
	}
	return url.Values{"key": {text}}, nil
}

func cacheFlush(opts *globalOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "flush DOMAIN",
		Short: "Forget a domain, its policy included",
		Long: `Forget a domain, its policy included. An enforced policy protects mail until it
expires: forget it only when it was planted or published by mistake.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := keyQuery(args[0])
			if err == nil {
				err = opts.change(cmd.Context(), http.MethodDelete, "/policy", q, nil, nil, func(e *policy.Engine) error { return e.Flush(cmd.Context(), args[0]) })
			}
			if opts.json {
				if e := printJSON(cmd.OutOrStdout(), outcome{err == nil, errorTexts(err)}); e != nil {
					return e
				}
			}
			return err
		},
	}
}

// daemonCall is for what only the running daemon can do.
func (o *globalOptions) daemonCall(ctx context.Context, method, path string, body io.Reader, out any) error {
	cfg, _, err := loadConfig(o.configPath, o.configSet)
	if err != nil {
		return err
	}
	err = newControlClient(cfg.Control.Listen).call(ctx, method, path, nil, body, out)
	if errors.Is(err, errNoDaemon) {
		return fmt.Errorf("%w; start it with: postseal serve", err)
	}
	return err
}

func cacheExport(opts *globalOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "export",
		Short: "Write a static policy map (texthash) for an emergency, or JSON with --json",
		Long: `Write a static policy map for an emergency, from the daemon or, when it is down,
from its file:

  postseal cache export > /etc/postfix/tls_policy.static
  postconf -e 'smtp_tls_policy_maps = texthash:/etc/postfix/tls_policy.static' && postfix reload

With --json it writes what 'postseal cache import' reads.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if opts.json {
				all, err := opts.memory(cmd.Context())
				if err != nil {
					return err
				}
				return printJSON(cmd.OutOrStdout(), orEmpty(all))
			}
			m, err := opts.staticMap(cmd.Context())
			if err != nil {
				return err
			}
			return m.write(cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
}

// staticMap is the policy map for an emergency.
type staticMap struct {
	Lines []string  `json:"lines"`
	Left  []string  `json:"left"` // what it cannot hold
	At    time.Time `json:"at"`
}

func newStaticMap(all []policy.HeldPolicy, known map[string]policy.KnownMX, cfg *Config) staticMap {
	m := staticMap{At: time.Now()}
	m.Lines, m.Left = policy.Emergency(all, known, cfg.Rules, policy.Options{Floor: cfg.TLSPolicy.Floor}, m.At)
	return m
}

// staticMap has the map made by the daemon, which knows what each destination
// rests on, or makes it from the daemon's file when none runs.
func (o *globalOptions) staticMap(ctx context.Context) (m staticMap, err error) {
	err = o.daemonCall(ctx, http.MethodGet, "/static-map", nil, &m)
	if !errors.Is(err, errNoDaemon) {
		return m, err
	}
	cfg, _, err := loadConfig(o.configPath, o.configSet)
	if err != nil {
		return m, err
	}
	store, err := openFile(ctx, cfg)
	if err != nil {
		return m, err
	}
	defer store.Close()
	all, err := policy.ReadHeld(ctx, store)
	if err != nil {
		return m, err
	}
	known, err := policy.ReadKnownMX(ctx, store)
	if err != nil {
		return m, err
	}
	return newStaticMap(all, known, cfg), nil
}

func (m staticMap) write(out, warn io.Writer) error {
	for _, l := range m.Left {
		fmt.Fprintln(warn, "postseal: left out:", l)
	}
	if len(m.Lines) == 0 {
		fmt.Fprintln(warn, "postseal: no policy and no rule to write: with this map smtp_tls_security_level of main.cf decides everywhere")
	}
	if _, err := fmt.Fprintf(out, "# written by postseal at %s; a snapshot, for an emergency only\n", m.At.UTC().Format(time.RFC3339)); err != nil {
		return err
	}
	for _, l := range m.Lines {
		if _, err := fmt.Fprintln(out, l); err != nil {
			return err
		}
	}
	return nil
}

func cacheImport(opts *globalOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Take over policies that 'cache export --json' wrote; - for standard input",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readAll(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			var all []policy.HeldPolicy
			if err := json.Unmarshal(text, &all); err != nil {
				return fmt.Errorf("%s: not what 'postseal cache export --json' writes, a list of policies", args[0])
			}
			var result struct{ Imported int }
			err = opts.change(cmd.Context(), http.MethodPost, "/policies", nil, bytes.NewReader(text), &result, func(e *policy.Engine) (err error) {
				result.Imported, err = e.Import(cmd.Context(), all)
				return err
			})
			if err != nil {
				return err
			}
			if opts.json {
				return printJSON(cmd.OutOrStdout(), result)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d of %d policies imported; the others are expired, or held already\n", result.Imported, len(all))
			return err
		},
	}
}

func readAll(name string, stdin io.Reader) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(io.LimitReader(stdin, maxImport))
	}
	return os.ReadFile(name)
}
