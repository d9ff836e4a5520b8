package conf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// Errors of Read. They are wrapped: the kind first, the cause second.
var (
	// ErrNoPostfix: there is no postconf or no main.cf, as in a container of our
	// own. The caller assumes nothing and says so.
	ErrNoPostfix = errors.New("postfix/conf: no Postfix on this host")
	// ErrUnreadable: postconf is there and failed, or answered what cannot be
	// read. The caller keeps what it knew, and says so.
	ErrUnreadable = errors.New("postfix/conf: the configuration cannot be read")
)

// Reader reads the configuration of one Postfix instance. The zero value reads
// the default instance and finds no service that asks us. The fields must not
// change once it is in use; its methods may be called at once.
type Reader struct {
	// Postconf is the program; empty: looked for in PATH, /usr/sbin and
	// /usr/local/sbin.
	Postconf string
	// ConfigDir is the instance's config_directory; empty: MAIL_CONFIG, then
	// Postfix's own default.
	ConfigDir string
	// Endpoints are our socketmap's sockets in Postfix notation:
	// "inet:127.0.0.1:8463", "unix:/run/postseal/socketmap".
	Endpoints []string
	// Logger is told at level debug what was read; nil: nobody.
	Logger *slog.Logger
}

// place is where a Postfix instance lives.
type place struct{ postconf, dir string }

// locate finds postconf and the configuration directory. What could be found is
// returned beside the error too.
func (r *Reader) locate(ctx context.Context) (place, error) {
	var p place
	for _, path := range r.candidates() {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			p.postconf = path
			break
		}
	}
	if p.postconf == "" {
		return p, fmt.Errorf("%w: no postconf in %s", ErrNoPostfix, strings.Join(r.candidates(), ", "))
	}
	p.dir = r.ConfigDir
	if p.dir == "" {
		p.dir = os.Getenv("MAIL_CONFIG")
	}
	if p.dir == "" {
		out, err := p.run(ctx, "-dh", "config_directory")
		if err != nil {
			return p, err
		}
		p.dir = strings.TrimSpace(out)
	}
	if _, err := os.Stat(filepath.Join(p.dir, "main.cf")); errors.Is(err, fs.ErrNotExist) {
		return p, fmt.Errorf("%w: %w", ErrNoPostfix, err)
	}
	return p, nil
}

// candidates are the paths at which postconf may be.
func (r *Reader) candidates() []string {
	if r.Postconf != "" {
		return []string{r.Postconf}
	}
	var paths []string
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin") {
		// A relative folder in PATH is whoever's the working directory is.
		if path := filepath.Join(dir, "postconf"); filepath.IsAbs(dir) && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths
}

// Read asks postconf for everything and takes at most 30 seconds. The errors
// are ErrNoPostfix and ErrUnreadable.
func (r *Reader) Read(ctx context.Context) (*Snapshot, error) {
	s, _, err := r.read(ctx)
	return s, err
}

func (r *Reader) read(ctx context.Context) (*Snapshot, place, error) {
	ctx, cancel := context.WithTimeout(ctx, readDeadline)
	defer cancel()
	began := time.Now()
	p, err := r.locate(ctx)
	if err != nil {
		return nil, p, err
	}
	s, err := r.snapshot(ctx, p)
	if err != nil {
		return nil, p, err
	}
	if r.Logger != nil {
		r.Logger.Debug("postfix configuration read", "config_directory", s.ConfigDir, "version", s.Version.String(),
			"services", len(s.Services), "asking", len(s.Ours()), "took", time.Since(began))
	}
	return s, p, nil
}

func (r *Reader) snapshot(ctx context.Context, p place) (*Snapshot, error) {
	out, err := p.run(ctx, slices.Concat([]string{"-c", p.dir, "-x"}, parameters())...)
	if err != nil {
		return nil, err
	}
	main := parseParams(out)
	if main["mail_version"] == "" {
		return nil, fmt.Errorf("%w: postconf told no mail_version", ErrUnreadable)
	}
	s := &Snapshot{ConfigDir: p.dir, QueueDirectory: main["queue_directory"], DaemonDirectory: main["daemon_directory"], Main: main, ReadAt: time.Now(),
		endpoints: r.Endpoints, postmap: filepath.Join(filepath.Dir(p.postconf), "postmap")}
	// A version in a form of its own stays unknown: nothing is assumed of it.
	s.Version, _ = tlspolicy.ParseVersion(main["mail_version"])
	fields, err := p.run(ctx, "-c", p.dir, "-F")
	if err != nil {
		return nil, err
	}
	overrides, err := p.run(ctx, "-c", p.dir, "-P")
	if err != nil {
		return nil, err
	}
	types, err := p.run(ctx, "-c", p.dir, "-m")
	if err != nil {
		return nil, err
	}
	s.tableTypes, s.Origin = strings.Fields(types), readOrigin(main["myorigin"])
	if err := s.readServices(ctx, p, master(fields, overrides, main["compatibility_level"] == "0")); err != nil {
		return nil, err
	}
	for _, sv := range s.Services {
		sv.findOurs(r.Endpoints, s.QueueDirectory)
	}
	s.readFiles()
	return s, nil
}

// readServices fills the services' parameters: main.cf's, or what postconf makes
// of them with the service's -o options.
func (s *Snapshot) readServices(ctx context.Context, p place, services []*Service) error {
	if len(services) > maxServices {
		return fmt.Errorf("%w: %d services run smtp(8), more than %d", ErrUnreadable, len(services), maxServices)
	}
	known := map[string]map[string]string{"": s.Main}
	for _, sv := range services {
		options := sv.options()
		key := strings.Join(options, "\x00")
		if known[key] == nil {
			out, err := p.run(ctx, slices.Concat([]string{"-c", p.dir, "-x"}, options, parameters())...)
			if err != nil {
				return err
			}
			known[key] = parseParams(out)
		}
		sv.Params = known[key]
	}
	s.Services = services
	return nil
}

// global are the parameters that do not belong to a service.
var global = []string{"mail_version", "compatibility_level", "queue_directory", "daemon_directory", "myorigin",
	"disable_dns_lookups", "ignore_mx_lookup_error", "tls_append_default_CA", "socketmap_max_reply_size", "proxy_read_maps", "inet_protocols"}

// routing are those by which trivial-rewrite(8) finds where mail goes.
var routing = []string{"relayhost", "transport_maps", "default_transport", "relay_transport", "local_transport", "virtual_transport",
	"mydestination", "virtual_alias_domains", "virtual_mailbox_domains", "relay_domains", "parent_domain_matches_subdomains",
	"sender_dependent_relayhost_maps", "sender_dependent_default_transport_maps"}

// perClient are those of which lmtp(8) has its own, with another first letter.
var perClient = []string{"tls_security_level", "use_tls", "enforce_tls", "tls_enforce_peername", "tls_policy_maps",
	"tls_CAfile", "tls_CApath", "tls_trust_anchor_file", "dns_support_level", "host_lookup", "dns_resolver_options",
	"tls_enforce_sts_mx_patterns", "tls_dane_insecure_mx_policy", "tls_connection_reuse", "connection_cache_on_demand",
	"fallback_relay", "mx_address_limit", "tls_mandatory_protocols", "tls_protocols", "tls_servername", "tls_wrappermode", "tls_loglevel",
	"helo_name", "bind_address", "bind_address6", "tls_verify_cert_match", "tls_secure_cert_match", "tls_fingerprint_cert_match"}

// parameters are all that postconf is asked for, in a fixed order. It leaves
// out the ones that its version does not have.
func parameters() []string {
	names := slices.Concat(global, routing)
	for _, n := range perClient {
		names = append(names, "smtp_"+n)
	}
	for _, n := range perClient {
		names = append(names, "lmtp_"+n)
	}
	return names
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
