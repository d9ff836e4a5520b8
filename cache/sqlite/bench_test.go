package sqlite_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postseal/postseal/cache"
)

func policy(i int, value []byte) cache.Record {
	return cache.Record{Kind: "policy", Key: fmt.Sprintf("domain%d.example.com", i), Value: value, Expires: time.Now().Add(24 * time.Hour)}
}

func BenchmarkPut(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "postseal.db"))
	defer s.Close()
	value, n := make([]byte, 1000), 0
	for b.Loop() {
		n++
		if err := s.Put(b.Context(), policy(n, value)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPutParallel has 64 callers per processor: they share commits.
func BenchmarkPutParallel(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "postseal.db"))
	defer s.Close()
	value, n := make([]byte, 1000), atomic.Int64{}
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := s.Put(b.Context(), policy(int(n.Add(1)), value)); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkAll reads 100,000 policies, as a restart does.
func BenchmarkAll(b *testing.B) {
	const policies = 100_000
	s := open(b, filepath.Join(b.TempDir(), "postseal.db"))
	defer s.Close()
	value := make([]byte, 1000)
	order := rand.Perm(policies)
	for from := 0; from < policies; from += 1000 {
		var records []cache.Record
		for _, i := range order[from : from+1000] {
			records = append(records, policy(i, value))
		}
		if err := s.Put(b.Context(), records...); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	for b.Loop() {
		n := 0
		for _, err := range s.All(b.Context(), "policy") {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != policies {
			b.Fatalf("%d records", n)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "postseal.db"))
	defer s.Close()
	if err := s.Put(b.Context(), policy(1, make([]byte, 1000))); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Get(b.Context(), "policy", "domain1.example.com"); err != nil {
			b.Fatal(err)
		}
	}
}
