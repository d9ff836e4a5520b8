package conf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
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
)

// postconf runs `postconf args…` and gives its standard output. Warnings about
// other parameters, on standard error, do not matter while it succeeds.
func (p place) run(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandDeadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.postconf, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	if dir := os.Getenv("MAIL_CONFIG"); dir != "" {
		cmd.Env = append(cmd.Env, "MAIL_CONFIG="+dir)
	}
	cmd.Dir = "/"
	cmd.WaitDelay = killDelay
	stdout, stderr := bounded{most: maxOutput}, bounded{most: maxOutput}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%w: %w", ErrNoPostfix, err)
	case ctx.Err() != nil:
		return "", fmt.Errorf("%w: postconf %s: no answer: %w", ErrUnreadable, args[len(args)-1], ctx.Err())
	case stdout.over || stderr.over:
		return "", fmt.Errorf("%w: postconf answered more than %d bytes", ErrUnreadable, maxOutput)
	case err != nil:
		said := stderr.kept
		return "", fmt.Errorf("%w: postconf: %w: %q", ErrUnreadable, err, said[max(0, len(said)-maxComplaint):])
	}
	return string(stdout.kept), nil
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
