package cache

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// Whatever the hashes (here: nearly all collide), a table is a map.
func TestTableIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var table table[int]
		model := map[string]*int{}
		tags := map[string]uint32{}
		for i := range 40 {
			tags[fmt.Sprint(i)] = tag(rapid.SampledFrom([]uint64{0, 1, 1 << 31, 1<<32 - 1, 1<<32 - 2, 7 << 40}).Draw(t, "hash"))
		}
		atMost := rapid.IntRange(0, 50).Draw(t, "at most")
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			key := fmt.Sprint(rapid.IntRange(0, 39).Draw(t, "key"))
			i := table.find(tags[key], key)
			if (i >= 0) != (model[key] != nil) {
				t.Fatalf("find(%q) = %d, in the model: %v", key, i, model[key] != nil)
			}
			if i >= 0 {
				table.remove(i)
				delete(model, key)
			} else {
				v := new(int)
				table.insert(tags[key], slot[int]{key, v}, atMost)
				model[key] = v
			}
			if table.n != len(model) {
				t.Fatalf("%d names, want %d", table.n, len(model))
			}
			for key, v := range model {
				if got := table.get(tags[key], []byte(key)); got != v {
					t.Fatalf("get(%q) = %p, want %p", key, got, v)
				}
			}
			if table.n > 0 && table.slots[table.random()].v == nil {
				t.Fatal("an empty slot was taken at random")
			}
		}
	})
}

func TestTableShrinks(t *testing.T) {
	var table table[int]
	for i := range 10_000 {
		table.insert(uint32(i+1)*0x9e3779b1, slot[int]{fmt.Sprint(i), new(int)}, 0)
	}
	for table.n > 10 {
		table.remove(table.random())
	}
	if len(table.hashes) > 100 {
		t.Errorf("%d slots for %d names", len(table.hashes), table.n)
	}
}

func TestTableTakesAllAtRandomEvenly(t *testing.T) {
	const names, draws = 1000, 300_000
	var table table[int]
	for i := range names {
		table.insert(uint32(i+1)*0x9e3779b1, slot[int]{fmt.Sprint(i), &[]int{i}[0]}, names)
	}
	var drawn [names]int
	for range draws {
		drawn[*table.slots[table.random()].v]++
	}
	for i, n := range drawn {
		// The one behind a gap is drawn for the gap as well.
		if n == 0 || n > 8*draws/names {
			t.Errorf("name %d was drawn %d times, the average is %d", i, n, draws/names)
		}
	}
}
