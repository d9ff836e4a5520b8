package ledger

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/postseal/postseal/cache"
)

// The kinds of records. Values are JSON.
const (
	kindDestination cache.Kind = "ledger-destination" // key: see name.key
	kindChange      cache.Kind = "ledger-change"      // key: that of the destination, space, milliseconds since 1970
	kindCount       cache.Kind = "ledger-count"       // key: day, space, destination
)

// name tells apart the evidence about a destination under a rule for its own sake
// and under one for the sender's sake.
type name struct {
	destination string
	sender      bool
}

const senderPrefix = "sender " // a destination has no space

func (n name) key() string {
	if n.sender {
		return senderPrefix + n.destination
	}
	return n.destination
}

// countName is what is counted together.
type countName struct{ destination, day string }

func (n countName) key() string { return n.day + " " + n.destination }

// record makes a record that ends when it has been of no use for long enough.
func record(kind cache.Kind, key string, v any, used time.Time) (cache.Record, error) {
	value, err := json.Marshal(v)
	if err != nil {
		return cache.Record{}, err
	}
	r := cache.Record{Kind: kind, Key: key, Value: value, Expires: used.Add(Keep)}
	return r, r.Check()
}

// read turns a record back.
func read[T any](r cache.Record) (v T, err error) {
	if err = json.Unmarshal(r.Value, &v); err != nil {
		err = fmt.Errorf("%w: %s %q: %w", cache.ErrDamaged, r.Kind, r.Key, err)
	}
	return v, err
}

// changed is the key of the destination in that of a change.
func changed(key string) string {
	if i := strings.LastIndexByte(key, ' '); i >= 0 {
		return key[:i]
	}
	return key
}
