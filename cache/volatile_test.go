package cache_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/cache/cachetest"
)

func TestVolatile(t *testing.T) {
	cachetest.Run(t, func(*testing.T) cache.Store { return cache.NewVolatile(nil) })
}

func TestVolatileTellsItsReason(t *testing.T) {
	reason := errors.New("no disk")
	if err := cache.NewVolatile(reason).Err(); err != reason {
		t.Errorf("Err() = %v, want %v", err, reason)
	}
	if err := cache.NewVolatile(nil).Err(); err != nil {
		t.Errorf("Err() = %v, want nil", err)
	}
}

func TestVolatileForgetsTheExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, most := cache.NewVolatile(nil), 0
		for i := range 100_000 {
			r := cache.Record{Kind: "k", Key: fmt.Sprint(i), Expires: time.Now().Add(time.Minute)}
			if err := v.Put(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			most = max(most, v.Held())
		}
		if most > 2000 {
			t.Errorf("%d records were held, of which 60 had not expired", most)
		}
	})
}
