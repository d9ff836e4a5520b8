//go:build linux

package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Resolver is a real unbound on 127.0.0.1:53.
type Resolver struct {
	network *Network
	dir     string
	zones   []*zone
	process *process
}

const resolverConfig = `server:
  directory: "%[1]s"
  chroot: ""
  username: ""
  pidfile: ""
  logfile: "%[1]s/unbound.log"
  use-syslog: no
  val-log-level: 2
  interface: 127.0.0.1
  access-control: 127.0.0.0/8 allow
  do-ip6: no
  do-daemonize: no
  do-not-query-localhost: no
  qname-minimisation: no
  module-config: "%[2]s"
  trust-anchor-file: "%[1]s/anchors"
  local-zone: "test." nodefault
  cache-max-ttl: 1
  cache-max-negative-ttl: 1
  val-bogus-ttl: 1
  infra-host-ttl: 1
  msg-cache-size: 1m
  rrset-cache-size: 1m
  num-threads: 1
remote-control:
  control-enable: no
`

// Start starts unbound with an empty cache; without validation it never sets AD.
func (r *Resolver) Start(ctx context.Context, validating bool) error {
	modules := "iterator"
	if validating {
		modules = "validator iterator"
	}
	var config, anchors strings.Builder
	fmt.Fprintf(&config, resolverConfig, r.dir, modules)
	at := strings.Replace(authorityAddress, ":", "@", 1)
	for _, z := range r.zones {
		fmt.Fprintf(&config, "stub-zone:\n  name: %q\n  stub-addr: %s\n", z.name, at)
		if z.key != nil {
			fmt.Fprintln(&anchors, z.anchor())
		}
	}
	// All else is refused at once, instead of timing out on the way to a root that is not there.
	fmt.Fprintf(&config, "forward-zone:\n  name: \".\"\n  forward-addr: %s\n", at)
	if err := os.WriteFile(filepath.Join(r.dir, "anchors"), []byte(anchors.String()), 0o644); err != nil {
		return err
	}
	file := filepath.Join(r.dir, "unbound.conf")
	if err := os.WriteFile(file, []byte(config.String()), 0o644); err != nil {
		return err
	}
	process, err := startProcess(r.network, exec.Command("unbound", "-d", "-c", file), filepath.Join(r.dir, "unbound.err"))
	if err != nil {
		return err
	}
	r.process = process
	return r.network.awaitPort(ctx, "127.0.0.1:53")
}

// Stop ends unbound.
func (r *Resolver) Stop() error { return r.process.end(syscall.SIGKILL, stopDeadline) }
