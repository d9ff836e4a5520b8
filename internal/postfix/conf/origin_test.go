package conf

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSnapshot_Complete(t *testing.T) {
	known, unknown := &Snapshot{Origin: "lab.test"}, (*Snapshot)(nil)
	for _, tt := range []struct{ address, want, unknown string }{
		{"", "", ""},
		{"news@lab.test", "news@lab.test", "news@lab.test"},
		{"a%b@lab.test", "a%b@lab.test", "a%b@lab.test"},
		{"a!b@lab.test", "a!b@lab.test", "a!b@lab.test"},
		{"news", "news@lab.test", "news"},
		{"news%lab.test", "news@lab.test", "news@lab.test"},
		{"news%x.test%lab.test", "news%x.test@lab.test", "news%x.test@lab.test"},
		{"lab.test!news", "news@lab.test", "news@lab.test"},
		{"lab.test!x.test!news", "x.test!news@lab.test", "x.test!news@lab.test"},
		{"lab.test!news%x.test", "news%x.test@lab.test", "news%x.test@lab.test"},
	} {
		if got := known.Complete(tt.address); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.address, got, tt.want)
		}
		if got := unknown.Complete(tt.address); got != tt.unknown {
			t.Errorf("%q without Postfix: %q, want %q", tt.address, got, tt.unknown)
		}
	}
}

func TestReadOrigin(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mailname")
	if err := os.WriteFile(file, []byte(" mail.lab.test \nother.test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for myorigin, want := range map[string]string{
		"lab.test": "lab.test", file: "mail.lab.test", file + ".absent": "", "": "",
	} {
		if got := readOrigin(myorigin); got != want {
			t.Errorf("%q: %q, want %q", myorigin, got, want)
		}
	}
}
