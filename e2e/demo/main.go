//go:build linux

// Demo shows what postseal changes: a dozen destinations, some of them under attack, and for each what a stock Postfix
// did with a message beside what the same Postfix did with postseal. Everything is real but the destinations: it runs in
// namespaces of its own (package lab) and touches nothing on the host. It needs root, postfix and unbound.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/postseal/postseal/e2e/lab"
)

// deadline bounds the whole demonstration, which takes a few seconds.
const deadline = 2 * time.Minute

//go:embed world.txtar
var worldArchive []byte

func main() { os.Exit(run()) }

func run() int {
	version := flag.String("postfix", "", "the Postfix to use: a version such as 3.11; default: the host's own")
	flag.Parse()
	if !lab.Inside() {
		cleanup, err := lab.Prepare()
		defer cleanup()
		if err != nil {
			return fail(err)
		}
	}
	inside, code, err := lab.Enter()
	if err != nil {
		return fail(err)
	}
	if !inside {
		return code
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := show(ctx, *version); err != nil {
		return fail(err)
	}
	return 0
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "demo:", err)
	return 2
}

// choose finds the installed Postfix of that version; the host's own comes first.
func choose(version string) (lab.Installation, error) {
	installed, err := lab.Installations()
	if err != nil {
		return lab.Installation{}, err
	}
	for _, in := range installed {
		ok, err := version == "", error(nil)
		if !ok {
			ok, err = in.Version.Satisfies(version)
		}
		if ok || err != nil {
			return in, err
		}
	}
	return lab.Installation{}, errors.New("no such Postfix is installed; e2e/roots.sh makes the newer ones")
}

func show(ctx context.Context, version string) (err error) {
	in, err := choose(version)
	if err != nil {
		return err
	}
	destinations, spec, err := readWorld(worldArchive)
	if err != nil {
		return err
	}
	world, err := lab.NewWorld(ctx, spec)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, world.Close()) }()
	if err := world.Authority.SetFault("_25._tcp.mx1.dane-broken.test", "TLSA", lab.ServFail); err != nil {
		return err
	}
	fmt.Printf("Postfix %s, a message to each of %d destinations, once as installed and once with postseal …\n\n",
		in.Version, len(destinations))
	outcomes, err := deliverAll(ctx, world, in, *spec.Postseal, destinations)
	if err != nil {
		return err
	}
	return writeTable(os.Stdout, destinations, outcomes)
}
