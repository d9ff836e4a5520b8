package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func newReloadCommand(opts *globalOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Make the running daemon read its configuration again",
		Long: `Make the running daemon read its configuration again. A bad file keeps the old
configuration and exits 2 with the error; a good one takes effect without
dropping a connection.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := opts.reload(cmd.Context(), cmd.ErrOrStderr())
			if opts.json {
				if e := printJSON(cmd.OutOrStdout(), outcome{err == nil, errorTexts(err)}); e != nil {
					return e
				}
			}
			return err
		},
	}
}

// outcome is the JSON of a command that has nothing else to say.
type outcome struct {
	OK     bool     `json:"ok"`
	Errors []string `json:"errors"`
}

// reload asks the daemon at the control socket that the file names now, or at the
// default one: where [control] listen was changed, the daemon is at its old place
// until it has reloaded.
func (o *globalOptions) reload(ctx context.Context, warn io.Writer) error {
	cfg, _, err := loadConfig(o.configPath, o.configSet)
	if err != nil {
		return fmt.Errorf("%w\npostseal: the old configuration stays", err)
	}
	err = reloadAt(ctx, warn, cfg.Control.Listen, defaults(environment{os.Getenv, os.Geteuid()}).Control.Listen)
	if errors.Is(err, errNoDaemon) {
		return fmt.Errorf("%w; start it with: postseal serve; or, where [control] listen was changed just now, reload it with: systemctl kill -s HUP postseal", err)
	}
	if err != nil {
		return fmt.Errorf("the old configuration stays: %w", err)
	}
	return nil
}

// reloadAt tries the control sockets in turn. The error is that of the daemon, or
// of the first socket when there is none at any.
func reloadAt(ctx context.Context, warn io.Writer, configured, usual string) error {
	call := func(listen string) error {
		return newControlClient(listen).call(ctx, http.MethodPost, "/reload", nil, nil, nil)
	}
	nobody := call(configured)
	if !errors.Is(nobody, errNoDaemon) || usual == configured {
		return nobody
	}
	err := call(usual)
	if errors.Is(err, errNoDaemon) {
		return nobody
	}
	fmt.Fprintf(warn, "postseal: nobody at the control socket that the configuration names; asked the daemon at %s\n", strings.TrimPrefix(usual, "unix:"))
	return err
}

func newHealthcheckCommand(opts *globalOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "healthcheck",
		Short: "Exit 0 when the daemon is ready, for containers",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var r readiness
			if err := opts.daemonCall(cmd.Context(), http.MethodGet, "/ready", nil, &r); err != nil {
				return err
			}
			if opts.json {
				if err := printJSON(cmd.OutOrStdout(), r); err != nil {
					return err
				}
			} else {
				r.print(cmd.OutOrStdout())
			}
			if !r.Ready {
				return &exitError{exitFindings, errors.New("not ready")}
			}
			return nil
		},
	}
}
