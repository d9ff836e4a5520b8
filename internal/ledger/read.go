package ledger

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/postseal/postseal/cache"
)

// Book is what a ledger holds.
type Book struct {
	Entries    []Entry // by destination
	Unreadable int     // records that could not be understood
}

// Entry is what is kept of a destination.
type Entry struct {
	Destination
	Sender  bool     // it is under a rule for the sender's sake
	Changes []Change // the newest last
	// Count sums up the days asked for. It stands at the evidence under a rule for the
	// destination's own sake, if there is any.
	Count Count
}

// Read reads all destinations from a store, with the changes since a time and the
// counts since its day, that day included.
func Read(ctx context.Context, store cache.Store, since time.Time) (Book, error) {
	var b Book
	found := map[string]*Entry{}
	err := b.each(ctx, store, kindDestination, func(r cache.Record) error {
		d, err := read[Destination](r)
		if err == nil {
			found[r.Key] = &Entry{Destination: d, Sender: strings.HasPrefix(r.Key, senderPrefix)}
		}
		return err
	})
	if err == nil {
		err = b.each(ctx, store, kindChange, func(r cache.Record) error {
			c, err := read[Change](r)
			if e := found[changed(r.Key)]; err == nil && e != nil && !c.At.Before(second(since)) {
				e.Changes = append(e.Changes, c)
			}
			return err
		})
	}
	if err == nil {
		err = b.each(ctx, store, kindCount, func(r cache.Record) error {
			c, err := read[Count](r)
			if err != nil || c.Day < dayOf(since) {
				return err
			}
			e := counted(found, c.Destination)
			e.Count = e.Count.plus(c)
			return nil
		})
	}
	for _, e := range found {
		slices.SortFunc(e.Changes, func(a, b Change) int { return a.At.Compare(b.At) })
		b.Entries = append(b.Entries, *e)
	}
	slices.SortFunc(b.Entries, func(x, y Entry) int {
		if c := strings.Compare(x.Name, y.Name); c != 0 || x.Sender == y.Sender {
			return c
		}
		if y.Sender {
			return -1
		}
		return 1
	})
	return b, err
}

// counted is where a count of a destination stands.
func counted(found map[string]*Entry, destination string) *Entry {
	own, sender := name{destination, false}.key(), name{destination, true}.key()
	switch {
	case found[own] != nil:
		return found[own]
	case found[sender] != nil:
		return found[sender]
	}
	found[own] = &Entry{Destination: Destination{Name: destination}}
	return found[own]
}

// each calls take with every record of a kind and counts those that it cannot read.
func (b *Book) each(ctx context.Context, store cache.Store, kind cache.Kind, take func(cache.Record) error) error {
	for r, err := range store.All(ctx, kind) {
		if err != nil {
			return err
		}
		if err := take(r); errors.Is(err, cache.ErrDamaged) {
			b.Unreadable++
		} else if err != nil {
			return err
		}
	}
	return nil
}

// LastSecured is when a mail host of a destination was last seen to offer what a rule
// demands, as far as it was written; zero: never.
func (l *Ledger) LastSecured(ctx context.Context, destination string) time.Time {
	var last time.Time
	for _, n := range []name{{destination, false}, {destination, true}} {
		if d, err := present[Destination](ctx, l, kindDestination, n.key()); err == nil {
			last = latest(last, d.Secured)
		}
	}
	return last
}

// LatelySecured names at most so many destinations that were seen since a time to
// offer what a rule demands, the latest first, as far as it was written.
func (l *Ledger) LatelySecured(ctx context.Context, since time.Time, most int) []string {
	var b Book
	last := map[string]time.Time{}
	err := b.each(ctx, l.store, kindDestination, func(r cache.Record) error {
		d, err := read[Destination](r)
		if err == nil && d.Secured.After(since) {
			last[d.Name] = latest(last[d.Name], d.Secured)
		}
		return err
	})
	if err != nil {
		l.log.Debug("who offered TLS lately cannot be read", "error", err)
	}
	names := slices.SortedFunc(maps.Keys(last), func(a, b string) int {
		return cmp.Or(last[b].Compare(last[a]), strings.Compare(a, b))
	})
	return names[:min(len(names), most)]
}

// Read reads everything, after what waits was written as far as it can be.
func (l *Ledger) Read(ctx context.Context, since time.Time) (Book, error) {
	_ = l.Flush(ctx) // Err says why not
	return Read(ctx, l.store, since)
}
