package ledger_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postseal/postseal/cache/sqlite"
	"github.com/postseal/postseal/internal/ledger"
)

const childVariable = "POSTSEAL_LEDGER_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childVariable); path != "" {
		if err := writeForEver(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// writeForEver prints the number of each destination after it was written.
func writeForEver(path string) error {
	store, err := sqlite.Open(context.Background(), sqlite.Config{Path: path, Name: "ledger"})
	if err != nil {
		return err
	}
	l := ledger.New(ledger.Config{Store: store})
	for i := 0; ; i++ {
		d := fmt.Sprintf("d%d.test", i)
		l.Answered(d, contract, "encrypt")
		l.Refused(d)
		if err := l.Flush(context.Background()); err != nil {
			return err
		}
		fmt.Println(i)
	}
}

func TestLedger_KillMinusNine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env, child.Stderr = append(os.Environ(), childVariable+"="+path), os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	promised := 0
	for lines := bufio.NewScanner(out); lines.Scan(); promised++ {
		if promised == 50 {
			_ = child.Process.Kill()
		}
	}
	_ = child.Wait()
	if promised < 50 {
		t.Fatalf("the child wrote %d destinations", promised)
	}
	// As the command line does while no daemon runs: nothing is written.
	store, err := sqlite.OpenReadOnly(t.Context(), sqlite.Config{Path: path, Name: "ledger"})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	all := entries(t, store, time.Time{})
	if len(all) < promised {
		t.Errorf("%d destinations, %d were promised", len(all), promised)
	}
	for _, e := range all {
		if e.Count.Refused != 1 || len(e.Changes) != 1 {
			t.Errorf("half a commit: %+v", e)
		}
	}
}

// A damaged file is moved aside, loudly, and evidence is kept again.
func TestLedger_Damage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("no database at all ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.OpenReadOnly(t.Context(), sqlite.Config{Path: path}); err == nil {
		t.Error("the command line took it for a ledger")
	}
	var log strings.Builder
	store, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, Name: "ledger", Loss: "evidence of the past is lost", Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	l := ledger.New(ledger.Config{Store: store})
	l.Answered("partner.test", contract, "encrypt")
	if b, err := l.Read(t.Context(), time.Time{}); err != nil || len(b.Entries) != 1 || l.Err() != nil {
		t.Errorf("%v, %v, %+v", err, l.Err(), b)
	}
	if !strings.Contains(log.String(), "the ledger file was damaged and has been moved aside; evidence of the past is lost") {
		t.Error(log.String())
	}
	if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) != 1 {
		t.Errorf("moved aside: %q", aside)
	}
}

// A record that is not understood is told and begins anew, and hides no other.
func TestLedger_UnreadableRecord(t *testing.T) {
	store, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "ledger.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	l := ledger.New(ledger.Config{Store: store})
	for _, d := range []string{"a.test", "b.test"} {
		l.Answered(d, contract, "encrypt")
	}
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := store.Get(t.Context(), "ledger-destination", "a.test")
	if err != nil {
		t.Fatal(err)
	}
	r.Value = []byte(`{"name":`)
	if err := store.Put(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if b, err := l.Read(t.Context(), time.Time{}); err != nil || b.Unreadable != 1 || len(b.Entries) != 1 || b.Entries[0].Name != "b.test" {
		t.Errorf("%v, %+v", err, b)
	}
	l.Answered("a.test", contract, "secure")
	if b, err := l.Read(t.Context(), time.Time{}); err != nil || b.Unreadable != 0 || len(b.Entries) != 2 || b.Entries[0].Level != "secure" {
		t.Errorf("%v, %+v", err, b)
	}
}

// Without a file there is nothing to report from.
func TestLedger_NoFile(t *testing.T) {
	_, err := sqlite.OpenReadOnly(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "ledger.db"), Name: "ledger"})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "there is no ledger yet") {
		t.Error(err)
	}
}
