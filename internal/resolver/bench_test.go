package resolver_test

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/postseal/postseal/internal/resolver"
	"github.com/postseal/postseal/internal/resolver/resolvertest"
)

// BenchmarkQuestions asks a loopback responder, which shares the processors. The
// bar of a first contact needs 25,000 questions a second.
func BenchmarkQuestions(b *testing.B) {
	for _, askers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("askers=%d", askers), func(b *testing.B) {
			s := (&resolvertest.Server{Raw: resolvertest.Echo}).Start(b)
			r, err := resolver.New(resolver.Config{Servers: []string{s.Addr()}})
			if err != nil {
				b.Fatal(err)
			}
			var n atomic.Int64
			b.SetParallelism(askers)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					a, err := r.MX(b.Context(), "d"+strconv.FormatInt(n.Add(1), 10)+".test")
					if err != nil || len(a.Records) != 1 || !a.Authentic {
						b.Errorf("%+v, %v", a, err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "questions/s")
		})
	}
}
