package socketmap

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestPFX01_CutNetstring(t *testing.T) {
	whole := strings.Repeat("x", MaxRequest)
	for _, tc := range []struct {
		in, payload string
		size        int
		err         error
	}{
		{"", "", 0, nil},
		{"5", "", 0, nil},
		{"5:", "", 0, nil},
		{"5:ab cd", "", 0, nil},
		{"5:ab cd,", "ab cd", 8, nil},
		{"5:ab cd,3:a b,", "ab cd", 8, nil},
		{"0:,", "", 3, nil},
		{"3:,:,,", ",:,", 6, nil},
		{"10000:" + whole + ",", whole, MaxRequest + 7, nil},

		{"5:ab,xyz,", "", 0, errComma},
		{"5:ab cd;", "", 0, errComma},
		{"0:x", "", 0, errComma},
		{"10001", "", 0, errTooLong},
		{"99999999:", "", 0, errTooLong},
		{strings.Repeat("9", 100), "", 0, errTooLong},
		{"05:ab cd,", "", 0, errLength},
		{"00", "", 0, errLength},
		{":", "", 0, errLength},
		{"-1:", "", 0, errLength},
		{" 5:", "", 0, errLength},
		{"5 :", "", 0, errLength},
		{"0x5:", "", 0, errLength},
		{"GET / HTTP/1.1\r\n", "", 0, errLength},
		{"\x16\x03\x01", "", 0, errLength},
	} {
		payload, size, err := cutNetstring([]byte(tc.in), MaxRequest)
		if string(payload) != tc.payload || size != tc.size || !errors.Is(err, tc.err) {
			t.Errorf("%.20q: got %.20q, %d, %v, want %.20q, %d, %v", tc.in, payload, size, err, tc.payload, tc.size, tc.err)
		}
	}
}

// cutAll reads b as it arrives in pieces that end at the given places, and
// returns the payloads before the first error.
func cutAll(t *testing.T, b []byte, limit int, ends ...int) (payloads []string, failed bool) {
	read := 0
	for _, end := range append(ends, len(b)) {
		for {
			payload, size, err := cutNetstring(b[read:end], limit)
			if err != nil {
				return payloads, true
			}
			if size == 0 {
				break
			}
			if len(payload) > limit || size > end-read {
				t.Fatalf("%q: payload of %d, netstring of %d bytes", b, len(payload), size)
			}
			payloads = append(payloads, string(payload))
			read += size
		}
	}
	return payloads, false
}

// FuzzPFX01_CutNetstring: what a stream says does not depend on where it is cut,
// nothing exceeds the limit, and what was read can be written again.
func FuzzPFX01_CutNetstring(f *testing.F) {
	for _, seed := range []string{"5:ab cd,3:a b,", "0:,", "5:ab,", "99999999:", "05:ab cd,", "1:", ",", "12:postseal a.b,1"} {
		f.Add([]byte(seed), uint16(3), uint16(7))
	}
	f.Fuzz(func(t *testing.T, b []byte, x, y uint16) {
		const limit = 64
		i, j := int(x)%(len(b)+1), int(y)%(len(b)+1)
		once, failed := cutAll(t, b, limit)
		pieces, failedToo := cutAll(t, b, limit, min(i, j), max(i, j))
		if failed != failedToo || strings.Join(once, "|") != strings.Join(pieces, "|") {
			t.Fatalf("%q cut at %d and %d: %q, %v, in one piece %q, %v", b, i, j, pieces, failedToo, once, failed)
		}
		var again []byte
		for _, p := range once {
			again = AppendNetstring(again, p)
		}
		if !bytes.HasPrefix(b, again) {
			t.Fatalf("%q was read, %q came", again, b)
		}
	})
}
