package dkim_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"github.com/postseal/postseal/milter/dkim"
)

// A measurement: runs of each verifier, by turns, and the CPU time one is to
// take.
const (
	benchRuns = 10
	benchTime = 50 * time.Millisecond
)

// BenchmarkVerify compares CPU time per message with that of libopendkim and
// go-msgauth, all in memory and with the key record at hand: the medians of ten
// runs by turns.
//
//	cpu-µs          user and system time for one message
//	cpu÷libopendkim to be at most 1
//	cpu÷go-msgauth  to be at most 1 with rsa-sha256
//	B/message       allocated, to be at most 100000
func BenchmarkVerify(b *testing.B) {
	for _, size := range []int{10_000, 100_000, 5_000_000} {
		for _, key := range []string{"rsa2048", "ed25519"} {
			for _, c := range []msgauth.Canonicalization{"relaxed", "simple"} {
				b.Run(fmt.Sprintf("size=%dk/%s/%s", size/1000, key, c), func(b *testing.B) {
					compare(b, benchMessage(b, size, key, c))
				})
			}
		}
	}
}

// benchMessage is text and base64 in equal parts, with seven signed fields.
func benchMessage(b *testing.B, size int, key string, c msgauth.Canonicalization) string {
	header := testHeader + "Mime-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
	var body strings.Builder
	for body.Len() < size/2 {
		body.WriteString("The quick brown fox jumps over the lazy dog, and runs away with   all the\r\n  hens. \r\n")
	}
	for body.Len() < size {
		body.WriteString(strings.Repeat("QUJDREVGR0hJSktM", 4) + "MTIzNDU2Nzg5\r\n")
	}
	return signed(b, header+"\r\n"+body.String()[:size-2]+"\r\n", msgauth.SignOptions{
		Selector: key, HeaderCanonicalization: c, BodyCanonicalization: c,
	})
}

func compare(b *testing.B, message string) {
	z, lod := world(b), libopendkim(b)
	fields, body := split(b, message)
	v := &dkim.Verifier{Lookup: z.lookup}
	ours := func() bool { return verifyFields(b, v, fields, body) }
	theirs := func() bool {
		r, err := msgauth.VerifyWithOptions(strings.NewReader(message), &msgauth.VerifyOptions{
			LookupTXT: func(name string) ([]string, error) { return z[name], nil },
		})
		return err == nil && len(r) == 1 && r[0].Err == nil
	}
	times := max(1, int(benchTime/(cpuOf(b, ours, 3)+1)))
	var own, toLib, toGo []float64
	for range b.N {
		for range benchRuns {
			verdicts, lib := lod.verify(b, z, message, times)
			if len(verdicts) != 1 || !verdicts[0].passed {
				b.Fatalf("libopendkim: %v", verdicts)
			}
			mine, golang := cpuOf(b, ours, times), cpuOf(b, theirs, times)
			own = append(own, float64(mine.Nanoseconds())/1e3)
			toLib = append(toLib, float64(mine)/float64(lib))
			toGo = append(toGo, float64(mine)/float64(golang))
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(own), "cpu-µs")
	b.ReportMetric(median(toLib), "cpu÷libopendkim")
	b.ReportMetric(median(toGo), "cpu÷go-msgauth")
	b.ReportMetric(float64(allocated(ours)), "B/message")
}

func verifyFields(t testing.TB, v *dkim.Verifier, fields [][]byte, body []byte) bool {
	m := v.Begin(fields)
	for chunk := range slices.Chunk(body, 65535) {
		if _, err := m.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	r := m.Finish(t.Context())
	return len(r) == 1 && r[0].Status == dkim.Pass
}

// cpuOf is the CPU time of one call, garbage collection included.
func cpuOf(b *testing.B, verify func() bool, times int) time.Duration {
	before := cpuTime(b)
	for range times {
		if !verify() {
			b.Fatal("did not pass")
		}
	}
	return (cpuTime(b) - before) / time.Duration(times)
}

func cpuTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// allocated is how many octets one call allocates.
func allocated(verify func() bool) uint64 {
	const times = 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range times {
		verify()
	}
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / times
}

func median(v []float64) float64 {
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// TestAllocatedBytes: at most 100 kB, however large the body, and with ten
// signatures.
func TestAllocatedBytes(t *testing.T) {
	text := testHeader + "\r\n" + strings.Repeat("Some  text of a body. \r\n\r\n", 20_000)
	for i, selector := range []string{"rsa2048", "ed25519", "rsa4096", "rsa1024", "other", "other-e", "rsa2048", "ed25519", "rsa2048", "rsa2048"} {
		c := []msgauth.Canonicalization{"relaxed", "simple"}[i%2]
		text = signed(t, text, msgauth.SignOptions{Selector: selector, HeaderCanonicalization: c, BodyCanonicalization: c, HeaderKeys: []string{"From", "Subject", "To", "Date"}})
		if i != 0 && i != 9 {
			continue
		}
		fields, body := split(t, text)
		v := &dkim.Verifier{Lookup: world(t).lookup}
		passes := 0
		n := allocated(func() bool {
			m := v.Begin(fields)
			for chunk := range slices.Chunk(body, 65535) {
				if _, err := m.Write(chunk); err != nil {
					t.Fatal(err)
				}
			}
			passes = 0
			for _, r := range m.Finish(t.Context()) {
				if r.Status == dkim.Pass {
					passes++
				}
			}
			return true
		})
		if passes != i+1 || n > 100_000 {
			t.Errorf("%d of %d signatures pass, %d octets allocated", passes, i+1, n)
		}
	}
}
