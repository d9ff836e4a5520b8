package dmarc

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
)

var errServfail = errors.New("SERVFAIL")

// world is a DNS of TXT records. A name exists when it or a name below it is
// listed; "SERVFAIL" as the record is no answer.
type world struct {
	records map[string][]string
	mu      sync.Mutex
	asked   []string
}

// zone reads lines of "name record"; a name without a record exists only.
func zone(lines ...string) *world {
	w := &world{records: map[string][]string{}}
	for _, line := range lines {
		name, record, _ := strings.Cut(line, " ")
		w.records[name] = append(w.records[name], record)
	}
	return w
}

func (w *world) txt(_ context.Context, name string) ([]string, bool, error) {
	w.mu.Lock()
	w.asked = append(w.asked, name)
	w.mu.Unlock()
	var found []string
	for _, r := range w.records[name] {
		switch r {
		case "SERVFAIL":
			return nil, false, errServfail
		case "":
		default:
			found = append(found, r)
		}
	}
	exists := false
	for other := range w.records {
		exists = exists || other == name || strings.HasSuffix(other, "."+name)
	}
	return found, !exists, nil
}

func (w *world) discoverer() *Discoverer { return &Discoverer{TXT: w.txt} }

func (w *world) wantAsked(t *testing.T, names ...string) {
	t.Helper()
	if got, want := strings.Join(w.asked, " "), strings.Join(names, " "); got != want {
		t.Errorf("asked for %s\nwant %s", got, want)
	}
}
