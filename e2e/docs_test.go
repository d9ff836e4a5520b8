//go:build linux

package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestDocumentedFilters holds the tables that docs/encrypt-only.md gives to be pasted against those that its story proves.
func TestDocumentedFilters(t *testing.T) {
	page, err := os.ReadFile("../docs/encrypt-only.md")
	if err != nil {
		t.Fatal(err)
	}
	story, err := txtar.ParseFile("testdata/encrypt-bounce.txtar")
	if err != nil {
		t.Fatal(err)
	}
	tables := 0
	for _, file := range story.Files {
		if !strings.HasPrefix(file.Name, "files/tlsbounce") {
			continue
		}
		tables++
		if !strings.Contains(string(page), "\n```\n"+string(file.Data)+"```\n") {
			t.Errorf("the page does not have the table %s as the story does:\n%s", file.Name, file.Data)
		}
	}
	if tables != 2 {
		t.Errorf("%d tables in the story, want 2", tables)
	}
}
