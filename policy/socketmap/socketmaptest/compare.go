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
// ten runs, of ours and in relation to the floor's run beside each, so that what
// else the machine does meets both:
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
	CompareFramed(b, netstringSize, floor, ours, conns, requests...)
}

// CompareFramed is Compare for another protocol of requests and answers.
func CompareFramed(b *testing.B, framing Framing, floor, ours *Process, conns int, requests ...[]byte) {
	b.Helper()
	servers := [2]*Process{floor, ours}
	var rate, cpu, rateRatio, cpuRatio []float64
	var worst [2]time.Duration
	for range b.N {
		for i := range runs {
			var r [2]run
			for turn := range servers {
				n := (i + turn) % len(servers) // neither is always the first
				r[n] = measure(b, framing, servers[n], conns, requests)
				worst[n] = max(worst[n], r[n].worst)
			}
			rate, rateRatio = append(rate, r[1].rate), append(rateRatio, r[1].rate/r[0].rate)
			cpu, cpuRatio = append(cpu, r[1].cpu), append(cpuRatio, r[1].cpu/r[0].cpu)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(rate), "req/s")
	b.ReportMetric(median(rateRatio), "req/s÷floor")
	b.ReportMetric(median(cpu), "cpu-µs/req")
	b.ReportMetric(median(cpuRatio), "cpu÷floor")
	b.ReportMetric(float64((worst[1]-worst[0]).Microseconds())/1e3, "worst-floor-ms")
}

// run is one run of one server.
type run struct {
	rate  float64 // answers per second
	cpu   float64 // µs per answer
	worst time.Duration
}

func measure(b *testing.B, framing Framing, p *Process, conns int, requests [][]byte) run {
	before := p.CPU(b)
	r, err := load(b.Context(), framing, "tcp", p.Address, conns, runTime, requests)
	if err != nil {
		b.Fatal(err)
	}
	used := p.CPU(b) - before
	return run{r.PerSecond(), float64(used.Nanoseconds()) / 1e3 / float64(r.Requests), r.Worst}
}

func median(v []float64) float64 {
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
