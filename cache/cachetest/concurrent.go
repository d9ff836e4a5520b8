package cachetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postseal/postseal/cache"
)

// many is more records than an implementation is likely to read at once.
const many = 3000

func putMany(t *testing.T, s cache.Store) {
	t.Helper()
	records := make([]cache.Record, many)
	for i := range records {
		records[i] = record(fmt.Sprintf("d%d.test", i), strconv.Itoa(i))
	}
	put(t, s, records...)
}

func testAll(t *testing.T, s cache.Store) {
	wantAll(t, s, kind)
	putMany(t, s)
	seen := map[string]bool{}
	all := s.All(t.Context(), kind)
	for range 2 { // an iterator may be used again
		clear(seen)
		for r, err := range all {
			if err != nil {
				t.Fatal(err)
			}
			if seen[r.Key] || r.Key != "d"+string(r.Value)+".test" {
				t.Fatalf("%s, seen before: %v", show(r), seen[r.Key])
			}
			seen[r.Key] = true
		}
		if len(seen) != many {
			t.Fatalf("All yields %d records, want %d", len(seen), many)
		}
	}
}

func testAllStopsEarly(t *testing.T, s cache.Store) {
	putMany(t, s)
	for range 100 { // often enough to use up whatever an abandoned iteration holds
		n := 0
		for range s.All(t.Context(), kind) {
			if n++; n == 3 {
				break
			}
		}
	}
	put(t, s, record("after.test", "x"))
	want(t, s, record("after.test", "x"))
}

func testAllDuringPut(t *testing.T, s cache.Store) {
	putMany(t, s)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			// Records that are there all the while, with a value that changes;
			// and records that come and go.
			r := record(fmt.Sprintf("d%d.test", i*7%many), fmt.Sprint("new", i))
			if err := s.Put(context.Background(), r, record("z"+strconv.Itoa(i%10), "x")); err != nil {
				t.Error(err)
				return
			}
			if err := s.Delete(context.Background(), kind, "z"+strconv.Itoa((i+5)%10)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 5 {
		seen := map[string]bool{}
		for r, err := range s.All(t.Context(), kind) {
			if err != nil {
				t.Fatal(err)
			}
			if seen[r.Key] {
				t.Fatalf("%q is yielded twice", r.Key)
			}
			seen[r.Key] = true
		}
		for i := range many {
			if key := fmt.Sprintf("d%d.test", i); !seen[key] {
				t.Fatalf("%q is there all the while and is not yielded", key)
			}
		}
	}
	close(stop)
	wg.Wait()
}

func testAllAllowsCalls(t *testing.T, s cache.Store) {
	putMany(t, s)
	n := 0
	for r, err := range s.All(t.Context(), kind) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n > 20 {
			break
		}
		r.Value = append(r.Value, '!')
		put(t, s, r)
		want(t, s, r)
		for _, err := range s.All(t.Context(), "other") {
			t.Fatal(err)
		}
		if err := s.Delete(t.Context(), kind, r.Key); err != nil {
			t.Fatal(err)
		}
	}
}

func testContext(t *testing.T, s cache.Store) {
	put(t, s, record("a.test", "x"))
	ctx := cancelled()
	if _, err := s.Get(ctx, kind, "a.test"); !errors.Is(err, context.Canceled) {
		t.Errorf("Get = %v, want context.Canceled", err)
	}
	if err := s.Put(ctx, record("b.test", "x")); !errors.Is(err, context.Canceled) {
		t.Errorf("Put = %v, want context.Canceled", err)
	}
	if err := s.Delete(ctx, kind, "a.test"); !errors.Is(err, context.Canceled) {
		t.Errorf("Delete = %v, want context.Canceled", err)
	}
	var got error
	for _, err := range s.All(ctx, kind) {
		got = err
	}
	if !errors.Is(got, context.Canceled) {
		t.Errorf("All = %v, want context.Canceled", got)
	}
	wantAll(t, s, kind, record("a.test", "x"))

	putMany(t, s)
	running, cancel := context.WithCancel(t.Context())
	defer cancel()
	got = nil
	for _, err := range s.All(running, kind) {
		cancel()
		got = err
	}
	if !errors.Is(got, context.Canceled) {
		t.Errorf("All ends with %v after a cancel, want context.Canceled", got)
	}
	if err := s.Err(); err != nil {
		t.Errorf("Err() = %v: impatient callers are no fault of the store", err)
	}
}

func testConcurrently(t *testing.T, s cache.Store) {
	const writers, each = 8, 60
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				r := record(fmt.Sprintf("w%d.%d.test", w, i), strconv.Itoa(i))
				if err := s.Put(context.Background(), r, record("shared.test", "x")); err != nil {
					t.Error(err)
				}
				if got, err := s.Get(context.Background(), kind, r.Key); err != nil || !equal(got, r) {
					t.Errorf("Get after Put = %s, %v", show(got), err)
					return
				}
				if i%3 == 0 {
					if err := s.Delete(context.Background(), kind, r.Key); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	n := 0
	for _, err := range s.All(t.Context(), kind) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != writers*each*2/3+1 {
		t.Errorf("%d records in the end, want %d", n, writers*each*2/3+1)
	}
}

func testAtomicForReaders(t *testing.T, s cache.Store) {
	put(t, s, record("a.test", "0"), record("b.test", "0"))
	var wg sync.WaitGroup
	var done atomic.Bool
	wg.Go(func() {
		defer done.Store(true)
		for i := 1; i <= 60; i++ {
			v := strconv.Itoa(i)
			if err := s.Put(context.Background(), record("a.test", v), record("b.test", v)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for !done.Load() {
		// b is read after a: it may be newer, never older.
		a, errA := s.Get(t.Context(), kind, "a.test")
		b, errB := s.Get(t.Context(), kind, "b.test")
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		va, _ := strconv.Atoi(string(a.Value))
		vb, _ := strconv.Atoi(string(b.Value))
		if vb < va {
			t.Fatalf("a is of Put %d and then b of Put %d", va, vb)
		}
	}
	wg.Wait()
}

func testClose(t *testing.T, s cache.Store) {
	put(t, s, record("a.test", "x"))
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	wantClosed(t, s)
	if err := s.Close(); !errors.Is(err, cache.ErrClosed) {
		t.Errorf("second Close = %v, want ErrClosed", err)
	}
}

func wantClosed(t *testing.T, s cache.Store) {
	t.Helper()
	if _, err := s.Get(t.Context(), kind, "a.test"); !errors.Is(err, cache.ErrClosed) {
		t.Errorf("Get = %v, want ErrClosed", err)
	}
	if err := s.Put(t.Context(), record("a.test", "x")); !errors.Is(err, cache.ErrClosed) {
		t.Errorf("Put = %v, want ErrClosed", err)
	}
	if err := s.Delete(t.Context(), kind, "a.test"); !errors.Is(err, cache.ErrClosed) {
		t.Errorf("Delete = %v, want ErrClosed", err)
	}
	n := 0
	for _, err := range s.All(t.Context(), kind) {
		if n++; !errors.Is(err, cache.ErrClosed) {
			t.Errorf("All = %v, want ErrClosed", err)
		}
	}
	if n != 1 {
		t.Errorf("All of a closed store yields %d times, want one error", n)
	}
	if err := s.Err(); !errors.Is(err, cache.ErrClosed) {
		t.Errorf("Err = %v, want ErrClosed", err)
	}
}

// Calls under way when the store is closed end well or with ErrClosed, soon.
func testCloseDuringCalls(t *testing.T, s cache.Store) {
	putMany(t, s)
	var wg sync.WaitGroup
	check := func(err error) bool {
		if err != nil && !errors.Is(err, cache.ErrClosed) {
			t.Errorf("during Close: %v", err)
		}
		return err == nil
	}
	for w := range 4 {
		wg.Go(func() {
			for i := 0; check(s.Put(context.Background(), record(fmt.Sprint(w, i), "x"))); i++ {
			}
		})
		wg.Go(func() {
			for {
				if _, err := s.Get(context.Background(), kind, "d1.test"); !check(err) {
					return
				}
			}
		})
		wg.Go(func() {
			for {
				for _, err := range s.All(context.Background(), kind) {
					if !check(err) {
						return
					}
				}
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("calls do not end after Close")
	}
}

func testCloseInsideAll(t *testing.T, s cache.Store) {
	putMany(t, s)
	var last error
	n := 0
	for _, err := range s.All(t.Context(), kind) {
		if n == 0 {
			if err := s.Close(); err != nil {
				t.Errorf("Close inside All: %v", err)
			}
		}
		n, last = n+1, err
	}
	if !errors.Is(last, cache.ErrClosed) {
		t.Errorf("All goes on to %v after Close, in %d steps; want ErrClosed", last, n)
	}
}
