package socketmaptest

import (
	"slices"
	"testing"
	"time"
)

// A measurement: runs of each server, by turns, and how long one takes.
const (
	runs    = 10
	runTime = 500 * time.Millisecond
)

// Compare puts the same load on both servers by turns and reports the medians of
// ten runs, of ours and in relation to the floor:
//
//	req/s           requests answered per second
//	req/s÷floor     to be at least 0.90
//	cpu-µs/req      user and system time of the server
//	cpu÷floor       to be at most 1.15
//	worst-floor-ms  the worst wait of all runs, less that at the floor
//
// The time of a benchmark iteration means nothing here.
func Compare(b *testing.B, floor, ours *Process, conns int, requests ...[]byte) {
	b.Helper()
	servers := [2]*Process{floor, ours}
	var rate, cpu [2][]float64
	var worst [2]time.Duration
	for range b.N {
		for i := range runs {
			for turn := range servers {
				// Neither is always the first.
				n := (i + turn) % len(servers)
				before := servers[n].CPU(b)
				r, err := Load(b.Context(), "tcp", servers[n].Address, conns, runTime, requests...)
				if err != nil {
					b.Fatal(err)
				}
				used := servers[n].CPU(b) - before
				rate[n] = append(rate[n], r.PerSecond())
				cpu[n] = append(cpu[n], float64(used.Nanoseconds())/1e3/float64(r.Requests))
				worst[n] = max(worst[n], r.Worst)
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(rate[1]), "req/s")
	b.ReportMetric(median(rate[1])/median(rate[0]), "req/s÷floor")
	b.ReportMetric(median(cpu[1]), "cpu-µs/req")
	b.ReportMetric(median(cpu[1])/median(cpu[0]), "cpu÷floor")
	b.ReportMetric(float64((worst[1]-worst[0]).Microseconds())/1e3, "worst-floor-ms")
}

func median(v []float64) float64 {
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
