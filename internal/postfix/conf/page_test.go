package conf

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// docs/postfix-checks.md has a row for every id that users are shown, and no other.
func TestPageHasEveryCheck(t *testing.T) {
	page, err := os.ReadFile("../../../docs/postfix-checks.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, m := range regexp.MustCompile(`(?m)^\| (T[0-9]{2}) \|(?: [^|\n]+ \|){4}$`).FindAllSubmatch(page, -1) {
		rows = append(rows, string(m[1]))
	}
	ids := []string{notAskingID, sendersID}
	for _, c := range checks {
		ids = append(ids, c.id)
	}
	slices.Sort(ids)
	if ids = slices.Compact(ids); !slices.Equal(rows, ids) {
		t.Errorf("rows of the page %q\nids of the checks %q", rows, ids)
	}
}

func TestT21_FixNamesOneOfOurSockets(t *testing.T) {
	const unix = "unix:/var/spool/postfix/postseal/socketmap"
	for _, tt := range []struct {
		endpoints []string
		chroot    bool
		maps      string
		want      string
	}{
		{[]string{unix, "inet:127.0.0.1:8463"}, true, "", "postconf -e 'smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8463:postseal'"},
		{[]string{"inet:[::]:8463"}, false, "hash:/x", "postconf -e 'smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8463:postseal, hash:/x'"},
		{[]string{unix}, true, "", "postconf -e 'smtp_tls_policy_maps = socketmap:unix:postseal/socketmap:postseal'"},
		{[]string{"unix:/run/postseal/socketmap"}, true, "", "postconf -e 'smtp_tls_policy_maps = proxy:socketmap:unix:/run/postseal/socketmap:postseal'"},
		{[]string{"unix:/run/postseal/socketmap"}, false, "", "postconf -e 'smtp_tls_policy_maps = socketmap:unix:/run/postseal/socketmap:postseal'"},
		{nil, false, "", "let postseal listen, under [socketmap] in postseal.toml"},
	} {
		s := snapshot("3.11.7", params("smtp_tls_policy_maps", tt.maps))
		s.endpoints, s.Services[0].Chroot = tt.endpoints, tt.chroot
		s.Services[0].UsesOurMap = false
		if p := s.Problems(Wanted{Floor: "inherit"}); len(p) != 1 || p[0].ID != "T21" || p[0].Severe || p[0].Fix != tt.want {
			t.Errorf("%v: %+v\nwant %s", tt.endpoints, p, tt.want)
		}
	}
}
