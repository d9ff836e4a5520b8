package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/cache/cachetest"
	"github.com/postseal/postseal/cache/sqlite"
)

func TestStoreKeepsTheContract(t *testing.T) {
	dir := t.TempDir()
	ofThisTest := func(t *testing.T) cache.Store { return open(t, filepath.Join(dir, filepath.Base(t.Name())+".db")) }
	cachetest.Run(t, ofThisTest, ofThisTest)
}

func open(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
