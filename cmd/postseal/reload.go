package main

import (
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
			cfg, _, err := loadConfig(opts.configPath, opts.configSet)
			if err != nil {
				return fmt.Errorf("the old configuration stays: %w", err)
			}
			err = newControlClient(cfg.Control.Listen).call(cmd.Context(), http.MethodPost, "/reload", nil, nil, nil)
			if errors.Is(err, errNoDaemon) {
				return fmt.Errorf("%w; start it with: postseal serve", err)
			}
			if err != nil {
				return fmt.Errorf("the old configuration stays: %w", err)
			}
			return nil
		},
	}
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
