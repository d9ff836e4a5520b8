package main

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/cache/sqlite"
)

// Only another daemon on the file, or a file that is not ours, keeps the daemon
// from starting; whatever else is wrong with the disk is an alarm.
func TestCCH09_OnlyAnotherDaemonEndsTheStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postseal.db")
	logger := slog.New(slog.DiscardHandler)
	first, err := openStore(t.Context(), path, logger)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Put(t.Context(), cache.Record{Kind: "policy", Key: "ex.test", Value: []byte("kept")}); err != nil {
		t.Fatal(err)
	}
	_, err = openStore(t.Context(), path, logger)
	if want := fmt.Sprintf("another postseal (process %d) has %s: stop it, or give this one a [cache] path of its own", os.Getpid(), path); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	// Without its lock the file is not written, but read.
	if err := errors.Join(os.Remove(path+".lock"), os.Mkdir(path+".lock", 0o700)); err != nil {
		t.Fatal(err)
	}
	held, err := openStore(t.Context(), path, logger)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if r, err := held.Get(t.Context(), "policy", "ex.test"); err != nil || string(r.Value) != "kept" {
		t.Errorf("%q, %v", r.Value, err)
	}
	if held.Err() == nil {
		t.Error("no alarm")
	}

	// In a folder that cannot be made there is nothing to read either.
	var log bytes.Buffer
	memory, err := openStore(t.Context(), filepath.Join(path, "postseal.db"), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	if memory.Err() == nil || !bytes.Contains(log.Bytes(), []byte("level=ERROR")) {
		t.Errorf("no alarm: %v, %s", memory.Err(), &log)
	}

	foreign := filepath.Join(t.TempDir(), "postseal.db")
	db, err := sql.Open("sqlite", foreign)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("CREATE TABLE mail (body TEXT)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(t.Context(), foreign, logger); !errors.Is(err, sqlite.ErrForeign) {
		t.Errorf("a database of something else: %v", err)
	}
}
