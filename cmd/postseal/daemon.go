package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/cache/sqlite"
	"github.com/postseal/postseal/internal/resolver"
	"github.com/postseal/postseal/milter"
	"github.com/postseal/postseal/policy"
	"github.com/postseal/postseal/policy/delegation"
	"github.com/postseal/postseal/policy/mtasts"
	"github.com/postseal/postseal/policy/socketmap"
	"github.com/postseal/postseal/systemd"
)

// daemon wires the rooms of the house together.
type daemon struct {
	opts     *globalOptions
	log      *slog.Logger
	cfg      atomic.Pointer[Config]
	registry *prometheus.Registry

	store     cache.Store
	book      *book
	resolver  *resolver.Resolver
	fetcher   atomic.Pointer[mtasts.Fetcher]
	engine    *policy.Engine
	reach     *mailReach
	gate      *gate
	socketmap *socketmap.Server
	inspector *milter.Inspector
	milter    *milter.Server
	delegated *delegation.Server
	signed    *signedDomains
	answering sync.RWMutex // read-locked by listeners of the socketmap that are still served
	sockets   *sockets
	postfix   *postfixWatch

	reloading sync.Mutex      // held by the one reload
	opening   sync.Mutex      // held while sockets are opened and closed
	ended     bool            // no socket is opened from now on
	telling   sync.Mutex      // held while the service manager is told something
	serving   context.Context // ends when the drain begins
}

func (d *daemon) config() *Config { return d.cfg.Load() }

// newDaemon reads the configuration and opens everything but the sockets.
func newDaemon(ctx context.Context, opts *globalOptions, logger *slog.Logger) (*daemon, error) {
	cfg, warnings, err := loadConfig(opts.configPath, opts.configSet)
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		logger.Warn(w.Text, "place", w.Place)
	}
	passed, err := systemd.Listeners()
	if err != nil {
		return nil, err
	}
	d := &daemon{opts: opts, log: logger, registry: prometheus.NewRegistry()}
	d.cfg.Store(cfg)
	d.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	d.sockets = newSockets(d, passed)
	if d.store, err = openStore(ctx, cfg.Cache.Path, logger); err != nil {
		return nil, err
	}
	if d.resolver, err = resolver.New(d.resolverConfig(cfg)); err != nil {
		return nil, errors.Join(err, d.store.Close())
	}
	fetcher, err := newFetcher(cfg, d.resolver, logger)
	if err != nil {
		return nil, errors.Join(err, d.store.Close())
	}
	d.fetcher.Store(fetcher)
	d.book = d.newBook(ctx, cfg.Ledger.Path)
	d.reach = newMailReach(cfg.Reach, logger)
	d.engine, err = policy.New(policy.Config{
		Resolver: d.resolver, Store: d.store, Logger: logger, Registerer: d.registry, Settings: engineSettings(cfg), Reach: d.reach,
		Observer: d.book, Secured: d.book.secured, Witnesses: d.book.witnesses,
		Fetch: func(ctx context.Context, domain string) (mtasts.Fetched, error) {
			return d.fetcher.Load().Fetch(ctx, domain)
		},
		Route: func(ctx context.Context, domain string) (unbound, doubt string) {
			return d.postfix.routing.Unbound(ctx, domain)
		},
	})
	if err != nil {
		return nil, errors.Join(err, d.book.close(), d.store.Close())
	}
	d.gate = newGate(d.engine, func() time.Duration { return d.config().TLSPolicy.Deadline })
	d.socketmap = &socketmap.Server{Handler: d.gate, Drain: cfg.Socketmap.Drain, Logger: logger}
	if d.socketmap.Drain == 0 {
		d.socketmap.Drain = -1 // zero would be the default
	}
	registerSocketmap(d.registry, d.socketmap)
	if err := d.newMilter(cfg); err != nil {
		return nil, errors.Join(err, d.book.close(), d.store.Close())
	}
	d.newDelegation(cfg)
	d.postfix = newPostfixWatch(d)
	d.book.routes = d.postfix.routing
	return d, nil
}

// newMilter makes what judges messages.
func (d *daemon) newMilter(cfg *Config) (err error) {
	d.signed = newSignedDomains(d.store, d.log)
	d.inspector, err = milter.New(milter.Config{
		DNS: milterDNS{d.resolver}, Destinations: d.engine, Seen: d.signed, Logger: d.log, Registerer: d.registry, Settings: milterSettings(cfg),
	})
	if err != nil {
		return err
	}
	d.milter = &milter.Server{Inspector: d.inspector, Logger: d.log}
	registerMilter(d.registry, d.milter)
	return nil
}

// A command that works on the store while no daemon runs holds it for a moment.
const (
	heldPatience = 5 * time.Second
	heldAgain    = 200 * time.Millisecond
)

// openStore opens the store on disk. Without a disk that can be written the
// daemon runs from memory, loudly, and from what the file holds if it can be
// read; with another daemon on the same file, or with a file that is not ours to
// touch, it does not run.
func openStore(ctx context.Context, path string, logger *slog.Logger) (cache.Store, error) {
	store, err := sqlite.Open(ctx, sqlite.Config{Path: path, Logger: logger})
	for waited := time.Duration(0); errors.Is(err, sqlite.ErrHeld) && waited < heldPatience && ctx.Err() == nil; waited += heldAgain {
		if waited == 0 {
			logger.Info("waiting for who has the store: a command, or a daemon that ends", "error", err)
		}
		select {
		case <-time.After(heldAgain):
		case <-ctx.Done():
		}
		store, err = sqlite.Open(ctx, sqlite.Config{Path: path, Logger: logger})
	}
	if err == nil {
		return store, nil
	}
	if errors.Is(err, sqlite.ErrHeld) {
		return nil, err
	}
	if errors.Is(err, sqlite.ErrVersion) || errors.Is(err, sqlite.ErrForeign) {
		return nil, fmt.Errorf("[cache] path = %q: %w", path, err)
	}
	logger.Error("no store on disk: policies are kept in memory and are lost at a restart", "path", path, "error", err)
	// Never forgets: an enforced policy counts although its file cannot be written.
	if below, readErr := sqlite.OpenReadOnly(ctx, sqlite.Config{Path: path, Logger: logger}); readErr == nil {
		return cache.NewFrozen(err, below), nil
	}
	return cache.NewVolatile(err), nil
}

func (d *daemon) resolverConfig(c *Config) resolver.Config {
	r := resolver.Config{Probe: c.Resolver.Probe, TrustAD: c.Resolver.TrustAD, Logger: d.log}
	if d.registry != nil {
		r.Registerer = d.registry
	}
	for _, s := range c.Resolver.Servers {
		r.Servers = append(r.Servers, s.String())
	}
	return r
}

func newFetcher(c *Config, r *resolver.Resolver, logger *slog.Logger) (*mtasts.Fetcher, error) {
	f := &mtasts.Fetcher{Resolver: r, AllowNetworks: c.MTASTS.AllowNetworks, Timeout: c.MTASTS.FetchTimeout, Logger: logger}
	if path := c.CAFilePath(); path != "" {
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("[mta_sts] ca_file: %w", err)
		}
		f.RootCAs = x509.NewCertPool()
		if !f.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("[mta_sts] ca_file = %q: no certificate in PEM form in it", path)
		}
	}
	if c.MTASTS.Proxy != "" {
		u, err := url.Parse(c.MTASTS.Proxy)
		if err != nil {
			return nil, fmt.Errorf("[mta_sts] proxy: %w", err)
		}
		f.Proxy = u
	}
	return f, nil
}

func engineSettings(c *Config) policy.Settings {
	return policy.Settings{
		Monitor: c.Mode == policy.ModeMonitor, Floor: c.TLSPolicy.Floor, Deadline: c.TLSPolicy.Deadline,
		DANE: c.DANEMode(), STS: c.MTASTSMode(), Rules: c.Rules, References: c.Reach.Reference,
	}
}

// run serves until ctx ends and Postfix's connections are drained.
func (d *daemon) run(ctx context.Context) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx)) // of what answers need
	var work sync.WaitGroup
	defer func() {
		end()
		d.inspector.Close()
		work.Wait()
		// Before the store: whoever waits for that one finds both free.
		if err := d.book.close(); err != nil {
			d.log.Error("the ledger did not close cleanly", "error", err)
		}
		if err := d.store.Close(); err != nil {
			d.log.Error("the store did not close cleanly", "error", err)
		}
	}()
	d.reloading.Lock() // until there is something to reload
	work.Go(func() { d.tell("resolver", d.resolver.Run(life)) })
	d.postfix.read(life)
	work.Go(func() { d.tell("engine", d.engine.Run(life)) })
	work.Go(func() { d.signed.run(life) })
	work.Go(func() { d.tell("ledger", d.book.Run(life)) })
	work.Go(func() { d.postfix.run(life) })
	work.Go(func() { d.postfix.routing.run(life) })
	work.Go(func() { d.settle(life, d.resolver.Ready) })
	err := d.listen(ctx, d.config())
	d.reloading.Unlock()
	switch {
	case errors.Is(err, errEnding):
		err = nil // asked to end before it had begun
	case err == nil:
		d.notifyServing(systemd.Ready, systemd.Status("answering Postfix"))
		d.log.Info("ready", "version", buildVersion(), "config", d.config().Path, "main.cf", "smtp_tls_policy_maps = "+d.mapLine())
		<-ctx.Done()
	}
	d.opening.Lock()
	d.ended = true
	d.opening.Unlock()
	d.socketsDrained(err)
	return err
}

// socketsDrained waits for the listeners; after a failure to start there is
// nothing to drain.
func (d *daemon) socketsDrained(err error) {
	if err != nil {
		d.cutConnections()
		d.sockets.close()
	}
	d.sockets.work.Wait()
}

// cutConnections ends what is being served at once.
func (d *daemon) cutConnections() {
	d.socketmap.Close()
	d.milter.Close()
	d.delegated.Close()
}

func (d *daemon) tell(what string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		d.log.Error("a part of the daemon failed", "part", what, "error", err)
	}
}

func (d *daemon) notify(states ...systemd.State) {
	if err := systemd.Notify(states...); err != nil {
		d.log.Warn("cannot notify systemd", "error", err)
	}
}

// mapLine is our map in the notation of main.cf.
func (d *daemon) mapLine() string {
	for _, l := range d.config().Socketmap.Listen {
		return "socketmap:" + l + ":postseal"
	}
	return "socketmap:inet:127.0.0.1:8463:postseal"
}

// errEnding: a reload comes too late.
var errEnding = errors.New("the daemon is ending")

// listen opens the sockets of the configuration and closes those that it no
// longer names.
func (d *daemon) listen(ctx context.Context, c *Config) error {
	d.opening.Lock()
	defer d.opening.Unlock()
	if d.ended || ctx.Err() != nil {
		return errEnding
	}
	commands := ListenConfig{UnixMode: c.Control.UnixMode, UnixGroup: c.Control.UnixGroup}
	if c.Control.Listen != "" {
		commands.Listen = []string{c.Control.Listen}
	}
	if err := d.sockets.apply(ctx, service{name: "socketmap", required: true, serve: d.serveSocketmap}, places(c.Socketmap.ListenConfig)); err != nil {
		return err
	}
	return errors.Join(
		d.sockets.apply(ctx, service{name: "milter", serve: d.serveMilter}, places(c.Milter.ListenConfig)),
		d.sockets.apply(ctx, service{name: "delegation", serve: d.serveDelegation}, places(c.Delegation.ListenConfig)),
		d.sockets.apply(ctx, service{name: "http", serve: serveHTTP(d.httpHandler())}, places(c.HTTP)),
		d.sockets.apply(ctx, service{name: "control", serve: serveHTTP((&control{d}).handler())}, places(commands)),
	)
}

func (d *daemon) serveSocketmap(ctx context.Context, l net.Listener) error {
	d.answering.RLock()
	defer d.answering.RUnlock()
	return d.socketmap.Serve(ctx, l)
}

// milterMargin is how long messages in flight get at the end, beyond the time that
// the socketmap may take to drain; with it TimeoutStopSec is not reached.
const milterMargin = 12 * time.Second

// serveMilter serves the milter for as long as the socketmap drains: while this
// process runs, no other will take Postfix's connections.
func (d *daemon) serveMilter(ctx context.Context, l net.Listener) error {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() {
		if d.serving.Err() != nil {
			time.AfterFunc(d.config().Socketmap.Drain+milterMargin, d.milter.Close)
			d.answering.Lock()
			defer d.answering.Unlock()
		}
		stop()
	})()
	return d.milter.Serve(serving, l)
}

func (d *daemon) httpHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelWarn)}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		r := d.readiness()
		if !r.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		r.print(w)
	})
	return mux
}

// reload reads the configuration again. A bad one changes nothing.
func (d *daemon) reload() error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	d.notifyServing(systemd.Reloading())
	defer d.notifyServing(systemd.Ready)
	cfg, warnings, err := loadConfig(d.opts.configPath, d.opts.configSet)
	if err != nil {
		return err
	}
	fetcher, err := newFetcher(cfg, d.resolver, d.log)
	if err != nil {
		return err
	}
	if err := d.resolver.Reconfigure(d.resolverConfig(cfg)); err != nil {
		return err
	}
	for _, w := range warnings {
		d.log.Warn(w.Text, "place", w.Place)
	}
	old := d.config()
	if old.Cache.Path != cfg.Cache.Path {
		d.log.Warn("[cache] path takes effect at a restart", "path", cfg.Cache.Path)
	}
	if old.Ledger.Path != cfg.Ledger.Path {
		d.log.Warn("[ledger] path takes effect at a restart", "path", cfg.Ledger.Path)
	}
	if old.Socketmap.Drain != cfg.Socketmap.Drain {
		d.log.Warn("[socketmap] drain takes effect at a restart", "drain", cfg.Socketmap.Drain)
	}
	if old.Delegation.Deadline != cfg.Delegation.Deadline {
		d.log.Warn("[delegation] deadline takes effect at a restart", "deadline", cfg.Delegation.Deadline)
	}
	if old.Reach.Connections != cfg.Reach.Connections {
		d.log.Warn("[reach] connections takes effect at a restart", "connections", cfg.Reach.Connections)
	}
	if err := d.listen(d.serving, cfg); err != nil { // also when the drain has begun
		return errors.Join(err, d.resolver.Reconfigure(d.resolverConfig(old)))
	}
	d.fetcher.Store(fetcher)
	d.cfg.Store(cfg)
	d.postfix.tellReach() // before the engine sums up anew
	d.decideAnew()
	d.book.rules.Clear() // those of the configuration before
	d.inspector.Configure(milterSettings(cfg))
	d.postfix.reread()
	d.log.Info("configuration read again", "config", cfg.Path, "rules", len(cfg.Rules.All()))
	return nil
}

// decideAnew gives the engine what is configured and known now.
func (d *daemon) decideAnew() {
	d.postfix.with(func(p policy.Postfix) { d.engine.Configure(engineSettings(d.config()), p) })
}

// watchdogPatience is how long the watchdog waits for the daemon's locks.
const watchdogPatience = 5 * time.Second

// alive is the watchdog's question: can the locks be had that every answer needs.
// It asks nobody in the DNS, and counts as no answer.
func (d *daemon) alive() bool {
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_, _ = d.engine.Show("watchdog.invalid") // RFC 6761 §6.4: a name that is nobody's
		d.socketmap.Conns()
	}()
	select {
	case <-answered:
		return true
	case <-time.After(watchdogPatience):
		return false
	}
}

// readiness is what /readyz and healthcheck tell. Only a socket or a store that
// is not open makes the daemon unready; all else is detail.
type readiness struct {
	Ready  bool     `json:"ready"`
	Detail []string `json:"detail"`
}

// needed: a milter or policy delegation that nobody has asked for, and whose default
// address somebody else has, is no reason to call the daemon unready.
func (d *daemon) needed(service string) bool {
	switch service {
	case "milter":
		return d.config().Milter.Asked
	case "delegation":
		return d.config().Delegation.Asked
	}
	return true
}

func (d *daemon) readiness() readiness {
	detail, grave := d.sockets.trouble(d.needed)
	r := readiness{Detail: detail, Ready: !grave}
	if err := d.store.Err(); err != nil {
		r.Detail = append(r.Detail, "store: "+err.Error())
	}
	if err := d.book.Err(); err != nil {
		r.Detail = append(r.Detail, "ledger: "+err.Error())
	}
	if suspended, why := d.resolver.Suspended(); suspended && d.config().DANEMode() != policy.ModeOff {
		r.Detail = append(r.Detail, "DANE is out of action: "+why)
	}
	r.Detail = append(r.Detail, d.postfix.routing.detail()...)
	r.Detail = orEmpty(append(r.Detail, d.postfix.warnings()...))
	slices.Sort(r.Detail)
	return r
}
