//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Prepare does what has to be done outside the laboratory, where the module cache is: it finds the folder of root file
// systems and builds postseal, unless [RootsVariable] and [BinaryVariable] name them. The caller runs cleanup at the
// end.
func Prepare() (cleanup func() error, err error) {
	cleanup = func() error { return nil }
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return cleanup, fmt.Errorf("finding the module: %w", err)
	}
	module := strings.TrimSpace(string(out))
	if os.Getenv(RootsVariable) == "" {
		if err := os.Setenv(RootsVariable, filepath.Join(module, ".roots")); err != nil {
			return cleanup, err
		}
	}
	if os.Getenv(BinaryVariable) != "" {
		return cleanup, nil
	}
	dir, err := os.MkdirTemp("", "postseal-lab")
	if err != nil {
		return cleanup, err
	}
	cleanup = func() error { return os.RemoveAll(dir) }
	binary := filepath.Join(dir, "postseal")
	if out, err := exec.Command("go", "build", "-o", binary, filepath.Join(module, "cmd/postseal")).CombinedOutput(); err != nil {
		return cleanup, fmt.Errorf("building postseal: %w: %s", err, out)
	}
	return cleanup, os.Setenv(BinaryVariable, binary)
}
