package main

import (
	"cmp"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/internal/resolver"
	"github.com/postseal/postseal/internal/sender"
	"github.com/postseal/postseal/milter"
	"github.com/postseal/postseal/policy"
)

// defaultConfigPath is read when --config is not given; it need not exist.
const defaultConfigPath = "/etc/postseal/postseal.toml"

// Config is the configuration: each field is the key or
// section of the same name. It is immutable once loaded.
type Config struct {
	// Path is the file that was read; empty for the built-in defaults.
	Path string
	// Mode is enforce or monitor, for everything.
	Mode    policy.Mode
	Include []string

	Socketmap  SocketmapConfig
	Delegation DelegationConfig
	Milter     MilterConfig
	HTTP       ListenConfig
	Control    ControlConfig
	Resolver   ResolverConfig
	TLSPolicy  TLSPolicyConfig
	DANE       DANEConfig
	MTASTS     MTASTSConfig
	Cache      StoreConfig
	Ledger     StoreConfig
	Senders    SendersConfig
	Reach      ReachConfig

	// Rules are those of the file, then those of the included files, then those
	// of rule_map. Never nil.
	Rules *policy.Rules
}

// ListenConfig is where a service listens. An empty list turns it off.
type ListenConfig struct {
	Listen    []string    // "inet:HOST:PORT", "unix:/absolute/path"
	UnixMode  fs.FileMode // of unix: sockets
	UnixGroup string      // their group; empty: the daemon's own
	Asked     bool        // the file says where to listen; else it is the default
}

// SocketmapConfig is [socketmap].
type SocketmapConfig struct {
	ListenConfig
	Drain time.Duration // 0 to 1 h
}

// DelegationConfig is [delegation].
type DelegationConfig struct {
	ListenConfig
	Deadline time.Duration // 100 ms to 90 s
}

// ControlConfig is [control]. An empty Listen turns the socket off.
type ControlConfig struct {
	Listen    string // "unix:/absolute/path"
	UnixMode  fs.FileMode
	UnixGroup string
}

// ResolverConfig is [resolver].
type ResolverConfig struct {
	Servers []netip.AddrPort // empty: /etc/resolv.conf
	TrustAD resolver.TrustAD
	Probe   string // "TYPE:NAME"; empty: not probed
}

// TLSPolicyConfig is [tls_policy].
type TLSPolicyConfig struct {
	Floor policy.Floor
	// PostfixVersion is not Known for "auto".
	PostfixVersion tlspolicy.Version
	RuleMap        string // absolute, or relative to the folder of the configuration
	Deadline       time.Duration
}

// DANEConfig is [dane].
type DANEConfig struct {
	Mode policy.Mode // its own; Config.DANEMode is the one that counts
}

// MTASTSConfig is [mta_sts].
type MTASTSConfig struct {
	Mode          policy.Mode // its own; Config.MTASTSMode is the one that counts
	CAFile        string
	AllowNetworks []netip.Prefix
	Proxy         string // a URL; may hold a password
	FetchTimeout  time.Duration
}

// StoreConfig is [cache] or [ledger].
type StoreConfig struct {
	Path string // absolute
}

// SendersConfig is [senders] with its [[senders.allow]].
type SendersConfig struct {
	sender.Config
	Egress []netip.Addr // addresses that mail leaves from

	// Policy is made of the Config. Never nil.
	Policy *sender.Policy
}

// MilterConfig is [milter] with [milter.actions] and [milter.breaker].
type MilterConfig struct {
	ListenConfig
	Action    milter.Action            // for every finding of class fail
	AddHeader bool                     // Authentication-Results
	Actions   map[string]milter.Action // by finding, for those that have an action of their own
	Breaker   milter.Breaker
}

// DANEMode is the weaker of the global and the own mode (CMB-16).
func (c *Config) DANEMode() policy.Mode { return max(c.Mode, c.DANE.Mode) }

// MTASTSMode is the weaker of the global and the own mode (CMB-16).
func (c *Config) MTASTSMode() policy.Mode { return max(c.Mode, c.MTASTS.Mode) }

// RuleMapPath is where rule_map is, empty without one.
func (c *Config) RuleMapPath() string { return c.relative(c.TLSPolicy.RuleMap) }

// CAFilePath is where ca_file is, empty without one.
func (c *Config) CAFilePath() string { return c.relative(c.MTASTS.CAFile) }

// relative resolves a path that was written in the configuration.
func (c *Config) relative(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(c.Path), path)
}

// environment is what the defaults depend on besides the file.
type environment struct {
	getenv func(string) string
	uid    int // effective
}

// folders are where state and sockets live: what systemd made for us, the XDG
// folders of an ordinary user, or the usual ones.
func (e environment) folders() (state, run string) {
	state, run = "/var/lib/postseal", "/run/postseal"
	if e.uid != 0 {
		home := e.absolute("HOME", "")
		if home != "" {
			home = filepath.Join(home, ".local", "state")
		}
		if s := e.absolute("XDG_STATE_HOME", home); s != "" {
			state = filepath.Join(s, "postseal")
			// Without a runtime folder the sockets live beside the state: a
			// folder in /tmp could be made first by somebody else.
			run = state
		}
		if r := e.absolute("XDG_RUNTIME_DIR", ""); r != "" {
			run = filepath.Join(r, "postseal")
		}
	}
	return e.first("STATE_DIRECTORY", state), e.first("RUNTIME_DIRECTORY", run)
}

// absolute reads a variable that must hold an absolute path (XDG Base Directory
// Specification: ignored otherwise).
func (e environment) absolute(name, otherwise string) string {
	if v := e.getenv(name); filepath.IsAbs(v) {
		return filepath.Clean(v)
	}
	return otherwise
}

// first reads a list that systemd sets; systemd.exec(5): separated by colons.
func (e environment) first(name, otherwise string) string {
	v, _, _ := strings.Cut(e.getenv(name), ":")
	return cmp.Or(v, otherwise)
}

// defaults is the configuration without a file.
func defaults(e environment) *Config {
	state, run := e.folders()
	none, _ := policy.NewRules(nil)
	open := func(addresses ...string) ListenConfig {
		// The sockets answer whoever can reach loopback too.
		return ListenConfig{Listen: addresses, UnixMode: 0o666}
	}
	return &Config{
		Socketmap:  SocketmapConfig{ListenConfig: open("inet:127.0.0.1:8463"), Drain: 105 * time.Second},
		Delegation: DelegationConfig{ListenConfig: open("inet:127.0.0.1:8464"), Deadline: 2 * time.Second},
		Milter:     MilterConfig{ListenConfig: open("inet:127.0.0.1:8465"), Breaker: milter.Breaker{Window: 200, Share: 0.5}},
		HTTP:       open("inet:127.0.0.1:8466"),
		Control:    ControlConfig{Listen: "unix:" + filepath.Join(run, "control.sock"), UnixMode: 0o600},
		Resolver:   ResolverConfig{Probe: "ns:."},
		TLSPolicy:  TLSPolicyConfig{Deadline: 5 * time.Second},
		MTASTS:     MTASTSConfig{FetchTimeout: time.Minute},
		Cache:      StoreConfig{Path: filepath.Join(state, "postseal.db")},
		Ledger:     StoreConfig{Path: filepath.Join(state, "ledger.db")},
		Reach:      ReachConfig{Connections: defaultConnections},
		Senders:    SendersConfig{Config: sender.Config{Outgoing: sender.DefaultOutgoing()}, Policy: new(sender.Policy)},
		Rules:      none,
	}
}
