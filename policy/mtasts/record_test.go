package mtasts

import (
	"errors"
	"strings"
	"testing"
)

func TestParseRecords(t *testing.T) {
	id32 := strings.Repeat("a1", 16)
	for _, c := range []struct {
		name  string
		txts  []string
		id    string // wanted; with err nil
		err   error
		notes int
	}{
		{"none", nil, "", ErrNoRecord, 0},
		{"other records", []string{"v=spf1 -all", "x"}, "", ErrNoRecord, 0},

		{"STS013/among others", []string{"google-site-verification=x", "v=STSv1; id=1"}, "1", nil, 0},
		{"STS013/two", []string{"v=STSv1; id=1", "v=STSv1; id=2"}, "", ErrManyRecords, 0},
		{"STS013/other version beside", []string{"v=STSv1; id=1", "v=STSv2; id=2"}, "1", nil, 0},
		{"STS013/identical", []string{"v=STSv1; id=1", "v=STSv1; id=1"}, "1", nil, 0},

		{"STS014/second invalid", []string{"v=STSv1; id=1", "v=STSv1;"}, "", ErrManyRecords, 0},
		{"STS014/alone invalid", []string{"v=STSv1;"}, "", ErrInvalidRecord, 0},

		{"STS015/upper version field", []string{"V=STSv1; id=1"}, "", ErrInvalidRecord, 0},
		{"STS015/lower version", []string{"v=stsv1; id=1"}, "", ErrInvalidRecord, 0},
		{"STS015/upper id", []string{"v=STSv1; ID=1"}, "", ErrInvalidRecord, 0},

		{"STS016/missing", []string{"v=STSv1; x=y"}, "", ErrInvalidRecord, 0},
		{"STS016/no equals sign", []string{"v=STSv1; id"}, "", ErrInvalidRecord, 1},
		{"STS016/empty", []string{"v=STSv1; id="}, "", ErrInvalidRecord, 0},
		{"STS016/33", []string{"v=STSv1; id=" + id32 + "x"}, "", ErrInvalidRecord, 0},
		{"STS016/hyphen", []string{"v=STSv1; id=a-b"}, "", ErrInvalidRecord, 0},
		{"STS016/date", []string{"v=STSv1; id=2024-01-01"}, "", ErrInvalidRecord, 0},
		{"STS016/underscore", []string{"v=STSv1; id=a_b"}, "", ErrInvalidRecord, 0},
		{"STS016/space", []string{"v=STSv1; id= 1"}, "", ErrInvalidRecord, 0},
		{"STS016/1", []string{"v=STSv1; id=Z"}, "Z", nil, 0},
		{"STS016/32", []string{"v=STSv1; id=" + id32}, id32, nil, 0},

		{"STS017/no space", []string{"v=STSv1;id=1"}, "1", nil, 0},
		{"STS017/much space", []string{"v=STSv1; \t id=1  \t;"}, "1", nil, 0},
		{"STS017/any order", []string{"v=STSv1; x=y; id=1"}, "1", nil, 0},
		{"STS017/leading space", []string{" v=STSv1; id=1"}, "", ErrInvalidRecord, 0},
		{"STS017/two delimiters at the end", []string{"v=STSv1; id=1;;"}, "", ErrInvalidRecord, 0},
		{"STS017/two delimiters", []string{"v=STSv1;; id=1"}, "", ErrInvalidRecord, 0},
		{"STS017/no semicolon", []string{"v=STSv1 id=1"}, "", ErrInvalidRecord, 0},
		{"STS017/version alone", []string{"v=STSv1"}, "", ErrInvalidRecord, 0},
		{"STS017/trailing space tolerated", []string{"v=STSv1; id=1 "}, "1", nil, 1},
		{"W13/misspelt version", []string{"v=STS1; id=1"}, "", ErrInvalidRecord, 0},

		{"STS018/erratum 6285", []string{"v=STSv1 ; id=1"}, "1", nil, 1},
		{"STS018/literal rule wins", []string{"v=STSv1; id=1", "v=STSv1 ;id=2"}, "1", nil, 0},
		{"STS018/two loose ones", []string{"v=STSv1 ; id=1", "v=STSv1\t;id=2"}, "", ErrManyRecords, 0},

		{"STS019/first id", []string{"v=STSv1; id=1; id=2"}, "1", nil, 1},
		{"STS019/bad second id", []string{"v=STSv1; id=1; id=-"}, "1", nil, 1},
		{"STS019/bad first id", []string{"v=STSv1; id=-; id=1"}, "", ErrInvalidRecord, 0},
		{"STS019/extension", []string{"v=STSv1; id=1; foo=bar"}, "1", nil, 0},
		{"STS019/empty extension", []string{"v=STSv1; id=1; foo="}, "1", nil, 1},
		{"STS019/two equals signs", []string{"v=STSv1; id=1; foo=="}, "1", nil, 1},
		{"STS019/long name", []string{"v=STSv1; id=1; " + id32 + "x=y"}, "1", nil, 1},
		{"STS019/longest name", []string{"v=STSv1; id=1; " + id32 + "=y"}, "1", nil, 0},
		{"STS019/no value", []string{"v=STSv1; id=1; foo"}, "1", nil, 1},
		{"STS019/bad name", []string{"v=STSv1; id=1; -foo=x; f+o=x"}, "1", nil, 2},

		{"STS021/backslash", []string{`v=STSv1; id=1; x=a\b`}, "1", nil, 0},

		{"STS022/UTF-8", []string{"v=STSv1; id=1; x=ü"}, "", ErrInvalidRecord, 0},
		{"STS022/high byte", []string{"v=STSv1; id=1; x=\xff"}, "", ErrInvalidRecord, 0},
		{"STS022/in another record", []string{"v=STSv1; id=1", "\xff"}, "1", nil, 0},
		{"control byte", []string{"v=STSv1; id=1; x=\x00"}, "1", nil, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, notes, err := ParseRecords(c.txts)
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || r.ID != c.id {
				t.Fatalf("ParseRecords(%q) = %+v, %v; want id %q, %v", c.txts, r, err, c.id, c.err)
			}
			if len(notes) != c.notes {
				t.Errorf("notes %q, want %d of them", notes, c.notes)
			}
		})
	}
}

func TestParseRecordsNotesAreBounded(t *testing.T) {
	_, notes, err := ParseRecords([]string{"v=STSv1; id=1" + strings.Repeat(";"+strings.Repeat("x", 300), 1000)})
	if err != nil {
		t.Fatal(err)
	}
	if len(notes) != maxNotes+1 || notes[maxNotes] != "and 980 more of the kind" {
		t.Errorf("%d notes, the last %q", len(notes), notes[len(notes)-1])
	}
	for _, n := range notes {
		if len(n) > 200 {
			t.Errorf("a note of %d bytes", len(n))
		}
	}
}

// What an owner reads must name the slip.
func TestParseRecordsErrorText(t *testing.T) {
	for txt, want := range map[string]string{
		"v=STSv1; id=2024-01-01": `invalid MTA-STS record: id "2024-01-01" with other characters than letters and digits in "v=STSv1; id=2024-01-01"`,
		"v=STSv1 id=1":           `invalid MTA-STS record: "v=STSv1 id=1" does not begin with "v=STSv1;"`,
	} {
		if _, _, err := ParseRecords([]string{txt}); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", txt, err, want)
		}
	}
}

func FuzzParseRecords(f *testing.F) {
	for _, s := range []string{
		"v=STSv1; id=1", "v=STSv1;id=1;", "v=STSv1 ;id=a", "v=STSv1; id=1; id=2; foo==", "v=STSv1;;", "v=stsv1; id=1",
		" v=STSv1; id=1", "v=STSv1; \t id=1  \t;", "v=STSv1; id=1; x=\xff", `v=STSv1; id=1; x=a\b`,
	} {
		f.Add(s, "v=STSv1; id=2")
		f.Add("", s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		r, notes, err := ParseRecords([]string{a, b})
		if len(notes) > maxNotes+1 {
			t.Errorf("%d notes", len(notes))
		}
		if err != nil {
			if r != (Record{}) {
				t.Errorf("%+v beside %v", r, err)
			}
			return
		}
		if badID(r.ID) != "" {
			t.Errorf("id %q", r.ID)
		}
		// Which of the records comes first does not matter, and the canonical
		// form of what was read says the same.
		if again, _, err := ParseRecords([]string{b, a}); err != nil || again != r {
			t.Errorf("the other way round: %+v, %v", again, err)
		}
		if again, notes, err := ParseRecords([]string{"v=STSv1; id=" + r.ID}); err != nil || again != r || notes != nil {
			t.Errorf("canonical form: %+v, %v, %v", again, notes, err)
		}
	})
}
