//go:build linux

package lab

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// RootsVariable names the folder of root file systems that e2e/roots.sh makes.
const RootsVariable = "POSTSEAL_ROOTS"

// suites are the Debian suites whose Postfix is tested beside the host's own.
var suites = []string{"trixie", "sid"}

// Roots lists the root file systems that are present.
func Roots() []string {
	var roots []string
	for _, suite := range suites {
		if root, ok := rootOf(suite); ok {
			roots = append(roots, root)
		}
	}
	return roots
}

// MissingRoots lists the suites whose root file system is not present.
func MissingRoots() []string {
	return slices.DeleteFunc(slices.Clone(suites), func(suite string) bool {
		_, ok := rootOf(suite)
		return ok
	})
}

func rootOf(suite string) (root string, ok bool) {
	root = filepath.Join(os.Getenv(RootsVariable), suite)
	_, err := os.Stat(filepath.Join(root, "usr/sbin/postfix"))
	return root, err == nil && filepath.IsAbs(root)
}

// Version is a Postfix version: 3.10.13, or 3.12-20260821 for a snapshot, which counts as below 3.12.0.
type Version struct {
	Major, Minor, Patch int
	text                string
}

// ParseVersion reads the value of mail_version, or a two-part number such as 3.10.
func ParseVersion(text string) (Version, error) {
	v := Version{text: text}
	number, _, snapshot := strings.Cut(text, "-")
	parts := strings.Split(number, ".")
	fields := []*int{&v.Major, &v.Minor, &v.Patch}
	if len(parts) < 2 || len(parts) > len(fields) {
		return v, fmt.Errorf("postfix version %q: want MAJOR.MINOR.PATCH", text)
	}
	for i, part := range parts {
		n, err := strconv.Atoi(part)
		if err != nil {
			return v, fmt.Errorf("postfix version %q: %w", text, err)
		}
		*fields[i] = n
	}
	if snapshot {
		v.Patch = -1
	}
	return v, nil
}

func (v Version) String() string { return v.text }

// Compare is negative when v is older than w.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor), cmp.Compare(v.Patch, w.Patch))
}

// Satisfies judges a condition such as ">=3.10.5" or "<3.10". Without an operator the version must begin with the
// text: "3.7" is every 3.7.x.
func (v Version) Satisfies(condition string) (bool, error) {
	at := strings.IndexFunc(condition, func(r rune) bool { return r >= '0' && r <= '9' })
	if at < 0 {
		return false, fmt.Errorf("version condition %q: no number", condition)
	}
	operator, number := condition[:at], condition[at:]
	w, err := ParseVersion(number)
	if err != nil {
		return false, err
	}
	switch operator {
	case "":
		return v.text == number || strings.HasPrefix(v.text, number+"."), nil
	case ">=":
		return v.Compare(w) >= 0, nil
	case "<":
		return v.Compare(w) < 0, nil
	default:
		return false, fmt.Errorf("version condition %q: operator %q is not >= or <", condition, operator)
	}
}

// Installation is one installed Postfix.
type Installation struct {
	Root      string // "/" is the host's own
	Version   Version
	owner     int // uid of user postfix there
	dropGroup int // gid of group postdrop there
}

// Installations finds the host's Postfix and those of [Roots]. Users and groups have other numbers in each root.
func Installations() ([]Installation, error) {
	var found []Installation
	for _, root := range append([]string{"/"}, Roots()...) {
		if _, err := os.Stat(filepath.Join(root, "usr/sbin/postfix")); errors.Is(err, os.ErrNotExist) {
			continue
		}
		in, err := inspect(root)
		if err != nil {
			return nil, err
		}
		found = append(found, in)
	}
	return found, nil
}

func inspect(root string) (Installation, error) {
	in := Installation{Root: root}
	out, err := exec.Command("chroot", root, "postconf", "-d", "-h", "mail_version").Output()
	if err != nil {
		return in, fmt.Errorf("asking the postfix in %s for its version: %w", root, err)
	}
	if in.Version, err = ParseVersion(strings.TrimSpace(string(out))); err != nil {
		return in, err
	}
	if in.owner, err = lookUpID(filepath.Join(root, "etc/passwd"), "postfix"); err != nil {
		return in, err
	}
	in.dropGroup, err = lookUpID(filepath.Join(root, "etc/group"), "postdrop")
	return in, err
}

// lookUpID reads the number of a user or group: the third field of passwd(5) and group(5).
func lookUpID(file, name string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(line, ":")
		if len(fields) > 2 && fields[0] == name {
			return strconv.Atoi(fields[2])
		}
	}
	return 0, fmt.Errorf("%s: no %s", file, name)
}
