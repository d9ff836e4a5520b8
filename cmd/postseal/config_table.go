package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// reading goes through one document. It collects every error, and remembers
// which keys exist: those that it asked for.
type reading struct {
	doc    *document
	tables []*table
	errs   []*configError
}

func (r *reading) fail(way, format string, args ...any) {
	r.errs = append(r.errs, &configError{File: r.doc.path, Line: r.doc.line(way), Key: way, What: fmt.Sprintf(format, args...)})
}

// maxConfigErrors is how many errors of one file are shown.
const maxConfigErrors = 20

// err joins what was wrong, in the order of the file.
func (r *reading) err() error {
	if len(r.errs) == 0 {
		return nil
	}
	slices.SortStableFunc(r.errs, func(a, b *configError) int { return a.Line - b.Line })
	var errs []error
	for i, e := range r.errs {
		if i == maxConfigErrors {
			errs = append(errs, fmt.Errorf("%s: and %d more", r.doc.path, len(r.errs)-i))
			break
		}
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

// table is one section of a document. Where the file does not have it, it is
// empty, and every reader leaves the default.
type table struct {
	*reading
	way    string // "tls_policy", "rule[3]"; empty: the top
	values map[string]any
	keys   []string // the keys that exist
}

func (r *reading) top() *table { return r.newTable("", r.doc.values) }

func (r *reading) newTable(way string, values map[string]any) *table {
	t := &table{reading: r, way: way, values: values}
	r.tables = append(r.tables, t)
	return t
}

// section opens a table below.
func (t *table) section(key string) *table {
	v, ok := t.get(key)
	values, is := v.(map[string]any)
	if ok && !is {
		t.wrong(key, v, fmt.Sprintf("a section [%s]", join(t.way, key)))
	}
	return t.newTable(join(t.way, key), values)
}

// sections opens each table of an array [[key]].
func (t *table) sections(key string) []*table {
	v, ok := t.get(key)
	list, is := v.([]any)
	if ok && !is {
		t.wrong(key, v, fmt.Sprintf("[[%s]], in double brackets", join(t.way, key)))
	}
	var tables []*table
	for i, element := range list {
		name := fmt.Sprintf("%s[%d]", key, i)
		values, is := element.(map[string]any)
		if !is {
			t.wrong(name, element, fmt.Sprintf("a table [[%s]]", join(t.way, key)))
			continue
		}
		tables = append(tables, t.newTable(join(t.way, name), values))
	}
	return tables
}

func (t *table) get(key string) (any, bool) {
	t.keys = append(t.keys, key)
	v, ok := t.values[key]
	return v, ok
}

func (t *table) fail(key, format string, args ...any) {
	t.reading.fail(join(t.way, key), format, args...)
}

func (t *table) wrong(key string, v any, want string) {
	t.fail(key, "want %s, not %s", want, kind(v))
}

func kind(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a number with a fraction"
	case bool:
		return "a boolean"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	case toml.LocalDate:
		return "a date"
	case toml.LocalTime:
		return "a time of day"
	case toml.LocalDateTime, time.Time:
		return "a date with a time"
	}
	return fmt.Sprintf("%T", v)
}

// text reads a string. parse checks it and keeps it; its error is shown with the place.
func (t *table) text(key, want string, parse func(string) error) {
	v, ok := t.get(key)
	if !ok {
		return
	}
	s, is := v.(string)
	if !is {
		t.wrong(key, v, want+", in quotes")
		return
	}
	if err := parse(s); err != nil {
		t.fail(key, "%v", err)
	}
}

// list reads a list of strings, which replaces the default as a whole.
func (t *table) list(key, want string, start func(), parse func(string) error) {
	v, ok := t.get(key)
	if !ok {
		return
	}
	elements, is := v.([]any)
	if !is {
		t.wrong(key, v, fmt.Sprintf("a list of %s, in square brackets", want))
		return
	}
	start()
	for i, element := range elements {
		name := fmt.Sprintf("%s[%d]", key, i)
		s, is := element.(string)
		if !is {
			t.wrong(name, element, want+", in quotes")
			continue
		}
		if err := parse(s); err != nil {
			t.fail(name, "%v", err)
		}
	}
}

// listOf reads a list of what parse makes of each string.
func listOf[T any](t *table, key, want string, into *[]T, parse func(string) (T, error)) {
	t.list(key, want, func() { *into = []T{} }, func(s string) error {
		v, err := parse(s)
		if err == nil {
			*into = append(*into, v)
		}
		return err
	})
}

// valueOf reads what parse makes of a string.
func valueOf[T any](t *table, key, want string, into *T, parse func(string) (T, error)) {
	t.text(key, want, func(s string) error {
		v, err := parse(s)
		if err == nil {
			*into = v
		}
		return err
	})
}

// boolean reads true or false.
func (t *table) boolean(key string, into *bool) {
	v, ok := t.get(key)
	if !ok {
		return
	}
	b, is := v.(bool)
	if !is {
		t.wrong(key, v, "true or false, without quotes")
		return
	}
	*into = b
}

// count reads a whole number within bounds.
func (t *table) count(key string, into *int, least, most int) {
	v, ok := t.get(key)
	if !ok {
		return
	}
	n, is := v.(int64)
	switch {
	case !is:
		t.wrong(key, v, fmt.Sprintf("a whole number from %d to %d, without quotes", least, most))
	case n < int64(least) || n > int64(most):
		t.fail(key, "%d is out of bounds: from %d to %d", n, least, most)
	default:
		*into = int(n)
	}
}

// share reads a part of the whole.
func (t *table) share(key string, into *float64) {
	v, ok := t.get(key)
	if !ok {
		return
	}
	var f float64
	switch v := v.(type) {
	case float64:
		f = v
	case int64:
		f = float64(v)
	default:
		t.wrong(key, v, "a share above 0 and at most 1, without quotes")
		return
	}
	if !(f > 0 && f <= 1) { // NaN too
		t.fail(key, "%v is out of bounds: above 0 and at most 1; one half is 0.5", v)
		return
	}
	*into = f
}

// duration reads a time span within bounds.
func (t *table) duration(key string, into *time.Duration, least, most time.Duration) {
	valueOf(t, key, `a duration such as "5s"`, into, func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		switch {
		case err != nil:
			return 0, fmt.Errorf("%.100q is no duration; write for example \"5s\", \"1m30s\" or \"500ms\"", s)
		case d < least || d > most:
			return 0, fmt.Errorf("%.100q is out of bounds: from %s to %s", s, inSeconds(least), inSeconds(most))
		}
		return d, nil
	})
}

// refuseUnknown makes every key that nobody asked for an error. It is called
// when everything was read.
func (r *reading) refuseUnknown() {
	for _, t := range r.tables {
		for _, key := range slices.Sorted(maps.Keys(t.values)) {
			if !slices.Contains(t.keys, key) {
				t.fail(key, "unknown key%s", t.hint(key))
			}
		}
	}
}

// hint guesses what was meant by an unknown key.
func (t *table) hint(key string) string {
	if near := nearest(key, t.keys); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	for _, other := range t.tables {
		if other.way != t.way && slices.Contains(other.keys, key) {
			return "; it belongs " + inSection(other.way)
		}
	}
	if len(t.keys) > 0 {
		return "; " + inSection(t.way) + " there are: " + strings.Join(slices.Compact(slices.Sorted(slices.Values(t.keys))), ", ")
	}
	return ""
}

func inSection(way string) string {
	if name, _, ok := strings.Cut(way, "["); ok {
		return "in [[" + name + "]]"
	}
	if way == "" {
		return "at the top, before the first section"
	}
	return "in [" + way + "]"
}

// nearest finds the word that a slip of the keyboard turns into another.
func nearest(word string, words []string) string {
	best, least := "", max(2, len(word)/3)+1
	for _, w := range words {
		if d := distance(strings.ToLower(word), w); d < least && d < len(w) {
			best, least = w, d
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours between two words (optimal string alignment).
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
