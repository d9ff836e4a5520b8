package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

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
			err := opts.reload(cmd.Context())
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

func (o *globalOptions) reload(ctx context.Context) error {
	cfg, _, err := loadConfig(o.configPath, o.configSet)
	if err != nil {
		return fmt.Errorf("%w\npostseal: the old configuration stays", err)
	}
	err = newControlClient(cfg.Control.Listen).call(ctx, http.MethodPost, "/reload", nil, nil, nil)
	if errors.Is(err, errNoDaemon) {
		return fmt.Errorf("%w; start it with: postseal serve", err)
	}
	if err != nil {
		return fmt.Errorf("the old configuration stays: %w", err)
	}
	return nil
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
