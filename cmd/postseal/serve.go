package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/postseal/postseal/systemd"
)

func newServeCommand(opts *globalOptions) *cobra.Command {
	var format, level string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon in the foreground",
		Long: `Run the daemon in the foreground. It logs to standard error, reads its
configuration again on SIGHUP, and ends on SIGTERM once the connections that
Postfix holds open are gone; a second SIGTERM ends it at once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if opts.json {
				return errors.New("serve prints no object; for the log in JSON: postseal serve --log-format json")
			}
			logger, err := newLogger(cmd.ErrOrStderr(), format, level)
			if err != nil {
				return err
			}
			return serve(opts, logger)
		},
	}
	c.Flags().StringVar(&format, "log-format", "logfmt", "logfmt or json")
	c.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return c
}

func newLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var o slog.HandlerOptions
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", level)
	}
	o.Level = l
	switch format {
	case "logfmt":
		return slog.New(slog.NewTextHandler(w, &o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, &o)), nil
	}
	return nil, fmt.Errorf("--log-format %q: want logfmt or json", format)
}

// serve runs the daemon until a signal ends it.
func serve(opts *globalOptions, logger *slog.Logger) error {
	// The libraries' log.Printf, into ours.
	takeStdLog(logger)

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	life, end := context.WithCancel(context.Background()) // until the last answer
	defer end()
	d, err := newDaemon(life, opts, logger)
	if err != nil {
		return err
	}
	serving, drain := context.WithCancel(life)
	defer drain()
	d.serving = serving
	var watchers sync.WaitGroup
	defer watchers.Wait()
	defer end()
	watchers.Go(func() {
		if err := systemd.Watchdog(life, d.alive); err != nil {
			logger.Warn("watchdog", "error", err)
		}
	})
	watchers.Go(func() { d.heed(life, signals, drain) })
	err = d.run(serving)
	if err == nil {
		logger.Info("ended")
	}
	return err
}

// heed acts on signals: SIGHUP reloads, the first SIGTERM drains, the second ends at once.
func (d *daemon) heed(life context.Context, signals <-chan os.Signal, drain context.CancelFunc) {
	// Aside, and waited for by nobody: a reload that hangs, on a file of a network
	// that is away, must not keep the daemon from ending.
	reload := make(chan struct{}, 1)
	go func() {
		for {
			select {
			case <-life.Done():
				return
			case <-reload:
				d.reloadLoudly()
			}
		}
	}()
	draining := false
	for {
		select {
		case <-life.Done():
			return
		case s := <-signals:
			switch {
			case s == syscall.SIGHUP && draining:
				d.log.Info("no reload while ending", "signal", s.String())
			case s == syscall.SIGHUP:
				select {
				case reload <- struct{}{}:
				default: // one waits already, and will read what is there then
				}
			case draining:
				d.log.Warn("second signal: ending at once", "signal", s.String())
				d.cutConnections()
			default:
				draining = true
				d.log.Info("ending once Postfix's connections are gone; a second signal ends at once", "signal", s.String(), "connections", d.socketmap.Conns(), "at_most", d.config().Socketmap.Drain)
				d.beginDrain(drain)
			}
		}
	}
}

func (d *daemon) reloadLoudly() {
	if err := d.reload(); err != nil {
		d.log.Error("configuration is bad; the old one stays", "error", err)
	}
}

// beginDrain ends serving and tells the service manager; what a reload under way
// has to tell it comes before that, or not at all.
func (d *daemon) beginDrain(drain context.CancelFunc) {
	d.telling.Lock()
	defer d.telling.Unlock()
	drain()
	d.notify(systemd.Stopping)
}

// notifyServing tells the service manager something, unless the drain has begun.
func (d *daemon) notifyServing(states ...systemd.State) {
	d.telling.Lock()
	defer d.telling.Unlock()
	if d.serving.Err() == nil {
		d.notify(states...)
	}
}
