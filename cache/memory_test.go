package cache_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/postseal/postseal/cache"
)

// name is a value as the daemon keeps them: it knows its key, when it was last
// used, and whether it may be evicted.
type name struct {
	key    string
	used   atomic.Int64
	policy atomic.Bool
}

func (n *name) protected() bool { return n.policy.Load() }
func (n *name) lastUsed() int64 { return n.used.Load() }

func newNames(limit int) *cache.Memory[name] {
	return cache.NewMemory(cache.Options[name]{Limit: limit, Protected: (*name).protected, Used: (*name).lastUsed})
}

func add(m *cache.Memory[name], key string, used int64) *name {
	n, _ := m.LoadOrStore(key, func() *name {
		n := &name{key: key}
		n.used.Store(used)
		return n
	})
	return n
}

func TestMemoryFindsWhatWasStored(t *testing.T) {
	m := newNames(100)
	if m.Get([]byte("a.test")) != nil || m.GetString("a.test") != nil {
		t.Fatal("an empty Memory found something")
	}
	first := add(m, "a.test", 1)
	again, loaded := m.LoadOrStore("a.test", func() *name { t.Error("made although there"); return &name{} })
	if again != first || !loaded {
		t.Errorf("second LoadOrStore = %p, %v, want %p, true", again, loaded, first)
	}
	if m.Get([]byte("a.test")) != first || m.GetString("a.test") != first {
		t.Error("Get and GetString do not find the value")
	}
	if m.Get([]byte("A.test")) != nil || m.Get(nil) != nil {
		t.Error("found under another key")
	}
	if !m.Delete("a.test") || m.Delete("a.test") || m.Get([]byte("a.test")) != nil || m.Len() != 0 {
		t.Error("Delete did not delete once")
	}
}

func TestMemoryGetDoesNotAllocate(t *testing.T) {
	m := newNames(0)
	for i := range 1000 {
		add(m, strconv.Itoa(i), 1)
	}
	present, absent := []byte("500"), []byte("a name that is not there and is longer than a small buffer")
	if n := testing.AllocsPerRun(100, func() { m.Get(present); m.Get(absent) }); n != 0 {
		t.Errorf("Get allocates %v times", n)
	}
}

func TestMemoryStaysWithinLimit(t *testing.T) {
	for _, limit := range []int{1, 2, 100, 1023, 2048, 5000, 40_000} {
		m := newNames(limit)
		for i := range 3*limit + 10 {
			add(m, strconv.Itoa(i), int64(i))
			if i%1000 == 0 && m.Len() > limit {
				t.Fatalf("limit %d: %d names", limit, m.Len())
			}
		}
		if n := m.Len(); n > limit || n < limit*8/10 {
			t.Errorf("limit %d: %d names in the end", limit, n)
		}
	}
}

func TestMemoryEvictsTheLongestNotUsed(t *testing.T) {
	m := newNames(1000)
	const names = 20_000
	var hot []*name
	for i := range 100 {
		hot = append(hot, add(m, fmt.Sprintf("hot%d", i), 0))
	}
	for i := range names {
		add(m, strconv.Itoa(i), int64(i))
		for _, h := range hot {
			h.used.Store(int64(i))
		}
	}
	lost := 0
	for _, h := range hot {
		if m.GetString(h.key) != h {
			lost++
		}
	}
	// A name in constant use is among the newest tenth: it goes only when all
	// five samples are that new, 1 eviction in 10⁵.
	if lost > 5 {
		t.Errorf("%d of %d names in constant use were evicted", lost, len(hot))
	}
}

func TestCCH11_ProtectedSurviveAFlood(t *testing.T) {
	m := newNames(2000)
	policies := map[string]*name{}
	for i := range 5000 { // more than the limit
		n := add(m, fmt.Sprintf("policy%d", i), 0)
		n.policy.Store(true)
		policies[n.key] = n
	}
	for i := range 100_000 {
		add(m, strconv.Itoa(i), int64(i))
	}
	for key, n := range policies {
		if m.Get([]byte(key)) != n || m.GetString(key) != n {
			t.Fatalf("%s was evicted", key)
		}
		if again, loaded := m.LoadOrStore(key, func() *name { return &name{} }); again != n || !loaded {
			t.Fatalf("%s was stored twice", key)
		}
	}
	names, protected := m.Counts()
	if names-protected > 2000 || protected != len(policies) {
		t.Errorf("Counts() = %d, %d, want at most %d, %d", names, protected, 2000+len(policies), len(policies))
	}
}

func TestMemoryEvictsWhatLostItsProtection(t *testing.T) {
	m := newNames(100)
	var policies []*name
	for i := range 1000 {
		n := add(m, fmt.Sprintf("policy%d", i), -1)
		n.policy.Store(true)
		policies = append(policies, n)
	}
	for i := range 200 {
		add(m, strconv.Itoa(i), int64(i))
	}
	for _, n := range policies {
		n.policy.Store(false)
	}
	for i := range 2000 {
		add(m, "later"+strconv.Itoa(i), int64(1000+i))
	}
	if names, protected := m.Counts(); names > 100 || protected != 0 {
		t.Errorf("Counts() = %d, %d, want at most 100, 0", names, protected)
	}
}

func TestMemoryNeverRefuses(t *testing.T) {
	m := cache.NewMemory(cache.Options[int]{Limit: 1, Protected: func(*int) bool { return true }})
	for i := range 3000 {
		m.LoadOrStore(strconv.Itoa(i), func() *int { return &i })
	}
	if m.Len() != 3000 {
		t.Errorf("%d names, want 3000", m.Len())
	}
	if !m.Delete("7") || m.GetString("7") != nil {
		t.Error("a protected value was not deleted")
	}
}

func TestMemoryRange(t *testing.T) {
	m := newNames(100_000)
	want := map[string]bool{}
	for i := range 5000 {
		n := add(m, strconv.Itoa(i), 1)
		n.policy.Store(i%3 == 0)
		want[n.key] = true
	}
	seen := map[string]bool{}
	m.Range(func(key string, v *name) bool {
		if v.key != key || seen[key] {
			t.Fatalf("%q: value of %q, seen %v", key, v.key, seen[key])
		}
		seen[key] = true
		m.Delete(key) // no lock is held
		add(m, "new "+key, 1)
		return true
	})
	for key := range want {
		if !seen[key] {
			t.Errorf("%q was not seen", key)
		}
	}
	calls := 0
	m.Range(func(string, *name) bool { calls++; return calls < 3 })
	if calls != 3 {
		t.Errorf("Range went on after false: %d calls", calls)
	}
}

func TestMemoryManyAskForOneKey(t *testing.T) {
	m := newNames(10)
	var values [16]*name
	var wg sync.WaitGroup
	for i := range values {
		wg.Go(func() { values[i] = add(m, "a.test", 1) })
	}
	wg.Wait()
	for _, v := range values {
		if v == nil || v != values[0] {
			t.Fatal("two values for one key")
		}
	}
}

func TestMemoryConcurrently(t *testing.T) {
	m := newNames(3000)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			for i := range 20_000 {
				key := strconv.Itoa(r.IntN(10_000))
				switch r.IntN(10) {
				case 0:
					m.Delete(key)
				case 1, 2, 3:
					add(m, key, int64(i)).policy.Store(r.IntN(100) == 0)
				default:
					if n := m.Get([]byte(key)); n != nil && n.key != key {
						t.Errorf("%q holds the value of %q", key, n.key)
					}
				}
			}
		})
	}
	wg.Go(func() { m.Range(func(key string, n *name) bool { return key == n.key }) })
	wg.Wait()
}

// A Memory behaves as a map does, but for evictions; these leave what is protected.
func TestMemoryIsAMapWithEvictions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 20).Draw(t, "limit")
		m, model := newNames(limit), map[string]*name{}
		keys := rapid.SampledFrom([]string{"", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"})
		t.Repeat(map[string]func(*rapid.T){
			"store": func(t *rapid.T) {
				key := keys.Draw(t, "key")
				known := m.GetString(key)
				v := add(m, key, rapid.Int64().Draw(t, "used"))
				if known != nil && v != known {
					t.Fatalf("%q was replaced", key)
				}
				v.policy.Store(rapid.Bool().Draw(t, "policy"))
				model[key] = v
			},
			"delete": func(t *rapid.T) {
				key := keys.Draw(t, "key")
				m.Delete(key)
				delete(model, key)
			},
			"": func(t *rapid.T) {
				protected := 0
				for key, v := range model {
					got := m.Get([]byte(key))
					if got != nil && got != v {
						t.Fatalf("%q holds a foreign value", key)
					}
					if got == nil && v.policy.Load() {
						t.Fatalf("%q is protected and gone", key)
					}
					if v.policy.Load() {
						protected++
					}
				}
				seen := []string{}
				m.Range(func(key string, v *name) bool {
					if model[key] != v {
						t.Fatalf("%q is there and should not be", key)
					}
					seen = append(seen, key)
					return true
				})
				if n := len(slices.Compact(slices.Sorted(slices.Values(seen)))); n != m.Len() || n > len(model) {
					t.Fatalf("Len() = %d, Range found %d of %d", m.Len(), n, len(model))
				}
			},
		})
	})
}

func BenchmarkMemoryGet(b *testing.B) {
	const names = 1_000_000
	m := newNames(names)
	keys := make([][]byte, names)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "domain%d.example.com", i)
		add(m, string(keys[i]), 1)
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := rand.IntN(names); pb.Next(); i = (i + 7919) % names {
			m.Get(keys[i])
		}
	})
}

// BenchmarkMemoryFlood stores new names in a full Memory: each evicts another.
func BenchmarkMemoryFlood(b *testing.B) {
	m := newNames(1_000_000)
	for i := range 1_100_000 {
		add(m, "domain"+strconv.Itoa(i), int64(i))
	}
	var n atomic.Int64
	n.Store(2_000_000)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			add(m, "domain"+strconv.FormatInt(i, 10), i)
		}
	})
}

// BenchmarkMemoryGetDuringFlood reports the slowest Get of a known name while
// 1,000,000 new ones pour into a full Memory, and beside it the slowest of as many
// attempts to do nothing: collections of garbage and the scheduler are in both.
func BenchmarkMemoryGetDuringFlood(b *testing.B) {
	for b.Loop() {
		m := newNames(1_000_000)
		for i := range 1_000_000 {
			add(m, "domain"+strconv.Itoa(i), int64(i))
		}
		known := []byte("domain999999")
		var done atomic.Bool
		go func() {
			for i := range 1_000_000 {
				add(m, "flood"+strconv.Itoa(i), 0)
			}
			done.Store(true)
		}()
		var get, nothing time.Duration
		for !done.Load() {
			start := time.Now()
			m.Get(known)
			middle := time.Now()
			get = max(get, middle.Sub(start))
			nothing = max(nothing, time.Since(middle))
		}
		b.ReportMetric(float64(get.Microseconds()), "µs-slowest")
		b.ReportMetric(float64(nothing.Microseconds()), "µs-slowest-nothing")
	}
}

// BenchmarkMemoryBytesPerName reports what a Memory itself costs per name: key and
// value are allocated before.
func BenchmarkMemoryBytesPerName(b *testing.B) {
	const names = 1_000_000
	values := make([]*name, names)
	for i := range values {
		values[i] = &name{key: fmt.Sprintf("domain%d.example.com", i)}
	}
	for b.Loop() {
		before := heap()
		m := newNames(2 * names)
		for _, v := range values {
			m.LoadOrStore(v.key, func() *name { return v })
		}
		b.ReportMetric(float64(heap()-before)/names, "bytes/name")
		runtime.KeepAlive(m)
	}
	runtime.KeepAlive(values)
}

func heap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
