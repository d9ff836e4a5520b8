package tlspolicy

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Version is a Postfix version, as in mail_version. The zero value stands for
// an unknown one, which is trusted with no more than the oldest supported
// version understands.
type Version struct {
	Major, Minor, Patch int
	// Suffix marks a snapshot or a candidate of the release X.Y.0 ("20260821",
	// "RC1"), which is older than it and may lack any of its features.
	Suffix string
	// Known is false for a version that nobody has told.
	Known bool
}

// oldest is the oldest supported version; it stands in for an unknown one.
var oldest = Version{Major: 3, Minor: 7, Known: true}

var versionForm = regexp.MustCompile(`^([0-9]{1,4})\.([0-9]{1,4})(?:\.([0-9]{1,4}))?(?:-([0-9A-Za-z.+~_-]{1,32}))?$`)

// ParseVersion reads "3.10.13", "3.10" (the lowest patch level), and the
// snapshots and candidates "3.12-20260821" and "3.11-RC1". What a distribution
// adds to a whole version ("3.10.13-1") means nothing.
func ParseVersion(text string) (Version, error) {
	m := versionForm.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return Version{}, fmt.Errorf("%.40q is no Postfix version: want for example \"3.7\" or \"3.10.13\"", text)
	}
	v := Version{Known: true}
	if m[3] == "" {
		v.Suffix = m[4]
	}
	for i, n := range []*int{&v.Major, &v.Minor, &v.Patch} {
		*n, _ = strconv.Atoi(m[i+1]) // digits only, or empty: zero
	}
	return v, nil
}

// String is what ParseVersion reads, "unknown" for an unknown version.
func (v Version) String() string {
	if !v.Known {
		return "unknown"
	}
	if v.Suffix != "" {
		return v.branch() + "-" + v.Suffix
	}
	return fmt.Sprintf("%s.%d", v.branch(), v.Patch)
}

// branch is the version without its patch level: "3.10".
func (v Version) branch() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// Compare orders versions by age: negative when v is older than w. An unknown
// version is older than every known one, a snapshot older than its release.
func (v Version) Compare(w Version) int {
	if !v.Known || !w.Known {
		return cmp.Compare(boolInt(v.Known), boolInt(w.Known))
	}
	if c := cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor)); c != 0 {
		return c
	}
	if v.Suffix != "" && w.Suffix != "" {
		return strings.Compare(v.Suffix, w.Suffix) // digits before letters: snapshots before candidates
	}
	return cmp.Or(cmp.Compare(boolInt(v.Suffix == ""), boolInt(w.Suffix == "")), cmp.Compare(v.Patch, w.Patch))
}

// Less tells whether v is older than w; see Compare.
func (v Version) Less(w Version) bool { return v.Compare(w) < 0 }

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// atLeast tells whether what came with major.minor.patch is there.
func (v Version) atLeast(major, minor, patch int) bool {
	if !v.Known {
		v = oldest
	}
	return !v.Less(Version{Major: major, Minor: minor, Patch: patch, Known: true})
}

// STSAttributes: policy_type, policy_domain, policy_string and mx_host_pattern
// are understood, and attributes may stand in braces. Since 3.10.0; an older
// Postfix refuses the whole line. Not assumed of an unknown version.
func (v Version) STSAttributes() bool { return v.atLeast(3, 10, 0) }

// NarrowsMX: MX hosts that match no mx_host_pattern are skipped
// (smtp_tls_enforce_sts_mx_patterns). Since 3.10.5.
func (v Version) NarrowsMX() bool {
	if v.Known && v.Major == 3 && v.Minor == 11 {
		return v.atLeast(3, 11, 0) // a snapshot of 3.11 may come before the option
	}
	return v.atLeast(3, 10, 5)
}
