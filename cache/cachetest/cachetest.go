// Package cachetest is the contract of cache.Store as a test. Every
// implementation passes it, under the race detector too.
package cachetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postseal/postseal/cache"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// Run holds the stores that open makes to the contract, several at once. The call
// of open by each test makes an empty Store, which Run closes. A durable Store also
// gives reopen, which opens the records of the Store that open made for the same
// test once more, after a Close.
func Run(t *testing.T, open func(*testing.T) cache.Store, reopen ...func(*testing.T) cache.Store) {
	tests := []struct {
		name string
		test func(*testing.T, cache.Store)
	}{
		{"PutGet", testPutGet},
		{"Replace", testReplace},
		{"Delete", testDelete},
		{"Expiry", testExpiry},
		{"ExpiresInPassing", testExpiresInPassing},
		{"ValueIsCopied", testValueIsCopied},
		{"TooLarge", testTooLarge},
		{"LargestRecords", testLargest},
		{"OddKeys", testOddKeys},
		{"KindsAreApart", testKinds},
		{"All", testAll},
		{"AllStopsEarly", testAllStopsEarly},
		{"AllDuringPut", testAllDuringPut},
		{"AllAllowsCalls", testAllAllowsCalls},
		{"Context", testContext},
		{"Concurrently", testConcurrently},
		{"PutIsAtomicForReaders", testAtomicForReaders},
		{"Close", testClose},
		{"CloseDuringCalls", testCloseDuringCalls},
		{"CloseInsideAll", testCloseInsideAll},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			t.Cleanup(func() { closeOnce(t, s) })
			c.test(t, s)
		})
	}
	for _, again := range reopen {
		t.Run("Reopen", func(t *testing.T) { testReopen(t, open(t), again) })
	}
}

func testPutGet(t *testing.T, s cache.Store) {
	if err := s.Err(); err != nil {
		t.Errorf("Err() of a new store = %v", err)
	}
	for _, r := range []cache.Record{
		{Kind: "policy", Key: "a.test", Value: []byte("version: STSv1"), Expires: in(time.Hour)},
		{Kind: "policy", Key: "never.test", Value: []byte("x")},
		{Kind: "policy", Key: "far.test", Value: []byte("x"), Expires: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)},
		{Kind: "policy", Key: "empty.test", Value: []byte{}, Expires: in(time.Hour)},
		{Kind: "policy", Key: "nil.test", Expires: in(time.Hour)},
		{Kind: "policy", Key: "zeros.test", Value: make([]byte, 5000), Expires: in(time.Hour)},
	} {
		put(t, s, r)
		want(t, s, r)
	}
	wantNone(t, s, "policy", "b.test")
	if err := s.Put(t.Context()); err != nil {
		t.Errorf("Put of nothing: %v", err)
	}
}

func testReplace(t *testing.T, s cache.Store) {
	put(t, s, record("a.test", "first"), record("b.test", "other"))
	put(t, s, record("a.test", "second"))
	want(t, s, record("a.test", "second"))
	put(t, s, record("a.test", "third"), record("a.test", "fourth"))
	want(t, s, record("a.test", "fourth"))
	want(t, s, record("b.test", "other"))
	wantAll(t, s, kind, record("a.test", "fourth"), record("b.test", "other"))

	forever := cache.Record{Kind: kind, Key: "a.test", Value: []byte("x")}
	put(t, s, forever)
	want(t, s, forever)
	gone := forever
	gone.Expires = in(-time.Hour)
	put(t, s, gone)
	wantNone(t, s, kind, "a.test")
}

func testDelete(t *testing.T, s cache.Store) {
	put(t, s, record("a.test", "1"), record("b.test", "2"), record("c.test", "3"))
	if err := s.Delete(t.Context(), kind, "a.test", "absent.test", "b.test"); err != nil {
		t.Fatal(err)
	}
	wantAll(t, s, kind, record("c.test", "3"))
	wantNone(t, s, kind, "a.test")
	if err := s.Delete(t.Context(), kind); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
	if err := s.Delete(t.Context(), "other", "c.test"); err != nil {
		t.Errorf("Delete of another kind: %v", err)
	}
	want(t, s, record("c.test", "3"))
	put(t, s, record("a.test", "again"))
	want(t, s, record("a.test", "again"))
}

func testExpiry(t *testing.T, s cache.Store) {
	put(t, s,
		cache.Record{Kind: kind, Key: "past.test", Value: []byte("x"), Expires: in(-2 * time.Second)},
		cache.Record{Kind: kind, Key: "epoch.test", Value: []byte("x"), Expires: time.Unix(0, 0)},
		cache.Record{Kind: kind, Key: "old.test", Value: []byte("x"), Expires: time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)},
		record("future.test", "x"))
	wantNone(t, s, kind, "past.test")
	wantNone(t, s, kind, "epoch.test")
	wantNone(t, s, kind, "old.test")
	wantAll(t, s, kind, record("future.test", "x"))
}

func testExpiresInPassing(t *testing.T, s cache.Store) {
	put(t, s, cache.Record{Kind: kind, Key: "soon.test", Value: []byte("x"), Expires: time.Now().Add(1500 * time.Millisecond)})
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		_, err := s.Get(t.Context(), kind, "soon.test")
		if errors.Is(err, cache.ErrNotFound) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatal("the record does not expire")
		}
	}
	wantAll(t, s, kind)
}

func testValueIsCopied(t *testing.T, s cache.Store) {
	value := []byte("before")
	put(t, s, cache.Record{Kind: kind, Key: "a.test", Value: value, Expires: expires})
	copy(value, "AFTER!")
	want(t, s, record("a.test", "before"))
	r, err := s.Get(t.Context(), kind, "a.test")
	if err != nil {
		t.Fatal(err)
	}
	copy(r.Value, "AFTER!")
	for r, err := range s.All(t.Context(), kind) {
		if err != nil {
			t.Fatal(err)
		}
		copy(r.Value, "AFTER!")
	}
	want(t, s, record("a.test", "before"))
}

func testTooLarge(t *testing.T, s cache.Store) {
	for name, large := range map[string]cache.Record{
		"value": {Kind: kind, Key: "large.test", Value: make([]byte, cache.MaxValue+1), Expires: expires},
		"key":   {Kind: kind, Key: strings.Repeat("k", cache.MaxKey+1), Value: []byte("x"), Expires: expires},
	} {
		// All or none: the good records before and behind are not kept either.
		err := s.Put(t.Context(), record("before.test", "x"), large, record("behind.test", "x"))
		if !errors.Is(err, cache.ErrTooLarge) {
			t.Errorf("%s: Put = %v, want ErrTooLarge", name, err)
		}
		wantAll(t, s, kind)
		wantNone(t, s, kind, large.Key)
	}
	if err := s.Err(); err != nil {
		t.Errorf("Err() after a refused record = %v: the store is as well as before", err)
	}
}

func testLargest(t *testing.T, s cache.Store) {
	value := make([]byte, cache.MaxValue)
	for i := range value {
		value[i] = byte(i * i >> 8)
	}
	r := cache.Record{Kind: kind, Key: strings.Repeat("k", cache.MaxKey), Value: value, Expires: expires}
	small := record("small.test", "x")
	put(t, s, r, small)
	want(t, s, r)
	wantAll(t, s, kind, r, small)
	r.Value = []byte("small now")
	put(t, s, r)
	want(t, s, r)
	want(t, s, small)
}

func testOddKeys(t *testing.T, s cache.Store) {
	keys := []string{
		"", " ", "A.test", "a.test", "a.test.", "a.test ", "[a.test]:587", "a%b_c*?", `a'b"c\d`, "a;b--c", "nul\x00in", "nul", "\x00",
		"\xff\xfe\x80", "bücher.test", "xn--bcher-kva.test", "newline\n", strings.Repeat("x", cache.MaxKey-1), "12", "012", "1e1",
	}
	var records []cache.Record
	for i, key := range keys {
		records = append(records, record(key, fmt.Sprint("value ", i)))
	}
	put(t, s, records...)
	for _, r := range records {
		want(t, s, r)
	}
	wantAll(t, s, kind, records...)
	if err := s.Delete(t.Context(), kind, "nul\x00in", "A.test", "\xff\xfe\x80"); err != nil {
		t.Fatal(err)
	}
	records = slices.DeleteFunc(records, func(r cache.Record) bool {
		return r.Key == "nul\x00in" || r.Key == "A.test" || r.Key == "\xff\xfe\x80"
	})
	wantAll(t, s, kind, records...)
}

func testKinds(t *testing.T, s cache.Store) {
	var records []cache.Record
	for _, k := range []cache.Kind{"policy", "Policy", "class", "", "a kind of a later version", "odd\x00'\"\xff", "1", "01"} {
		r := cache.Record{Kind: k, Key: "a.test", Value: []byte("value of " + k), Expires: expires}
		put(t, s, r)
		records = append(records, r)
	}
	for _, r := range records {
		want(t, s, r)
		wantAll(t, s, r.Kind, r)
	}
	wantAll(t, s, "absent")
	if err := s.Delete(t.Context(), "policy", "a.test"); err != nil {
		t.Fatal(err)
	}
	wantAll(t, s, "policy")
	wantAll(t, s, "Policy", records[1])
}

func testReopen(t *testing.T, s cache.Store, reopen func(*testing.T) cache.Store) {
	kept := []cache.Record{
		record("a.test", "a"), record("odd\x00\xff", "b"), {Kind: "other", Key: "a.test", Value: []byte("c")},
	}
	put(t, s, append(slices.Clone(kept), record("deleted.test", "x"))...)
	if err := s.Delete(t.Context(), kind, "deleted.test"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t)
	defer closeOnce(t, s)
	wantAll(t, s, kind, kept[:2]...)
	wantAll(t, s, "other", kept[2])
	put(t, s, record("later.test", "d"))
	want(t, s, record("later.test", "d"))
}

// kind and expires are those of most records here.
const kind cache.Kind = "policy"

var expires = in(24 * time.Hour)

// in returns a moment without fractions of a second, which a Store may drop.
func in(d time.Duration) time.Time { return time.Now().Add(d).Truncate(time.Second) }

func record(key, value string) cache.Record {
	return cache.Record{Kind: kind, Key: key, Value: []byte(value), Expires: expires}
}

func put(t *testing.T, s cache.Store, records ...cache.Record) {
	t.Helper()
	if err := s.Put(t.Context(), records...); err != nil {
		t.Fatalf("Put: %v", err)
	}
}

func want(t *testing.T, s cache.Store, r cache.Record) {
	t.Helper()
	got, err := s.Get(t.Context(), r.Kind, r.Key)
	if err != nil {
		t.Fatalf("Get(%q, %.80q): %v", r.Kind, r.Key, err)
	}
	if !equal(got, r) {
		t.Fatalf("Get(%q, %.80q) = %s, want %s", r.Kind, r.Key, show(got), show(r))
	}
}

func wantNone(t *testing.T, s cache.Store, kind cache.Kind, key string) {
	t.Helper()
	if r, err := s.Get(t.Context(), kind, key); !errors.Is(err, cache.ErrNotFound) {
		t.Fatalf("Get(%q, %.80q) = %s, %v, want ErrNotFound", kind, key, show(r), err)
	}
}

func wantAll(t *testing.T, s cache.Store, kind cache.Kind, records ...cache.Record) {
	t.Helper()
	rest := map[string]cache.Record{}
	for _, r := range records {
		rest[r.Key] = r
	}
	for r, err := range s.All(t.Context(), kind) {
		if err != nil {
			t.Fatalf("All(%q): %v", kind, err)
		}
		if w, ok := rest[r.Key]; !ok || !equal(r, w) {
			t.Fatalf("All(%q) yields %s, want %s (%v)", kind, show(r), show(w), ok)
		}
		delete(rest, r.Key)
	}
	for _, key := range slices.Sorted(maps.Keys(rest)) {
		t.Errorf("All(%q) does not yield %.80q", kind, key)
	}
}

// equal compares records; a Store need not tell an empty value from none.
func equal(a, b cache.Record) bool {
	return a.Kind == b.Kind && a.Key == b.Key && string(a.Value) == string(b.Value) &&
		a.Expires.IsZero() == b.Expires.IsZero() && (a.Expires.IsZero() || a.Expires.Unix() == b.Expires.Unix())
}

func show(r cache.Record) string {
	return fmt.Sprintf("{%q %.80q %.80q %v}", r.Kind, r.Key, r.Value, r.Expires)
}

func closeOnce(t *testing.T, s cache.Store) {
	if err := s.Close(); err != nil && !errors.Is(err, cache.ErrClosed) {
		t.Errorf("Close: %v", err)
	}
}

func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
