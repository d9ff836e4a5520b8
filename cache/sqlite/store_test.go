package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/cache/cachetest"
	"github.com/postseal/postseal/cache/sqlite"
)

func TestStoreKeepsTheContract(t *testing.T) {
	var path string
	cachetest.Run(t, func(t *testing.T) cache.Store {
		path = filepath.Join(t.TempDir(), "postseal.db")
		return open(t, path)
	}, func(t *testing.T) cache.Store { return open(t, path) })
}

func open(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
