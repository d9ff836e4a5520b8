package systemd

import (
	"errors"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	long := "/run/" + strings.Repeat("x", 103)
	for _, tc := range []struct{ in, network, address string }{
		{"inet:127.0.0.1:8463", "tcp", "127.0.0.1:8463"},
		{"inet:[::1]:8463", "tcp", "[::1]:8463"},
		{"inet:localhost:8463", "tcp", "localhost:8463"},
		{"inet:0.0.0.0:0", "tcp", "0.0.0.0:0"},
		{"inet:[fe80::1%eth0]:25", "tcp", "[fe80::1%eth0]:25"},
		{"inet:localhost:smtp", "tcp", "localhost:25"},
		{"inet:127.0.0.1:08463", "tcp", "127.0.0.1:8463"},
		{"unix:/run/postseal/map.sock", "unix", "/run/postseal/map.sock"},
		{"unix:/run//postseal/../x:y", "unix", "/run/x:y"},
		{"unix:" + long[:107], "unix", long[:107]},

		{"", "", ""},
		{"inet", "", ""},
		{"127.0.0.1:8463", "", ""},
		{"tcp:127.0.0.1:8463", "", ""},
		{"INET:127.0.0.1:8463", "", ""},
		{"inet:8463", "", ""},
		{"inet::8463", "", ""},
		{"inet:::1:8463", "", ""},
		{"inet:127.0.0.1", "", ""},
		{"inet:127.0.0.1:", "", ""},
		{"inet:127.0.0.1:65536", "", ""},
		{"inet:127.0.0.1:-1", "", ""},
		{"inet:127.0.0.1:nonesuch", "", ""},
		{"inet:127.0.0.256:1", "", ""},
		{"inet:127.0.1:1", "", ""},
		{"inet:[::g]:1", "", ""},
		{"inet:a b:1", "", ""},
		{"unix:", "", ""},
		{"unix:postseal/sock", "", ""},
		{"unix:/run/postseal/", "", ""},
		{"unix:/.", "", ""},
		{"unix:/run/a\x00b", "", ""},
		{"unix:" + long, "", ""},
	} {
		got, err := ParseAddress(tc.in)
		if want := (Address{tc.network, tc.address}); got != want {
			t.Errorf("%q: got %v, %v, want %v", tc.in, got, err, want)
		}
		if tc.network == "" && (!errors.Is(err, ErrAddress) || !strings.Contains(err.Error(), `"`)) {
			t.Errorf("%q: error %v, want ErrAddress that quotes it", tc.in, err)
		}
		if tc.network != "" && err != nil {
			t.Errorf("%q: %v", tc.in, err)
		}
	}
	_, err := ParseAddress("unix:postseal/sock")
	if err == nil || !strings.Contains(err.Error(), `must begin with "/"`) {
		t.Errorf("relative path: %v", err)
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{"inet:127.0.0.1:8463", "inet:[::1]:1", "unix:/run/x", "inet:h:1", "inet:", "unix:"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			if a != (Address{}) || !errors.Is(err, ErrAddress) {
				t.Fatalf("%q: %v beside %v", s, a, err)
			}
			return
		}
		again, err := ParseAddress(a.String())
		if err != nil || again != a {
			t.Fatalf("%q: %v became %v, %v", s, a, again, err)
		}
	})
}

func TestParseMode(t *testing.T) {
	for in, want := range map[string]int{"0660": 0o660, "666": 0o666, "0": 0, "0777": 0o777, "": -1, "0o660": -1, "1777": -1, "0668": -1, "-1": -1, "u=rw": -1} {
		got, err := ParseMode(in)
		if want < 0 {
			if !errors.Is(err, ErrAddress) {
				t.Errorf("%q: %v, %v, want an error", in, got, err)
			}
		} else if err != nil || int(got) != want {
			t.Errorf("%q: %v, %v, want %o", in, got, err, want)
		}
	}
}
