package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/cache/sqlite"
	"github.com/postseal/postseal/internal/resolver"
	"github.com/postseal/postseal/policy"
)

// alone makes a daemon without sockets for one command, where none is running. It
// closes the store in the end, whose last writes done waits for.
func alone(ctx context.Context, cfg *Config, store cache.Store) (d *daemon, done func() error, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, store.Close())
		}
	}()
	quiet := slog.New(slog.DiscardHandler)
	d = &daemon{log: quiet, store: store}
	d.cfg.Store(cfg)
	d.sockets = newSockets(d, nil)
	if d.resolver, err = resolver.New(d.resolverConfig(cfg)); err != nil {
		return nil, nil, err
	}
	fetcher, err := newFetcher(cfg, d.resolver, quiet)
	if err != nil {
		return nil, nil, err
	}
	d.reach = newMailReach(cfg.Reach, quiet)
	d.engine, err = policy.New(policy.Config{Resolver: d.resolver, Fetch: fetcher.Fetch, Store: store, Settings: engineSettings(cfg), Reach: d.reach, Logger: quiet})
	if err != nil {
		return nil, nil, err
	}
	d.postfix = newPostfixWatch(d)
	d.postfix.read(ctx)
	life, end := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { _ = d.resolver.Run(life) })
	work.Go(func() { _ = d.engine.Run(life) })
	return d, func() error { end(); work.Wait(); d.postfix.end(); return store.Close() }, nil
}

// change has the running daemon change its memory, or, when none runs, changes
// the daemon's file in its place.
func (o *globalOptions) change(ctx context.Context, method, path string, q url.Values, body io.Reader, out any, itself func(*policy.Engine) error) error {
	cfg, _, err := loadConfig(o.configPath, o.configSet)
	if err != nil {
		return err
	}
	err = newControlClient(cfg.Control.Listen).call(ctx, method, path, q, body, out)
	if !errors.Is(err, errNoDaemon) {
		return err
	}
	store, err := openAlone(ctx, cfg.Cache.Path)
	if err != nil {
		return err
	}
	d, done, err := alone(ctx, cfg, store)
	if err != nil {
		return err
	}
	err = itself(d.engine)
	if closing := done(); closing != nil {
		return errors.Join(err, fmt.Errorf("%s: %w", cfg.Cache.Path, closing))
	}
	if errors.Is(err, policy.ErrNotHeld) {
		return &exitError{exitFindings, err}
	}
	return err
}

// openAlone opens the daemon's file for writing, under the daemon's lock.
func openAlone(ctx context.Context, path string) (cache.Store, error) {
	if err := becomeOwner(path); err != nil {
		return nil, fmt.Errorf("no daemon is running, and its file is another user's: %w", err)
	}
	store, err := sqlite.Open(ctx, sqlite.Config{Path: path})
	if err == nil {
		if err = store.Err(); err == nil {
			return store, nil
		}
		err = errors.Join(err, store.Close())
	}
	if errors.Is(err, sqlite.ErrHeld) {
		return nil, fmt.Errorf("nobody listens on the control socket, but %w", err)
	}
	return nil, fmt.Errorf("no daemon is running, and its file cannot be written: %w", err)
}

// becomeOwner makes root the owner of the daemon's file, or of the folder that it
// will be in: what root would leave there the daemon could not write.
func becomeOwner(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(path)
	for dir := filepath.Dir(path); errors.Is(err, fs.ErrNotExist); dir = filepath.Dir(dir) {
		info, err = os.Stat(dir)
	}
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	return cmp.Or(syscall.Setgroups([]int{int(owner.Gid)}), syscall.Setgid(int(owner.Gid)), syscall.Setuid(int(owner.Uid)))
}
