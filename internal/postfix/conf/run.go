package conf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Limits of what postconf is asked and may answer.
const (
	commandDeadline = 5 * time.Second  // one postconf: 10 ms, or 2 s while main.cf is younger than that
	readDeadline    = 30 * time.Second // a whole Snapshot
	killDelay       = time.Second      // after it, pipes of a killed postconf are closed
	maxOutput       = 1 << 20          // bytes of one answer; all of main.cf is about 60 kB
	maxServices     = 500              // services that run smtp(8) with options of their own
	maxCAFile       = 16 << 20         // bytes; the system's bundle is about 220 kB
	maxComplaint    = 300              // bytes of stderr in an error
	maxListFile     = 1 << 20          // bytes of a file that a list of domains names
	maxListDepth    = 4                // such files that name each other
	maxBatch        = 200              // domains that one postmap is asked about
	maxRoutes       = 50_000           // routes that are kept
)

// run runs `postconf args…` and gives its standard output. Warnings about other
// parameters, on standard error, do not matter while it succeeds.
func (p place) run(ctx context.Context, args ...string) (string, error) {
	out, said, err := execute(ctx, p.postconf, "", args...)
	if errors.Is(err, errExit) {
		return "", fmt.Errorf("%w: postconf: %w: %q", ErrUnreadable, err, said[max(0, len(said)-maxComplaint):])
	}
	return out, err
}

// errExit: the program ran to its end, and did not exit with 0.
var errExit = errors.New("failed")

// execute runs one of Postfix's programs without a shell and gives what it wrote.
func execute(ctx context.Context, program, stdin string, args ...string) (out, said string, err error) {
	ctx, cancel := context.WithTimeout(ctx, commandDeadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	if dir := os.Getenv("MAIL_CONFIG"); dir != "" {
		cmd.Env = append(cmd.Env, "MAIL_CONFIG="+dir)
	}
	cmd.Dir = "/"
	cmd.WaitDelay = killDelay
	cmd.Stdin = strings.NewReader(stdin)
	stdout, stderr := bounded{most: maxOutput}, bounded{most: maxOutput}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	name := filepath.Base(program)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", "", fmt.Errorf("%w: %w", ErrNoPostfix, err)
	case ctx.Err() != nil:
		return "", "", fmt.Errorf("%w: %s %s: no answer: %w", ErrUnreadable, name, args[len(args)-1], ctx.Err())
	case stdout.over || stderr.over:
		return "", "", fmt.Errorf("%w: %s answered more than %d bytes", ErrUnreadable, name, maxOutput)
	case cmd.ProcessState != nil && cmd.ProcessState.ExitCode() > 0:
		err = fmt.Errorf("%w: %w", errExit, err)
	case err != nil: // not started, or killed
		err = fmt.Errorf("%w: %s: %w", ErrUnreadable, name, err)
	}
	return string(stdout.kept), string(stderr.kept), err
}

// bounded keeps the first bytes and remembers that there were more. It has no
// ReadFrom, by which io.Copy would get round the bound.
type bounded struct {
	kept []byte
	most int
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(b.kept)+len(p) > b.most {
		b.over = true
		return len(p), nil // the program goes on; its answer no longer counts
	}
	b.kept = append(b.kept, p...)
	return len(p), nil
}
