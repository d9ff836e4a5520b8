package mtasts

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postseal/postseal/internal/resolver/resolvertest"
)

func TestDiscover(t *testing.T) {
	for _, c := range []struct {
		name   string
		zone   string
		domain string
		asked  []string
		want   Discovery
		is     error // in Discovery.Err
		err    error
	}{
		{
			"STS001/the domain itself", `_mta-sts.ex.test 300 TXT "v=STSv1; id=1"`, "ex.test",
			[]string{"TXT _mta-sts.ex.test"}, Discovery{Record: Record{"1"}, Found: true, TTL: 5 * time.Minute}, nil, nil,
		},
		{
			"STS002/no inheritance", "_mta-sts.ex.test 300 TXT \"v=STSv1; id=1\"\nnx _mta-sts.sub.ex.test 60 TXT", "sub.ex.test",
			[]string{"TXT _mta-sts.sub.ex.test"}, Discovery{TTL: time.Minute}, nil, nil,
		},
		{
			"STS010/A-label", `_mta-sts.xn--bcher-kva.test 300 TXT "v=STSv1; id=1"`, "Bücher.test.",
			[]string{"TXT _mta-sts.xn--bcher-kva.test"}, Discovery{Record: Record{"1"}, Found: true, TTL: 5 * time.Minute}, nil, nil,
		},
		{
			"STS011/CNAME", "_mta-sts.ex.test 60 CNAME _mta-sts.hoster.test.\n_mta-sts.hoster.test 300 TXT \"v=STSv1; id=1\"", "ex.test",
			[]string{"TXT _mta-sts.ex.test"}, Discovery{Record: Record{"1"}, Found: true, TTL: time.Minute}, nil, nil,
		},
		{
			"STS012/strings joined", `_mta-sts.ex.test 300 TXT "v=STSv1; i" "d=abc"`, "ex.test",
			[]string{"TXT _mta-sts.ex.test"}, Discovery{Record: Record{"abc"}, Found: true, TTL: 5 * time.Minute}, nil, nil,
		},
		{
			"STS012/joined after the delimiter", `_mta-sts.ex.test 300 TXT "v=STSv1;" " id=a"`, "ex.test",
			[]string{"TXT _mta-sts.ex.test"}, Discovery{Record: Record{"a"}, Found: true, TTL: 5 * time.Minute}, nil, nil,
		},
		{
			"STS020/a NODATA", `nodata _mta-sts.ex.test 60 TXT`, "ex.test",
			[]string{"TXT _mta-sts.ex.test"}, Discovery{TTL: time.Minute}, nil, nil,
		},
		{
			"STS020/a other records only", `_mta-sts.ex.test 60 TXT "hello"`, "ex.test",
			[]string{"TXT _mta-sts.ex.test"}, Discovery{TTL: time.Minute}, nil, nil,
		},
		{
			"STS020/c invalid", `_mta-sts.ex.test 60 TXT "v=STSv1; id=-"`, "ex.test",
			[]string{"TXT _mta-sts.ex.test"}, Discovery{TTL: time.Minute}, ErrInvalidRecord, nil,
		},
		{
			"STS020/c several", "_mta-sts.ex.test 60 TXT \"v=STSv1; id=1\"\n_mta-sts.ex.test 60 TXT \"v=STSv1; id=2\"", "ex.test",
			[]string{"TXT _mta-sts.ex.test"}, Discovery{TTL: time.Minute}, ErrManyRecords, nil,
		},
		{
			"STS020/d SERVFAIL", `servfail _mta-sts.ex.test TXT`, "ex.test",
			[]string{"TXT _mta-sts.ex.test"}, Discovery{}, nil, ErrUnanswered,
		},
		{
			"STS011/d a CNAME loop is a resolver's error", "_mta-sts.ex.test 60 CNAME a.test.\na.test 60 CNAME _mta-sts.ex.test.", "ex.test",
			[]string{"TXT _mta-sts.ex.test"}, Discovery{}, nil, ErrUnanswered,
		},
		{"STS007/single label", "", "localhost", nil, Discovery{}, ErrCannotHavePolicy, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			dns := resolvertest.New(c.zone)
			got, err := Discover(t.Context(), dns, c.domain)
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if !errors.Is(got.Err, c.is) || (got.Err == nil) != (c.is == nil) {
				t.Errorf("Err %v, want %v", got.Err, c.is)
			}
			if got.Record != c.want.Record || got.Found != c.want.Found || got.TTL != c.want.TTL {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			if asked := dns.Asked(); !slices.Equal(asked, c.asked) {
				t.Errorf("asked %q, want %q", asked, c.asked)
			}
		})
	}
}

func TestSTS020_DiscoverEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := Discover(ctx, resolvertest.New("hang _mta-sts.ex.test TXT"), "ex.test")
	if !errors.Is(err, ErrUnanswered) || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestSTS007_CanHavePolicy(t *testing.T) {
	long := strings.Repeat("a.", 120) + "test" // 244 octets
	for domain, want := range map[string]bool{
		"ex.test":           true,
		"Ex.TEST.":          true,
		"bücher.test":       true,
		"xn--bcher-kva.com": true,
		"a_b.ex.test":       true,
		"r3--sn.ex.test":    true,
		"corp.internal":     true,
		long:                true,

		"a" + long:                        false, // _mta-sts. in front makes it 254
		"test":                            false,
		"localhost":                       false,
		"foo.localhost":                   false,
		"foo.invalid":                     false,
		"foo.onion":                       false,
		"printer.local":                   false,
		"foo.alt":                         false,
		"192.0.2.1":                       false,
		"":                                false,
		".":                               false,
		".ex.test":                        false,
		"a..b":                            false,
		"ex.test..":                       false,
		"-":                               false,
		"-a.test":                         false,
		"a-.test":                         false,
		"a b.test":                        false,
		"a/b.test":                        false,
		"a\x00.test":                      false,
		"\xff.test":                       false,
		"[192.0.2.1]":                     false,
		strings.Repeat("a", 64) + ".test": false,
	} {
		if got := CanHavePolicy(domain); got != want {
			t.Errorf("CanHavePolicy(%q) = %v", domain, got)
		}
	}
}
